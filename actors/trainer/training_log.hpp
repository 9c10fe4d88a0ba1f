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

  /// What is worth telling of, each once: a full disk stays full for many lines.
  enum class news : uint8_t { none, cannot_write, writes_again };

  /// An empty folder: nothing is written.
  explicit training_log(std::string folder = {}) : folder_(std::move(folder)) {}
  /// A line that cannot be written whole is left out; training does not depend on it.
  news append(const training_progress& progress, int64_t unix_us);
  /// Lines left out since `cannot_write`, up to the one before `writes_again`.
  uint64_t lost() const noexcept { return lost_; }

private:
  bool write(const std::string& line) const;

  std::string folder_;
  bool writes_ = true;
  uint64_t lost_ = 0;
};

/// The line, without the newline.
std::string training_log_line(const training_progress& progress, int64_t unix_us);

} // namespace neuroshard
