#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/common/actor_status.hpp"
#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/proof_keeper/proof_keeper_actor.hpp"
#include "actors/rate_limiter/rate_limiter_actor.hpp"
#include "actors/relay/relay_actor.hpp"
#include "actors/telemetry/telemetry_actor.hpp"
#include "actors/trainer/trainer_actor.hpp"

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <functional>
#include <string>
#include <vector>

/// The SUPERVISOR: starts the other actors in groups, restarts a group when one of its members fails, and
/// brings the node to a clean end. Everybody else knows the others by their fronts (front.hpp), which stay
/// the same across restarts.
namespace neuroshard {

/// Fronts of all actors of a node.
struct node_actors {
  ledger_actor ledger;
  rate_limiter_actor limiter;
  telemetry_actor telemetry;
  peer_link_actor link;
  peer_manager_actor peers;
  relay_actor relay;
  proof_keeper_actor keeper;
  layer_worker_actor worker;
  checkpointer_actor checkpointer;
  checkpoint_link_actor checkpoint_link;
  checkpoint_server_actor checkpoint_server;
  checkpoint_receiver_actor checkpoint_receiver;
  gradient_exchanger_actor exchanger;
  trainer_actor trainer;
  inference_scheduler_actor scheduler;
  std::vector<caf::actor>
      fronts; ///< all of the above in the order of their making; ended in the reverse order
};

/// How one actor is made. Answers an error when it cannot be (a database that does not open, a device that is
/// gone).
struct child_spec {
  std::string name;
  caf::actor front;
  std::function<caf::expected<caf::actor>(caf::actor_system&)> spawn;
};

/// What is to be done when a group has been spawned, and again after each restart of it.
enum class group_start : uint8_t {
  nothing,
  model, ///< restore the newest checkpoint, make a serving copy, start the trainer
};

/// Spawns actors that live and die together: they share state (weights, the step they belong to), so that one
/// of them is worth nothing without the others. Answered once they run and the start has succeeded. A member
/// that ends by itself is a failure: the whole group is ended and made anew, up to 5 times a minute; after
/// that the node stays in state ERROR and answers what it still can.
struct start_group {
  std::string name;
  std::vector<child_spec> children;
  group_start start = group_start::nothing;
};

/// Ends a group and makes it anew, with what is configured now; no failure, and not counted as one. Unknown
/// names are ignored.
struct renew_group {
  std::string name;
};

/// Brings the node to a clean end: inference finished or settled, trainer at a step boundary, checkpoint,
/// peers told, ledger closed. Answers when every child has ended; errc::timeout after 27 s, with the names of
/// those that have not.
struct stop_node {};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_supervisor, caf::first_custom_type_id + 900)
CAF_ADD_TYPE_ID(neuroshard_supervisor, (neuroshard::start_group))
CAF_ADD_TYPE_ID(neuroshard_supervisor, (neuroshard::stop_node))
CAF_ADD_TYPE_ID(neuroshard_supervisor, (neuroshard::renew_group))
CAF_ADD_ATOM(neuroshard_supervisor, neuroshard, retarget_atom, "retarget")
CAF_END_TYPE_ID_BLOCK(neuroshard_supervisor)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::start_group)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::stop_node)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::renew_group)

namespace neuroshard {

using supervisor_actor =
    caf::typed_actor<caf::replies_to<start_group>::with<void>, caf::replies_to<stop_node>::with<void>,
                     caf::reacts_to<renew_group>,
                     caf::reacts_to<tick_atom>, // from itself: the time of a stop is over
                     caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
