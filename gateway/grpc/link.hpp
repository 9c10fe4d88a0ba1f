#pragma once

#include "actors/common/clock.hpp"
#include "actors/gradient_exchanger/exchange_link_actor.hpp"
#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "gateway/grpc/callers.hpp"
#include "gateway/grpc/certificate.hpp"

#include <caf/actor_system.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace neuroshard::rpc {

/// The end of a call that is to be run on the link's thread.
using call_end_ptr = std::shared_ptr<const std::function<void()>>;

struct link_options {
  std::optional<node_certificate> certificate; ///< nothing: plain HTTP/2
  std::string network;
  std::string own_node_id; ///< told in metadata where there are no certificates
  std::shared_ptr<caller_table> callers;
  time_source_ptr time;
  random_source_ptr random;
};

} // namespace neuroshard::rpc

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_grpc_link, caf::first_custom_type_id + 1'050)
CAF_ADD_TYPE_ID(neuroshard_grpc_link, (neuroshard::rpc::call_end_ptr))
CAF_END_TYPE_ID_BLOCK(neuroshard_grpc_link)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::rpc::call_end_ptr)

namespace neuroshard::rpc {

/// One actor carries everything; caf::actor_cast makes the handle of any part of it.
using grpc_link_actor = peer_link_actor::extend_with<work_link_actor>::extend_with<exchange_link_actor>;

/// Spawns the link that calls other nodes over gRPC. Scheduled; gRPC's threads move the bytes, read the
/// replies and hand them to whoever asked.
grpc_link_actor spawn_link(caf::actor_system& system, link_options options);

} // namespace neuroshard::rpc
