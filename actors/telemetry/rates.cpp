#include "actors/telemetry/rates.hpp"

#include <algorithm>
#include <vector>

namespace neuroshard {

void windowed_rate::observe(int64_t now_us, uint64_t value) {
  if (samples_.size() >= 2 && now_us - samples_[samples_.size() - 2].first < 1'000'000)
    samples_.back() = {now_us, value};
  else
    samples_.emplace_back(now_us, value);
  while (samples_.size() >= 2 && samples_[1].first <= now_us - window_us_)
    samples_.pop_front();
}

uint64_t windowed_rate::growth() const noexcept {
  return samples_.empty() ? 0 : samples_.back().second - samples_.front().second;
}

latency_summary summarize(std::span<const uint32_t> latencies_us) {
  if (latencies_us.empty())
    return {};
  std::vector<uint32_t> sorted(latencies_us.begin(), latencies_us.end());
  uint64_t sum = 0;
  for (const uint32_t us : sorted)
    sum += us;
  const size_t rank = (sorted.size() * 99 + 99) / 100; // ceil(0.99 n)
  const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(sorted.begin(), at, sorted.end());
  return {static_cast<double>(sum) / static_cast<double>(sorted.size()) / 1e3,
          static_cast<double>(*at) / 1e3};
}

} // namespace neuroshard
