#pragma once

#include "actors/identity/node_identity.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// What nodes tell each other of themselves (spec/grpc-api.md sections 3 and 5), as the actors see it. The
/// same structs go in both directions: the gRPC gateway makes them of a peer's request and sends them for the
/// peer manager.
namespace neuroshard {

enum class node_role : uint8_t { driver = 1, worker = 2, validator = 3 };
enum class peer_state : uint8_t { fresh, online, stale, dead, banned };

/// One unit a node holds: `embed`, `layer.N` or `head`.
struct unit_state {
  std::string unit;
  kernels::digest unit_hash{};
  std::optional<kernels::digest> velocity_hash; ///< of the outer velocity; nothing while it is 0
  friend bool operator==(const unit_state&, const unit_state&) = default;
};

/// What a node says of itself: NodeInfo of the gRPC page.
struct node_description {
  std::string node_id; ///< 32 hex
  std::string wallet_address;
  std::string host; ///< empty: not known to itself
  uint32_t grpc_port = 0;
  uint32_t http_port = 0;                         ///< 0: not public
  std::optional<kernels::digest> tls_cert_sha256; ///< nothing only with grpc.insecure
  uint64_t sequence = 0;                          ///< begins at unix microseconds, rises with every change
  std::vector<node_role> roles;
  uint32_t layer_begin = 0; ///< half open
  uint32_t layer_end = 0;
  bool has_embedding = false;
  bool has_lm_head = false;
  uint64_t memory_total_mb = 0; ///< offered
  uint64_t memory_free_mb = 0;
  std::string device;
  uint32_t queue_depth = 0;
  float utilization = 0; ///< 0-1
  bool accepting = false;
  bool training = false;
  uint64_t model_version = 0; ///< last completed outer step
  std::string architecture_id;
  std::string software_version;
  float ms_per_layer = 0;
  std::vector<unit_state> units; ///< held, at model_version
  std::optional<kernels::digest> economics_hash;
  uint32_t max_layers = 0; ///< holds so many at most; 0: by memory
  friend bool operator==(const node_description&, const node_description&) = default;
};

/// A node's word with the bytes that prove it. Immutable.
struct signed_node {
  node_description what;
  signed_blob blob;
};
using signed_node_ptr = std::shared_ptr<const signed_node>;

/// TrainingSnapshot of the gRPC page.
struct training_report {
  uint64_t step = 0;
  uint64_t outer_step = 0;
  double loss = 0;
  uint64_t shard_id = 0;
  uint64_t tokens = 0;
};
/// What speaks against a node, as this one found since it began; for /peers and the log.
struct peer_standing {
  uint64_t refused = 0;             ///< signed objects, contributions and receipts that were refused
  std::string reason;               ///< of the last one, snake_case; empty: none
  uint64_t ignored_until_round = 0; ///< last outer step whose contributions are ignored; 0: none is
};
struct peer_info {
  node_description node;
  peer_state state = peer_state::fresh;
  double latency_ms = 0; ///< EWMA, 0.3 new
  std::optional<int64_t> connected_since_unix_us;
  training_report training; ///< as of its last heartbeat; zeros before
  peer_standing standing;
};
using peer_list = std::vector<peer_info>;
using peer_list_ptr = std::shared_ptr<const peer_list>;

/// The other end of a connection, as the gateway knows it.
struct connection_end {
  std::string node_id; ///< bound to its certificate; empty before Announce or Ping
  std::string host;    ///< address without port
  std::optional<kernels::digest> tls_cert_sha256;
};

inline constexpr size_t known_peers_max = 20;
inline constexpr size_t told_peers_max = 50;
inline constexpr size_t ping_payload_max = 1'024;

struct announce_request {
  connection_end from; ///< filled in by the receiver's gateway
  signed_blob node;
  std::vector<signed_blob> known_peers; ///< at most known_peers_max
};
struct announce_reply {
  connection_end by; ///< filled in by the caller's gateway
  signed_blob self;
  std::vector<signed_blob> peers;       ///< at most told_peers_max
  std::optional<signed_blob> layer_map; ///< as held by the one that answers
  uint32_t assigned_begin = 0;          ///< the caller's part in that map
  uint32_t assigned_end = 0;
  bool assigned_embedding = false;
  bool assigned_head = false;
  std::string observed_host;
  uint32_t heartbeat_interval_ms = 0;
  /// What the receiver's gateway binds the certificate to; stays on this side of the wire.
  std::string bound_node_id;
  uint64_t bound_sequence = 0;
};

struct heartbeat_request {
  connection_end from;
  signed_blob node;
  training_report training;
  uint64_t map_version = 0;
};
struct heartbeat_reply {
  uint64_t map_version = 0;
  std::vector<signed_blob> delta; ///< changed since the last heartbeat, at most told_peers_max
};

struct leave_request {
  connection_end from;
  std::string reason;
};

struct find_peers_request {
  connection_end from;
  std::optional<std::array<uint8_t, 20>> target; ///< closest by XOR, node ids ended by four zero bytes
  std::string unit;                              ///< holders of this unit alone; empty: any
  std::optional<node_role> role;
  uint32_t limit = 0; ///< 0: 20; at most told_peers_max
  std::vector<std::string> exclude;
};
struct find_peers_reply {
  std::vector<signed_blob> peers;
};

struct get_layer_map_request {
  connection_end from;
  uint64_t known_version = 0;
};
struct get_layer_map_reply {
  std::optional<signed_blob> layer_map; ///< nothing: there is none, or it is the known one
  bool not_modified = false;
};

/// What is published; other numbers may come and are handed to nobody.
enum class publish_kind : uint32_t { delta_set = 6, round_end = 7, layer_map = 8, receipt = 9 };

inline constexpr size_t publish_bytes_max = 256 * 1024; ///< of a blob
inline constexpr uint32_t publish_ttl_max = 6;

struct publish_request {
  connection_end from;
  publish_kind kind{};
  kernels::digest id{}; ///< SHA-256 of the payload
  signed_blob blob;
  uint32_t ttl = 0; ///< 0: for the receiver alone
};
struct publish_reply {
  bool accepted = false;
  bool duplicate = false;
  std::string reason; ///< snake_case, when it was not accepted
};

struct ping_request {
  connection_end from;
  std::optional<signed_blob> node; ///< binds the certificate
  std::string payload;             ///< at most ping_payload_max, echoed
  int64_t sent_unix_us = 0;
};
struct ping_reply {
  connection_end by;
  signed_blob self;
  int64_t received_unix_us = 0;
  int64_t sent_unix_us = 0;
  std::string payload;
  std::string state;
  std::string bound_node_id; ///< as in announce_reply
  uint64_t bound_sequence = 0;
};

} // namespace neuroshard
