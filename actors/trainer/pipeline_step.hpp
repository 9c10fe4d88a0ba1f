#pragma once

#include "actors/relay/relay_actor.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// How far the micro-batches of one step are in a pipeline. At most as many are under way as there are
/// stages, which with stages that take backward work first gives the 1F1B order (training.md section 2;
/// Narayanan et al., PipeDream-Flush, 2021). Only the rules; the trainer sends.
class pipeline_step {
public:
  pipeline_step(size_t stages, size_t microbatches);

  /// The next micro-batch to send forward; nothing while enough are under way, or all are sent.
  std::optional<size_t> send_next();
  /// It has come out at the end. With one stage it is finished by that.
  void forwarded(size_t microbatch, double loss, uint32_t labels);
  /// Its gradient has come back to the first stage.
  void finished();
  /// What the stages say with each answer.
  void reported(const std::vector<hop_report>& hops);

  size_t under_way() const noexcept { return sent_ - finished_; }
  bool complete() const noexcept { return finished_ == losses_.size(); }
  /// Every stage has accumulated all micro-batches.
  bool ready() const noexcept { return norms_.size() == stages_; }
  /// Losses weighted by their labels, added in the order of the micro-batches, whatever order they came in.
  double loss_sum() const noexcept;
  /// Of the whole model, once `ready`; not finite where a stage's is not.
  double gradient_norm_sq() const noexcept;

private:
  size_t stages_;
  size_t sent_ = 0;
  size_t finished_ = 0;
  std::vector<double> losses_;
  std::map<std::string, double> norms_; ///< of the stages that are ready
};

} // namespace neuroshard
