#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/peer_manager/membership.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// The PEER MANAGER: who is out there, which layers they hold, how they are doing; routes through the model.
/// What nodes say to each other is in membership.hpp.
namespace neuroshard {

/// One stage of a route. `local` is this node's own layer worker.
struct route_hop {
  bool local = true;
  std::string node_id;
  std::string address; ///< host:port; empty when local
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
};
/// Asks for a way through all layers, embedding first, head last, for weights of one version.
struct route_request {
  uint64_t model_version = 0;
  std::vector<std::string> exclude; ///< node ids that just failed
};
struct model_route {
  std::vector<route_hop> hops;
  bool own_layers_only = true; ///< every hop belongs to this node's wallet: self-service
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_peer_manager, caf::first_custom_type_id + 800)
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::node_description))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::peer_list_ptr))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::route_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::model_route))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::announce_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::announce_reply))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::heartbeat_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::heartbeat_reply))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::leave_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::find_peers_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::find_peers_reply))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::ping_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::ping_reply))
CAF_ADD_ATOM(neuroshard_peer_manager, neuroshard, peers_atom, "peers")
CAF_ADD_ATOM(neuroshard_peer_manager, neuroshard, leave_atom, "leave")
CAF_END_TYPE_ID_BLOCK(neuroshard_peer_manager)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::node_description)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_list_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::route_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::model_route)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::announce_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::announce_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::heartbeat_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::heartbeat_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::leave_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::find_peers_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::find_peers_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::ping_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::ping_reply)

namespace neuroshard {

using peer_manager_actor = caf::typed_actor<
    // This node's own description has changed.
    caf::replies_to<node_description>::with<void>,
    // Everybody known.
    caf::replies_to<peers_atom>::with<peer_list_ptr>,
    // A way through the model, or errc::no_route naming the first layer nobody holds.
    caf::replies_to<route_request>::with<model_route>,
    // What other nodes ask (spec/grpc-api.md section 5).
    caf::replies_to<announce_request>::with<announce_reply>,
    caf::replies_to<heartbeat_request>::with<heartbeat_reply>, caf::replies_to<leave_request>::with<void>,
    caf::replies_to<find_peers_request>::with<find_peers_reply>,
    caf::replies_to<ping_request>::with<ping_reply>,
    // Says goodbye to the others.
    caf::replies_to<leave_atom>::with<void>, caf::reacts_to<tick_atom>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
