#include "actors/trainer/training_metrics.hpp"

#include <algorithm>
#include <numeric>

namespace neuroshard {

namespace {

constexpr double ema_new = 0.1;

} // namespace

void training_metrics::restore(const training_state& from) {
  *this = {};
  history_ = from.loss_history;
  first_ = from.loss_first;
  if (from.loss > 0)
    ema_ = from.loss;
  if (from.loss_min > 0)
    least_ = from.loss_min;
}

void training_metrics::store(training_state& to) const {
  to.loss = ema_.value_or(0);
  to.loss_min = least_.value_or(0);
  to.loss_history = history_;
  to.loss_first = first_;
}

void training_metrics::step(uint64_t inner_step, double loss, uint64_t tokens, int64_t now_us) {
  ema_ = ema_ ? ema_new * loss + (1 - ema_new) * *ema_ : loss;
  least_ = std::min(least_.value_or(*ema_), *ema_);
  if (inner_step % history_every_steps == 0) {
    history_.push_back(*ema_);
    if (history_.size() > history_max)
      history_.erase(history_.begin());
    if (first_.size() < first_max)
      first_.push_back(*ema_);
  }
  recent_.push_back({now_us, tokens});
  while (recent_.size() > 2 && recent_[1].at_us < now_us - speed_window_us)
    recent_.pop_front();
  if (now_us - recent_.front().at_us >= best_window_us)
    best_ = std::max(best_, tokens_per_second(now_us));
}

void training_metrics::pause() {
  recent_.clear();
}

double training_metrics::tokens_per_second(int64_t now_us) const {
  // The first sample only marks the time from which on the others were made.
  if (recent_.size() < 2 || now_us <= recent_.front().at_us)
    return 0;
  const uint64_t tokens = std::accumulate(recent_.begin() + 1, recent_.end(), uint64_t{0},
                                          [](uint64_t sum, const sample& s) { return sum + s.tokens; });
  return static_cast<double>(tokens) * 1e6 / static_cast<double>(now_us - recent_.front().at_us);
}

double training_metrics::steps_per_second(int64_t now_us) const {
  if (recent_.size() < 2 || now_us <= recent_.front().at_us)
    return 0;
  return static_cast<double>(recent_.size() - 1) * 1e6 / static_cast<double>(now_us - recent_.front().at_us);
}

} // namespace neuroshard
