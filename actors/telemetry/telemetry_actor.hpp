#pragma once

#include "actors/telemetry/snapshot.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

/// TELEMETRY: asks the other actors how they are, reads the counters, and publishes one immutable snapshot a
/// second.
namespace neuroshard {

/// A change of the node's state; published at once.
struct state_changed {
  node_state state = node_state::starting;
};
/// A part's health changed outside the regular questions ("storage", "model", "network").
struct health_changed {
  std::string part;
  std::string value; ///< ok, degraded, error
  std::string why;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_telemetry, caf::first_custom_type_id + 600)
CAF_ADD_TYPE_ID(neuroshard_telemetry, (neuroshard::state_changed))
CAF_ADD_TYPE_ID(neuroshard_telemetry, (neuroshard::health_changed))
CAF_END_TYPE_ID_BLOCK(neuroshard_telemetry)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::state_changed)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::health_changed)

namespace neuroshard {

using telemetry_actor =
    caf::typed_actor<caf::replies_to<state_changed>::with<void>, caf::replies_to<health_changed>::with<void>,
                     // Internal: collect and publish.
                     caf::reacts_to<tick_atom>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
