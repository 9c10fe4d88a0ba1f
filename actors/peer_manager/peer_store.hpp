#pragma once

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// The stored peer table, peers.json: whom this node has met, so that it finds them again when no seed
/// answers. What is read is believed no more than an address that a stranger names.
namespace neuroshard {

namespace store_rules {
inline constexpr size_t peers_max = 256;
inline constexpr size_t bytes_max = 256 * 1024;
inline constexpr int64_t kept_us = int64_t{30} * 86'400 * 1'000'000; ///< since it was last seen
inline constexpr int64_t write_every_us = 30'000'000;
} // namespace store_rules

struct stored_peer {
  std::string node_id;
  std::string address;      ///< host:port of its gRPC
  int64_t seen_unix_us = 0; ///< last in touch with
  friend bool operator==(const stored_peer&, const stored_peer&) = default;
};

/// Host and port of "host:port" or "[v6]:port"; nothing for anything else.
std::optional<std::pair<std::string, uint16_t>> split_address(std::string_view address);

/// At most store_rules::peers_max of them, those seen last.
std::string encode_peers(std::vector<stored_peer> peers);

struct stored_peers {
  std::vector<stored_peer> peers; ///< seen last first
  size_t skipped = 0;             ///< entries that are malformed, twice there, or too many
  std::string fault;              ///< why nothing could be read; empty when it could
};
/// What was not seen for 30 days is left out; a time in the future counts as now.
stored_peers decode_peers(std::string_view text, int64_t now_unix_us);
/// The same of a file: no file, no peers. What is wrong with it is logged, in one line. Blocks.
std::vector<stored_peer> read_peers_file(const std::string& path, int64_t now_unix_us);
/// Replaces the file as a whole, mode 0600; false with errno when the disk refuses. Blocks.
bool write_peers_file(const std::string& path, std::string_view text);

/// Writes the table.
struct write_peers {
  std::vector<stored_peer> peers;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_peer_store, caf::first_custom_type_id + 840)
CAF_ADD_TYPE_ID(neuroshard_peer_store, (neuroshard::write_peers))
CAF_END_TYPE_ID_BLOCK(neuroshard_peer_store)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::write_peers)

namespace neuroshard {

/// Answers when the file is written; a failure is logged and answered as success, since nobody can do
/// anything about it.
using peer_store_actor = caf::typed_actor<caf::replies_to<write_peers>::with<void>>;

/// Detached: it waits for the disk.
peer_store_actor::behavior_type peer_store(peer_store_actor::pointer self, std::string path);

} // namespace neuroshard
