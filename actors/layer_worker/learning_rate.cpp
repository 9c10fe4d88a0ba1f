#include "actors/layer_worker/learning_rate.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace neuroshard {

double learning_rate_at(const optimizer_settings& settings, uint64_t step) {
  const auto s = static_cast<double>(std::max<uint64_t>(step, 1));
  const auto warmup = static_cast<double>(settings.warmup_steps);
  const auto decay = static_cast<double>(settings.decay_steps);
  const double peak = settings.learning_rate;
  const double floor = peak / 10;
  if (s < warmup)
    return peak * s / warmup;
  if (s < decay)
    return floor + (peak - floor) * (1 + std::cos(std::numbers::pi * (s - warmup) / (decay - warmup))) / 2;
  return floor;
}

} // namespace neuroshard
