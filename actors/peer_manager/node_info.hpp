#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <string>
#include <string_view>

/// What a node says of itself, as signed bytes (spec/grpc-api.md, NodeInfo). No actor.
namespace neuroshard {

inline constexpr std::string_view node_tag = "neuroshard-node-v1";

/// Protobuf bytes of message NodeInfo, fields in order, and back. Refusal: invalid_request with the field
/// that is out of its bounds. Roles of unknown number are left out.
std::string encode_node_info(const node_description& from);
caf::expected<node_description> decode_node_info(std::string_view bytes);

/// The node's own word; `what` must carry its node id and wallet address.
signed_node_ptr sign_node(const node_identity& by, node_description what);
/// A node's word, its signature checked: it speaks of the signer and of the signer's wallet. Refusals:
/// invalid_request (malformed; `field` says which), unauthorized with reason `bad_signature`,
/// `bad_delegation` or `wrong_signer`. A signature costs about 40 us to check.
caf::expected<signed_node_ptr> read_node(signed_blob blob, int64_t now_unix_ms);

} // namespace neuroshard
