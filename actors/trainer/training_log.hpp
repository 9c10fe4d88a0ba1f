#pragma once

#include "actors/trainer/trainer_actor.hpp"

#include <cstdint>
#include <string>

namespace neuroshard {

/// `training_logs/loss.jsonl`: one JSON object a line for each loss checkpoint. At 8 MB the file becomes
/// `loss.1.jsonl` and a new one begins, so that two of them is all there ever is. Lines already written for
/// later steps stay when a restart goes back to a checkpoint: the log tells what happened, in order.
class training_log {
public:
  static constexpr uint64_t file_bytes_max = 8'000'000;

  /// An empty folder: nothing is written.
  explicit training_log(std::string folder = {}) : folder_(std::move(folder)) {}
  /// False when the line could not be written; training does not depend on it.
  bool append(const training_progress& progress, int64_t unix_us);

private:
  std::string folder_;
};

/// The line, without the newline.
std::string training_log_line(const training_progress& progress, int64_t unix_us);

} // namespace neuroshard
