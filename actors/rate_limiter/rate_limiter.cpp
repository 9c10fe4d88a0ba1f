#include "actors/rate_limiter/rate_limiter.hpp"

#include <chrono>

namespace neuroshard {

rate_limiter_actor::behavior_type rate_limiter(rate_limiter_actor::stateful_pointer<rate_limiter_state> self,
                                               rate_limits limits, time_source_ptr time) {
  self->state.time = std::move(time);
  self->state.windows.set_limits(limits);
  self->delayed_send(self, std::chrono::seconds(10), tick_atom_v);
  return {
      [self](const admit_request& request) -> admit_verdict {
        auto verdict = self->state.windows.admit(request, self->state.time->steady_us());
        self->state.refused += verdict.allowed ? 0 : 1;
        return verdict;
      },
      [self](const rate_limits& changed) { self->state.windows.set_limits(changed); },
      [self](tick_atom) {
        self->state.windows.expire(self->state.time->steady_us());
        self->delayed_send(self, std::chrono::seconds(10), tick_atom_v);
      },
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"identities", std::to_string(self->state.windows.windows())},
                 {"refused", std::to_string(self->state.refused)}}};
      },
  };
}

} // namespace neuroshard
