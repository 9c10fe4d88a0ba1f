#pragma once

#include <caf/actor.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/stateful_actor.hpp>

#include <string>

namespace neuroshard {

struct front_state {
  static inline const char* name = "front";
  std::string of;
  caf::actor target;
};

/// A stable address for an actor that may be restarted: hands every message on to the present target, sender
/// and reply included.
/// `(retarget_atom, actor)` sets the target. Without one a request is answered with errc::not_ready, anything
/// else is dropped.
caf::behavior front(caf::stateful_actor<front_state>* self, std::string of);

} // namespace neuroshard
