#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "gateway/grpc/link.hpp"

#include <caf/actor_system.hpp>

namespace neuroshard::rpc {

using grpc_checkpoint_link_actor =
    checkpoint_link_actor::extend<caf::replies_to<drain_atom>::with<void>,
                                  caf::replies_to<status_atom>::with<actor_status>>;

/// Spawns the link that carries checkpoints over gRPC, on connections of its own, so that a long stream is in
/// nobody's way. Scheduled; gRPC's threads move the bytes. A call's budget is how long its peer may be
/// silent.
grpc_checkpoint_link_actor spawn_checkpoint_link(caf::actor_system& system, link_options options);

} // namespace neuroshard::rpc
