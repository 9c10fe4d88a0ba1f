#pragma once

#include "actors/common/clock.hpp"
#include "actors/rate_limiter/rate_limiter_actor.hpp"
#include "actors/rate_limiter/sliding_window.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

namespace neuroshard {

struct rate_limiter_state {
  static inline const char* name = "rate_limiter";
  time_source_ptr time;
  sliding_window windows{rate_limits{}};
  uint64_t refused = 0;
};

/// Scheduled; never blocks. `time` is the monotonic clock it counts by.
rate_limiter_actor::behavior_type rate_limiter(rate_limiter_actor::stateful_pointer<rate_limiter_state> self,
                                               rate_limits limits, time_source_ptr time);

} // namespace neuroshard
