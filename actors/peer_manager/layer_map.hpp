#pragma once

#include "actors/peer_manager/membership.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// The layer map: who shall hold what (spec/network.md section 3, message LayerMap of the gRPC page). Signed
/// by one node, the keeper; advice to all others. No actor.
namespace neuroshard {

inline constexpr std::string_view map_tag = "neuroshard-map-v1";

/// Bounds of a map, so that it fits the 64 KiB of a nested message.
namespace map_rules {
inline constexpr size_t text_bytes_max = 4'096; ///< of each canonical JSON
inline constexpr size_t layers_max = 64;
inline constexpr size_t holders_max = 16; ///< of a unit
inline constexpr uint64_t version_max = uint64_t{1} << 62;
inline constexpr int64_t keeper_after_us = 60'000'000; ///< ONLINE at least so long
} // namespace map_rules

struct unit_holders {
  std::string unit;
  std::vector<std::string> holders;         ///< node ids, ascending
  std::optional<kernels::digest> unit_hash; ///< of model_version; nothing while its holders do not agree
  friend bool operator==(const unit_holders&, const unit_holders&) = default;
};
struct layer_map {
  uint64_t version = 0;
  std::string architecture;         ///< canonical JSON, as bytes
  std::string training;             ///< canonical JSON of the network parameters, as bytes
  std::vector<unit_holders> layers; ///< embed, layer.0, ..., head; every unit once
  uint64_t model_version = 0;
  std::optional<kernels::digest> model_hash;
  friend bool operator==(const layer_map&, const layer_map&) = default;
};

/// The part of a model that one node holds: layers [begin, end) and the ends.
struct held_range {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool embed = false;
  bool head = false;
  bool empty() const noexcept { return begin >= end && !embed && !head; }
  friend bool operator==(const held_range&, const held_range&) = default;
};

/// A map with the bytes that prove it. Immutable.
struct signed_map {
  layer_map what;
  signed_blob blob;
  std::string signer; ///< node id
};
using signed_map_ptr = std::shared_ptr<const signed_map>;

std::string unit_of_layer(uint32_t layer);
/// Number of layers of a map.
uint32_t layers_of(const layer_map& map) noexcept;
/// What a node is to hold; empty when the map does not name it.
held_range range_in(const layer_map& map, std::string_view node_id);
/// Whether every unit has a holder.
bool complete(const layer_map& map) noexcept;
/// How many nodes the map gives work to.
size_t nodes_in(const layer_map& map);
/// Whether the map gives work to nobody but this node.
bool names_only(const layer_map& map, std::string_view node_id) noexcept;
/// First 16 hex digits of SHA-256 of the map's architecture, as nodes announce it.
std::string architecture_id_of(const layer_map& map);

/// Protobuf bytes of message LayerMap, fields in order, and back. Refusal: invalid_request with the field
/// that is out of its bounds; so is a map that gives a node layers that do not lie side by side.
std::string encode_layer_map(const layer_map& from);
caf::expected<layer_map> decode_layer_map(std::string_view bytes);

signed_map_ptr sign_map(const node_identity& by, layer_map what);
/// Refusals: invalid_request (malformed), unauthorized with reason `bad_signature` or `bad_delegation`.
caf::expected<signed_map_ptr> read_map(signed_blob blob, int64_t now_unix_ms);

/// A node that may be the keeper: known to be ONLINE since then.
struct keeper_candidate {
  std::string_view node_id;
  int64_t online_since_us = 0;
};
/// Whom this node takes for keeper: the lowest id among those ONLINE for 60 s, itself among them since it
/// began. While nobody is that long, the signer of the map it holds as long as that one is ONLINE; else the
/// lowest id. `signer` is empty when no map is held. Times of the steady clock.
std::string keeper_of(std::string_view own_id, int64_t own_since_us,
                      const std::vector<keeper_candidate>& others, std::string_view signer, int64_t now_us);
/// Whether some node, this one included, is ONLINE long enough to be the keeper by rule.
bool keeper_is_settled(int64_t own_since_us, const std::vector<keeper_candidate>& others, int64_t now_us);

/// Whether a map takes the place of the one held (may be null). Settled: it is the keeper's and newer, or the
/// one held is not the keeper's. Not settled, when it is still open who will keep the map: one that tells of
/// several nodes counts more than one that its signer made alone, then the higher version, then the lower
/// signer.
bool supersedes(const signed_map& next, const signed_map_ptr& held, std::string_view keeper, bool settled);
/// What a keeper calls its next map: highest version seen + 1.
uint64_t next_version(uint64_t highest_seen) noexcept;

} // namespace neuroshard
