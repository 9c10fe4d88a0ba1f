#pragma once

#include "actors/layer_worker/layer_worker_actor.hpp"

#include <cstdint>

namespace neuroshard {

/// Learning rate of inner step `step` (the first is 1; 0 counts as 1): linear warm-up to the peak at
/// `warmup_steps`, then a cosine to a tenth of the peak at `decay_steps`, then that tenth (spec training.md
/// section 3).
double learning_rate_at(const optimizer_settings& settings, uint64_t step);

} // namespace neuroshard
