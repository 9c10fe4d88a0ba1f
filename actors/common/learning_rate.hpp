#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace neuroshard {

/// Learning rate of inner step `step` (the first is 1; 0 counts as 1): linear warm-up to `peak` at
/// `warmup_steps`, then a cosine to a tenth of the peak at `decay_steps`, then that tenth (spec training.md
/// section 3).
inline double learning_rate_at(double peak, uint64_t warmup_steps, uint64_t decay_steps, uint64_t step) {
  const auto s = static_cast<double>(std::max<uint64_t>(step, 1));
  const auto warmup = static_cast<double>(warmup_steps);
  const auto decay = static_cast<double>(decay_steps);
  const double floor = peak / 10;
  if (s < warmup)
    return peak * s / warmup;
  if (s < decay)
    return floor + (peak - floor) * (1 + std::cos(std::numbers::pi * (s - warmup) / (decay - warmup))) / 2;
  return floor;
}

} // namespace neuroshard
