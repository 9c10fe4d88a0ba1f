#pragma once

#include <cstdint>
#include <string>

namespace neuroshard {

/// What the machine's resources look like. Bytes; per cent of the whole machine.
struct machine_resources {
  double cpu_percent = 0;
  uint64_t ram_used = 0;
  uint64_t ram_total = 0;
  uint64_t process_bytes = 0; ///< resident set of this process
};

/// Reads /proc; the CPU share is that of the time since the last call. One owner.
class resource_sampler {
public:
  /// `root` stands for /proc (tests put their own files there).
  explicit resource_sampler(std::string root = "/proc") : root_(std::move(root)) {}
  machine_resources sample();

private:
  std::string root_;
  uint64_t busy_ = 0;
  uint64_t total_ = 0;
};

} // namespace neuroshard
