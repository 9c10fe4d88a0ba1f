#include "actors/trainer/pipeline_step.hpp"

namespace neuroshard {

pipeline_step::pipeline_step(size_t stages, size_t microbatches)
    : stages_(stages), losses_(microbatches, 0.0) {}

std::optional<size_t> pipeline_step::send_next() {
  if (sent_ == losses_.size() || under_way() >= stages_)
    return std::nullopt;
  return sent_++;
}

void pipeline_step::forwarded(size_t microbatch, double loss, uint32_t labels) {
  losses_[microbatch] = loss * labels;
  if (stages_ == 1)
    ++finished_;
}

void pipeline_step::finished() {
  ++finished_;
}

void pipeline_step::reported(const std::vector<hop_report>& hops) {
  for (const auto& hop : hops)
    if (hop.share.ready)
      norms_[hop.node_id] = hop.share.grad_norm_sq;
}

double pipeline_step::loss_sum() const noexcept {
  double sum = 0;
  for (const double loss : losses_)
    sum += loss;
  return sum;
}

double pipeline_step::gradient_norm_sq() const noexcept {
  double sum = 0;
  for (const auto& [node, norm_sq] : norms_)
    sum += norm_sq;
  return sum;
}

} // namespace neuroshard
