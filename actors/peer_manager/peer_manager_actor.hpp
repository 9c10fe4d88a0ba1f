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
  std::optional<kernels::digest> tls_cert_sha256 = std::nullopt; ///< as the node announces it
  uint32_t budget_ms = 0; ///< for a call of the class asked for; 0 when local
};
/// What is sent along a route; latency is measured for each.
enum class request_class : uint8_t { decode, prefill, train_forward, backward };
inline constexpr size_t request_classes = 4;
/// Asks for a way through all layers, embedding first, head last, for weights of one version. Other nodes
/// must announce just that version; this node's own worker checks by itself.
struct route_request {
  uint64_t model_version = 0;
  std::vector<std::string> exclude; ///< node ids that just failed
  request_class what = request_class::decode;
};
/// How a call to one hop ended.
struct hop_outcome {
  std::string node_id;
  request_class what = request_class::decode;
  int64_t latency_us = 0;
  bool failed = false; ///< or it did not answer within its budget
};
struct model_route {
  std::vector<route_hop> hops;
  bool own_layers_only = true; ///< every hop belongs to this node's wallet: self-service
  std::string model_hash = {}; ///< the network's of the version asked for, 64 hex; empty: not known
};
/// Something of a node was refused: a contribution, a receipt. Counted, and shown in /peers.
struct peer_refused {
  std::string node_id;
  std::string reason;               ///< snake_case; empty: nothing more was, only the next field counts
  uint64_t ignored_until_round = 0; ///< its contributions are ignored up to this outer step; 0: no change
};

/// Something published by another node, its signature checked.
struct published {
  publish_kind kind{};
  signed_blob blob;
  blob_signer signer;
  std::string from; ///< node id of the one that passed it on
};
using publish_listener = caf::typed_actor<caf::reacts_to<published>>;
/// From now on this actor gets what is published of that kind; one at most for each. To be sent again now and
/// then: a peer manager that was made anew has forgotten it.
struct publish_sink {
  publish_kind kind{};
  publish_listener to;
};
/// A serialized SignedBlob that stood in the directory; whoever left it there may be anybody.
struct found_record {
  std::string bytes;
};
/// The directory's nodes see this one at that address.
struct seen_in_directory {
  std::string host;
};
/// Publishes something of this node's own, signed by it.
struct publish_own {
  publish_kind kind{};
  signed_blob blob;
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
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::get_layer_map_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::get_layer_map_reply))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::publish_request))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::publish_reply))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::hop_outcome))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::published))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::publish_sink))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::publish_own))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::found_record))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::seen_in_directory))
CAF_ADD_TYPE_ID(neuroshard_peer_manager, (neuroshard::peer_refused))
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
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::get_layer_map_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::get_layer_map_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::publish_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::publish_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::hop_outcome)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::published)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::publish_sink)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::publish_own)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::found_record)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::seen_in_directory)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_refused)

namespace neuroshard {

using peer_manager_actor = caf::typed_actor<
    // This node's own description has changed.
    caf::replies_to<node_description>::with<void>,
    // Everybody known.
    caf::replies_to<peers_atom>::with<peer_list_ptr>,
    // A way through the model, or errc::no_route naming the first layer nobody holds.
    caf::replies_to<route_request>::with<model_route>,
    // How a call to a hop went; what of a node was refused.
    caf::reacts_to<hop_outcome>, caf::reacts_to<peer_refused>,
    // Who hears what is published, and publishing.
    caf::reacts_to<publish_sink>, caf::replies_to<publish_own>::with<void>,
    // What the directory has to say.
    caf::reacts_to<found_record>, caf::reacts_to<seen_in_directory>,
    // What other nodes ask (spec/grpc-api.md section 5).
    caf::replies_to<announce_request>::with<announce_reply>,
    caf::replies_to<heartbeat_request>::with<heartbeat_reply>, caf::replies_to<leave_request>::with<void>,
    caf::replies_to<find_peers_request>::with<find_peers_reply>,
    caf::replies_to<ping_request>::with<ping_reply>,
    caf::replies_to<get_layer_map_request>::with<get_layer_map_reply>,
    caf::replies_to<publish_request>::with<publish_reply>,
    // Says goodbye to the others.
    caf::replies_to<leave_atom>::with<void>, caf::reacts_to<tick_atom>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
