#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <optional>
#include <string>

/// The PEER LINK: calls to other nodes. Whoever wants something of a peer sends the link the request that the
/// peer will get, and hears its reply or its refusal; what carries it (gRPC, or the network of a test) is the
/// link's business. An interface alone: gateway/grpc implements it.
namespace neuroshard {

/// Where a call goes. A certificate given must be that of the connection; without one any is taken, and the
/// reply says which it was.
struct peer_address {
  std::string node_id; ///< empty: not known yet (a seed)
  std::string address; ///< host:port
  std::optional<kernels::digest> tls_cert_sha256;
};

/// `budget_ms` is the call's time limit, told to the peer; beyond it errc::timeout. Not retried.
template <class Request>
struct peer_call {
  peer_address to;
  Request what;
  uint32_t budget_ms = 0;
};

/// Nothing more will be asked of a node: its connections are closed, its certificate is unbound.
struct forget_peer {
  std::string node_id;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_peer_link, caf::first_custom_type_id + 1'000)
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::announce_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::heartbeat_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::leave_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::find_peers_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::ping_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::get_layer_map_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::peer_call<neuroshard::publish_request>))
CAF_ADD_TYPE_ID(neuroshard_peer_link, (neuroshard::forget_peer))
CAF_END_TYPE_ID_BLOCK(neuroshard_peer_link)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::announce_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::heartbeat_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::leave_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::find_peers_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::ping_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::get_layer_map_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::publish_request>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::forget_peer)

namespace neuroshard {

using peer_link_actor = caf::typed_actor<
    // Membership and Ping of the gRPC page.
    caf::replies_to<peer_call<announce_request>>::with<announce_reply>,
    caf::replies_to<peer_call<heartbeat_request>>::with<heartbeat_reply>,
    caf::replies_to<peer_call<leave_request>>::with<void>,
    caf::replies_to<peer_call<find_peers_request>>::with<find_peers_reply>,
    caf::replies_to<peer_call<ping_request>>::with<ping_reply>,
    caf::replies_to<peer_call<get_layer_map_request>>::with<get_layer_map_reply>,
    caf::replies_to<peer_call<publish_request>>::with<publish_reply>,
    // A node that is gone.
    caf::reacts_to<forget_peer>,
    // Ends what is under way; every call is answered.
    caf::replies_to<drain_atom>::with<void>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
