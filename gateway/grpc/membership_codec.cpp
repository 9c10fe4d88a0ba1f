#include "gateway/grpc/membership_codec.hpp"

#include "gateway/grpc/limits.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t delegation_bytes_max = 1'024;
constexpr size_t reason_bytes_max = 64;
constexpr size_t host_bytes_max = 253;
constexpr size_t state_bytes_max = 32;
constexpr int excluded_max = 1'024;
constexpr size_t unit_bytes_max = 16;

caf::error wrong_field(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

template <class Blobs>
caf::expected<std::vector<signed_blob>> read_all(const Blobs& from, size_t most, const char* field) {
  if (static_cast<size_t>(from.size()) > most)
    return wrong_field(field, "There are too many records.");
  std::vector<signed_blob> all;
  all.reserve(static_cast<size_t>(from.size()));
  for (const auto& one : from) {
    auto blob = read(one, field);
    if (!blob)
      return blob.error();
    all.push_back(std::move(*blob));
  }
  return all;
}

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

} // namespace

caf::expected<signed_blob> read(const SignedBlob& from, const char* field, size_t payload_max) {
  signed_blob made;
  if (from.payload().empty() || from.payload().size() > payload_max)
    return wrong_field(field, "The signed bytes are missing or too long.");
  if (from.public_key().size() != made.key.size() || from.signature().size() != made.sig.size())
    return wrong_field(field, "A public key has 33 bytes, a signature 64.");
  if (from.delegation().size() > delegation_bytes_max)
    return wrong_field(field, "The delegation is too long.");
  made.payload = from.payload();
  std::copy(from.public_key().begin(), from.public_key().end(), made.key.begin());
  std::copy(from.signature().begin(), from.signature().end(), made.sig.begin());
  made.delegation = from.delegation();
  return made;
}

void write(const signed_blob& from, SignedBlob& to) {
  to.set_payload(from.payload);
  to.set_public_key(from.key.data(), from.key.size());
  to.set_signature(from.sig.data(), from.sig.size());
  to.set_delegation(from.delegation);
}

// ------------------------------------------------------------------------------------------------- requests

caf::expected<announce_request> read(const AnnounceRequest& from) {
  announce_request made;
  auto node = read(from.node(), "node");
  if (!node)
    return node.error();
  made.node = std::move(*node);
  auto known = read_all(from.known_peers(), known_peers_max, "known_peers");
  if (!known)
    return known.error();
  made.known_peers = std::move(*known);
  return made;
}

void write(const announce_request& from, AnnounceRequest& to) {
  write(from.node, *to.mutable_node());
  for (const auto& one : from.known_peers)
    write(one, *to.add_known_peers());
}

caf::expected<heartbeat_request> read(const HeartbeatRequest& from) {
  heartbeat_request made;
  auto node = read(from.node(), "node");
  if (!node)
    return node.error();
  made.node = std::move(*node);
  const auto& training = from.training();
  if (!std::isfinite(training.loss()) || training.loss() < 0)
    return wrong_field("training.loss", "A loss is a number from 0 on.");
  made.training = {training.step(), training.outer_step(), training.loss(), training.shard_id(),
                   training.tokens()};
  made.map_version = from.map_version();
  return made;
}

void write(const heartbeat_request& from, HeartbeatRequest& to) {
  write(from.node, *to.mutable_node());
  auto& training = *to.mutable_training();
  training.set_step(from.training.step);
  training.set_outer_step(from.training.outer_step);
  training.set_loss(from.training.loss);
  training.set_shard_id(from.training.shard_id);
  training.set_tokens(from.training.tokens);
  to.set_map_version(from.map_version);
}

caf::expected<leave_request> read(const LeaveRequest& from) {
  if (from.reason().size() > reason_bytes_max || !is_printable(from.reason()))
    return wrong_field("reason", "A reason is a short printable text.");
  return leave_request{{}, from.reason()};
}

void write(const leave_request& from, LeaveRequest& to) {
  to.set_reason(from.reason);
}

caf::expected<find_peers_request> read(const FindPeersRequest& from) {
  find_peers_request made;
  if (!from.target().empty()) {
    auto& target = made.target.emplace();
    if (from.target().size() != target.size())
      return wrong_field("target", "A target has 20 bytes.");
    std::copy(from.target().begin(), from.target().end(), target.begin());
  }
  if (from.unit().size() > unit_bytes_max)
    return wrong_field("unit", "A unit is embed, layer.N or head.");
  made.unit = from.unit();
  if (from.role() != ROLE_UNSPECIFIED) {
    if (!Role_IsValid(from.role()))
      return wrong_field("role", "This role is not known.");
    made.role = static_cast<node_role>(from.role());
  }
  if (from.limit() > told_peers_max)
    return wrong_field("limit", "At most 50 peers are told.");
  made.limit = from.limit();
  if (from.exclude_size() > excluded_max)
    return wrong_field("exclude", "At most 1,024 nodes are left out.");
  for (const auto& id : from.exclude()) {
    if (!is_lower_hex(id, 32))
      return wrong_field("exclude", "A node id is 32 hex digits.");
    made.exclude.push_back(id);
  }
  return made;
}

void write(const find_peers_request& from, FindPeersRequest& to) {
  if (from.target)
    to.set_target(from.target->data(), from.target->size());
  to.set_unit(from.unit);
  if (from.role)
    to.set_role(static_cast<Role>(*from.role));
  to.set_limit(from.limit);
  for (const auto& id : from.exclude)
    to.add_exclude(id);
}

caf::expected<ping_request> read(const PingRequest& from) {
  ping_request made;
  if (from.payload().size() > ping_payload_max)
    return wrong_field("payload", "A ping carries at most 1 KiB.");
  made.payload = from.payload();
  made.sent_unix_us = from.sent_unix_us();
  if (from.has_node()) {
    auto node = read(from.node(), "node");
    if (!node)
      return node.error();
    made.node = std::move(*node);
  }
  return made;
}

void write(const ping_request& from, PingRequest& to) {
  to.set_payload(from.payload);
  to.set_sent_unix_us(from.sent_unix_us);
  if (from.node)
    write(*from.node, *to.mutable_node());
}

caf::expected<get_layer_map_request> read(const GetLayerMapRequest& from) {
  return get_layer_map_request{{}, from.known_version()};
}

void write(const get_layer_map_request& from, GetLayerMapRequest& to) {
  to.set_known_version(from.known_version);
}

caf::expected<publish_request> read(const PublishRequest& from) {
  publish_request made;
  // Kinds of later versions are open: the peer manager says that it does not know them.
  if (from.kind() <= PUBLISH_KIND_UNSPECIFIED)
    return wrong_field("kind", "The kind of what is published is missing.");
  made.kind = static_cast<publish_kind>(from.kind());
  if (from.id().size() != made.id.size())
    return wrong_field("id", "The id of what is published has 32 bytes.");
  std::copy(from.id().begin(), from.id().end(), made.id.begin());
  if (from.ttl() > publish_ttl_max)
    return wrong_field("ttl", "What is published is passed on 6 times at most.");
  made.ttl = from.ttl();
  auto blob = read(from.blob(), "blob", publish_bytes_max - delegation_bytes_max);
  if (!blob)
    return blob.error();
  made.blob = std::move(*blob);
  return made;
}

void write(const publish_request& from, PublishRequest& to) {
  to.set_kind(static_cast<PublishKind>(from.kind));
  to.set_id(from.id.data(), from.id.size());
  write(from.blob, *to.mutable_blob());
  to.set_ttl(from.ttl);
}

// -------------------------------------------------------------------------------------------------- replies

caf::expected<announce_reply> read(const AnnounceResponse& from) {
  announce_reply made;
  auto self = read(from.self(), "self");
  if (!self)
    return self.error();
  made.self = std::move(*self);
  auto peers = read_all(from.peers(), told_peers_max, "peers");
  if (!peers)
    return peers.error();
  made.peers = std::move(*peers);
  if (from.observed_host().size() > host_bytes_max || !is_printable(from.observed_host()))
    return wrong_field("observed_host", "An observed host is an address.");
  if (from.has_layer_map()) {
    auto map = read(from.layer_map(), "layer_map");
    if (!map)
      return map.error();
    made.layer_map = std::move(*map);
  }
  made.assigned_begin = from.assigned_begin();
  made.assigned_end = from.assigned_end();
  made.assigned_embedding = from.assigned_embedding();
  made.assigned_head = from.assigned_head();
  made.observed_host = from.observed_host();
  made.heartbeat_interval_ms = from.heartbeat_interval_ms();
  return made;
}

void write(const announce_reply& from, AnnounceResponse& to) {
  write(from.self, *to.mutable_self());
  for (const auto& one : from.peers)
    write(one, *to.add_peers());
  if (from.layer_map)
    write(*from.layer_map, *to.mutable_layer_map());
  to.set_assigned_begin(from.assigned_begin);
  to.set_assigned_end(from.assigned_end);
  to.set_assigned_embedding(from.assigned_embedding);
  to.set_assigned_head(from.assigned_head);
  to.set_observed_host(from.observed_host);
  to.set_heartbeat_interval_ms(from.heartbeat_interval_ms);
}

caf::expected<heartbeat_reply> read(const HeartbeatResponse& from) {
  heartbeat_reply made;
  made.map_version = from.map_version();
  auto delta = read_all(from.delta(), told_peers_max, "delta");
  if (!delta)
    return delta.error();
  made.delta = std::move(*delta);
  return made;
}

void write(const heartbeat_reply& from, HeartbeatResponse& to) {
  to.set_map_version(from.map_version);
  for (const auto& one : from.delta)
    write(one, *to.add_delta());
}

caf::expected<find_peers_reply> read(const FindPeersResponse& from) {
  auto peers = read_all(from.peers(), told_peers_max, "peers");
  if (!peers)
    return peers.error();
  return find_peers_reply{std::move(*peers)};
}

void write(const find_peers_reply& from, FindPeersResponse& to) {
  for (const auto& one : from.peers)
    write(one, *to.add_peers());
}

caf::expected<ping_reply> read(const PingResponse& from) {
  ping_reply made;
  auto self = read(from.self(), "self");
  if (!self)
    return self.error();
  made.self = std::move(*self);
  if (from.payload().size() > ping_payload_max || from.state().size() > state_bytes_max ||
      !is_printable(from.state()))
    return wrong_field("payload", "The answer to a ping is too long.");
  made.received_unix_us = from.received_unix_us();
  made.sent_unix_us = from.sent_unix_us();
  made.payload = from.payload();
  made.state = from.state();
  return made;
}

void write(const ping_reply& from, PingResponse& to) {
  write(from.self, *to.mutable_self());
  to.set_received_unix_us(from.received_unix_us);
  to.set_sent_unix_us(from.sent_unix_us);
  to.set_payload(from.payload);
  to.set_state(from.state);
  to.set_protocol_min(protocol_version);
  to.set_protocol_max(protocol_version);
}

caf::expected<get_layer_map_reply> read(const GetLayerMapResponse& from) {
  get_layer_map_reply made;
  made.not_modified = from.not_modified();
  if (from.has_layer_map()) {
    auto map = read(from.layer_map(), "layer_map");
    if (!map)
      return map.error();
    made.layer_map = std::move(*map);
  }
  return made;
}

void write(const get_layer_map_reply& from, GetLayerMapResponse& to) {
  to.set_not_modified(from.not_modified);
  if (from.layer_map)
    write(*from.layer_map, *to.mutable_layer_map());
}

caf::expected<publish_reply> read(const PublishResponse& from) {
  if (from.reason().size() > reason_bytes_max || !is_printable(from.reason()))
    return wrong_field("reason", "A reason is a short printable text.");
  return publish_reply{from.accepted(), from.duplicate(), from.reason()};
}

void write(const publish_reply& from, PublishResponse& to) {
  to.set_accepted(from.accepted);
  to.set_duplicate(from.duplicate);
  to.set_reason(from.reason);
}

} // namespace neuroshard::rpc
