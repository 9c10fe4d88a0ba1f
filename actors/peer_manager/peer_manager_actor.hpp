#pragma once

#include "actors/common/actor_status.hpp"

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
namespace neuroshard {

enum class node_role : uint8_t { driver = 1, worker = 2, validator = 3 };
enum class peer_state : uint8_t { fresh, online, stale, dead, banned };

/// What a node says of itself (NodeInfo of the gRPC page, as far as this node uses it).
struct node_description {
  std::string node_id; ///< 32 hex
  std::string wallet_address;
  std::string host;
  uint32_t grpc_port = 0;
  uint64_t sequence = 0;
  std::vector<node_role> roles;
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  bool has_embedding = false;
  bool has_lm_head = false;
  uint64_t memory_total_mb = 0;
  uint64_t memory_free_mb = 0;
  std::string device;
  bool accepting = false;
  bool training = false;
  uint64_t model_version = 0;
  std::string architecture_id;
  std::string software_version;
};

struct peer_info {
  node_description node;
  peer_state state = peer_state::fresh;
  double latency_ms = 0; ///< EWMA
  std::optional<int64_t> connected_since_unix_us;
};
using peer_list = std::vector<peer_info>;
using peer_list_ptr = std::shared_ptr<const peer_list>;

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

/// Calls to other nodes; implemented by the gRPC gateway and injected.
class peer_transport;

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_peer_manager, caf::first_custom_type_id + 800)
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::node_description))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::peer_list_ptr))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::route_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::model_route))
CAF_ADD_ATOM(neuroshard_peer_manager, neuroshard, peers_atom, "peers")
CAF_ADD_ATOM(neuroshard_peer_manager, neuroshard, leave_atom, "leave")
CAF_END_TYPE_ID_BLOCK(neuroshard_peer_manager)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::node_description)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_list_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::route_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::model_route)

namespace neuroshard {

using peer_manager_actor = caf::typed_actor<
    // This node's own description has changed.
    caf::replies_to<node_description>::with<void>,
    // Everybody known.
    caf::replies_to<peers_atom>::with<peer_list_ptr>,
    // A way through the model, or errc::no_route naming the first layer nobody holds.
    caf::replies_to<route_request>::with<model_route>,
    // Says goodbye to the others.
    caf::replies_to<leave_atom>::with<void>, caf::reacts_to<tick_atom>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
