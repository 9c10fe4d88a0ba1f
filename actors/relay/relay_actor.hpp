#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

/// The RELAY: this node as one hop of a route. It has its layers run by the layer worker, hands the result to
/// the next hop and brings the answer back. A driver sends its own calls through its own relay, so that the
/// first hop is like every other. It never retries and never takes another way: that is the driver's
/// business (spec/grpc-api.md section 4).
namespace neuroshard {

inline constexpr size_t route_hops_max = 64;

/// One stage further along a route: Hop of the gRPC page.
struct work_hop {
  std::string node_id;
  std::string address; ///< host:port
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  std::optional<kernels::digest> tls_cert_sha256;
};

/// What one hop reports of its share: HopReport of the gRPC page.
struct hop_report {
  std::string node_id;
  stage_report share;
};

/// Forward of the gRPC page: a range here, then the route.
struct routed_forward {
  forward_request work; ///< its range is this node's; the deadline covers the whole route
  std::vector<work_hop> route;
  connection_end from; ///< filled in by the receiver's gateway; an empty node id: this node itself
};
/// `work` is what the end of the route made of it; its own `report` is empty.
struct routed_forward_reply {
  forward_reply work;
  std::vector<hop_report> hops; ///< in route order
  std::vector<signed_blob> receipts;
};

/// Backward of the gRPC page: a range here, then the stages before it, descending.
struct routed_backward {
  backward_request work;
  std::vector<work_hop> route; ///< GRADIENT alone
  connection_end from;
};
struct routed_backward_reply {
  backward_reply work;
  std::vector<hop_report> hops; ///< in call order
  std::vector<signed_blob> receipts;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_relay, caf::first_custom_type_id + 1'100)
CAF_ADD_TYPE_ID(neuroshard_relay, (neuroshard::routed_forward))
CAF_ADD_TYPE_ID(neuroshard_relay, (neuroshard::routed_forward_reply))
CAF_ADD_TYPE_ID(neuroshard_relay, (neuroshard::routed_backward))
CAF_ADD_TYPE_ID(neuroshard_relay, (neuroshard::routed_backward_reply))
CAF_END_TYPE_ID_BLOCK(neuroshard_relay)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::routed_forward)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::routed_forward_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::routed_backward)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::routed_backward_reply)

namespace neuroshard {

using relay_actor = caf::typed_actor<
    // Runs this node's range and everything after it. A failure further on keeps its code; the problem's
    // detail `failed_hop` names the node.
    caf::replies_to<routed_forward>::with<routed_forward_reply>,
    // The same backward; COMMIT, DISCARD and RELEASE are for this node alone.
    caf::replies_to<routed_backward>::with<routed_backward_reply>,
    // A driver hands back a receipt of this node, counter-signed.
    caf::reacts_to<published>,
    // Renews what it knows of the peers.
    caf::reacts_to<tick_atom>, caf::replies_to<drain_atom>::with<void>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
