#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/peer_manager/peer_table.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

namespace neuroshard {

struct peer_manager_state {
  static inline const char* name = "peer_manager";
  peer_table table;
};

/// Scheduled. `own` describes this node; `total_layers` is the depth of the model that routes must cover.
peer_manager_actor::behavior_type peer_manager(peer_manager_actor::stateful_pointer<peer_manager_state> self,
                                               node_description own, uint32_t total_layers);

} // namespace neuroshard
