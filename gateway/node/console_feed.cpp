#include "gateway/node/console_feed.hpp"

#include <caf/send.hpp>

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr int64_t pause_us_max = 120'000'000;

/// Prints a finished sample; anything else that may come of it is nobody's business.
class sample_sink final : public generation_sink {
public:
  sample_sink(std::shared_ptr<console> out, uint64_t step, std::string prompt)
      : out_(std::move(out)), step_(step), prompt_(std::move(prompt)) {}
  void token(std::string, uint32_t, std::optional<double>) override {}
  void done(generation_result result) override {
    if (!result.failure)
      out_->block(render_sample(static_cast<int64_t>(step_), prompt_ + result.text, 0));
  }

private:
  std::shared_ptr<console> out_;
  uint64_t step_;
  std::string prompt_;
};

} // namespace

void console_feed::preparing(std::string phase, double fraction) {
  phase_ = std::move(phase);
  fraction_ = fraction;
}

void console_feed::tick(int64_t last_step) {
  const auto now = board_->read();
  const auto& t = *now->training;
  console_progress p;
  p.status = to_string(now->state);
  if (!phase_.empty() && (now->state == node_state::starting || now->state == node_state::syncing))
    p.detail = phase_ + " " + std::to_string(static_cast<int>(fraction_ * 100)) + " %";
  p.step = static_cast<int64_t>(t.inner_step);
  p.last_step = last_step;
  p.loss = t.loss_ema;
  p.validation_loss = t.validation_loss;
  if (t.validation_loss != validation_) {
    validation_ = t.validation_loss;
    validation_step_ = t.inner_step;
  }
  p.validation_step = static_cast<int64_t>(validation_step_);
  p.tokens_per_second = t.tokens_per_second;
  if (t.eta_seconds)
    p.eta_s = static_cast<int64_t>(*t.eta_seconds);
  p.peers = static_cast<int64_t>(now->active_connections);
  out_->progress(p);

  if (now->state == node_state::training && t.inner_step > sampled_step_ &&
      time_->steady_us() - sampled_us_ >= pause_us_)
    ask_for_sample(t.inner_step);
}

void console_feed::ask_for_sample(uint64_t step) {
  const bool first = sampled_us_ == 0;
  sampled_us_ = time_->steady_us();
  sampled_step_ = step;
  if (first)
    return; // The first pause begins when training does.
  pause_us_ = std::min(2 * pause_us_, pause_us_max);
  generation_request request;
  request.prompt = "And ";
  request.max_tokens = 48;
  request.temperature = 0.7F;
  request.own = true;
  request.sink = std::make_shared<sample_sink>(out_, step, request.prompt);
  caf::anon_send(scheduler_, std::move(request));
}

} // namespace neuroshard
