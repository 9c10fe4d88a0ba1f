#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <utility>

namespace neuroshard {

/// How much a counter grew over a sliding window. Plain logic; keeps at most one sample a second.
class windowed_rate {
public:
  explicit windowed_rate(int64_t window_us) : window_us_(window_us) {}
  /// Tells the counter's value at a time that never runs backwards.
  void observe(int64_t now_us, uint64_t value);
  /// Growth over the window (less while the window is not full yet).
  uint64_t growth() const noexcept;

private:
  int64_t window_us_;
  std::deque<std::pair<int64_t, uint64_t>>
      samples_; ///< the first one lies at or before the start of the window
};

/// Mean and 99th percentile (nearest rank) of some latencies in microseconds, as milliseconds; zeros for
/// none.
struct latency_summary {
  double mean_ms = 0;
  double p99_ms = 0;
};
latency_summary summarize(std::span<const uint32_t> latencies_us);

} // namespace neuroshard
