#pragma once

#include <atomic>
#include <functional>
#include <string_view>

namespace neuroshard::text {

/// How long-running work reports to, and is stopped by, whoever started it. Both are optional.
struct progress {
  /// Called in the working thread, a few times a second at most: what is being done ("learn-merges"), and how
  /// much of it (0 to 1).
  std::function<void(std::string_view phase, double fraction)> report;
  /// Set by another thread to stop the work, which then ends with `code::unavailable` and the message
  /// "cancelled".
  const std::atomic<bool>* cancel = nullptr;

  void operator()(std::string_view phase, double fraction) const {
    if (report)
      report(phase, fraction);
  }
  bool cancelled() const noexcept { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }
};

} // namespace neuroshard::text
