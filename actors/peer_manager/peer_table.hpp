#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/peer_manager/routing.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard {

/// Times and bounds of spec/network.md section 2, in microseconds of the steady clock.
namespace peer_rules {
inline constexpr int64_t second_us = 1'000'000;
inline constexpr int64_t heartbeat_us = 5 * second_us;
inline constexpr int64_t stale_us = 15 * second_us;
inline constexpr int64_t dead_us = 60 * second_us;
inline constexpr int64_t ban_us = int64_t{24} * 3'600 * second_us;
inline constexpr int64_t grave_us = 600 * second_us; ///< how long gossip of one that went is not believed
inline constexpr int64_t window_us = 60 * second_us;
inline constexpr size_t bad_blobs_max = 10;  ///< in a window; more are a ban
inline constexpr size_t moves_max = 3;       ///< changes of address of one node id in a window
inline constexpr size_t known_max = 1'024;   ///< entries, and graves
inline constexpr double latency_share = 0.3; ///< of a new value in the EWMA
} // namespace peer_rules

/// Who holds what, as far as this node knows. Plain logic; times are of the steady clock.
///
/// An entry begins NEW with a signed record that somebody passed on, is ONLINE once the node itself has been
/// met, STALE after 15 s without a word of it and gone after 60. Of one node id the record with the highest
/// sequence counts, so what is left of an earlier life of a node (a ghost) ends with its next word, and a
/// record of one that left or died is not taken from others again.
class peer_table {
public:
  struct entry {
    signed_node_ptr node;
    peer_state state = peer_state::fresh;
    std::string seen_host;    ///< where it was met from; used where it names no host itself
    int64_t heard_us = 0;     ///< met last; since when it is known while NEW
    int64_t connected_us = 0; ///< unix time; 0: never met
    int64_t online_us = 0;    ///< ONLINE without a break since then
    std::optional<double> latency_us;
    uint32_t failures = 0;      ///< calls to it that failed since the last one that did not
    int64_t next_call_us = 0;   ///< heartbeat or announcement due
    uint64_t changed = 0;       ///< the table's count of changes when it last changed
    uint64_t told = 0;          ///< changes up to here are known to it
    uint64_t told_sequence = 0; ///< of this node's own record, as last sent to it
    training_report training;
    peer_standing standing;
    std::deque<int64_t> moves; ///< when its address changed, within a window
  };
  struct change {
    std::string node_id;
    peer_state from = peer_state::fresh, to = peer_state::fresh;
  };
  enum class learned : uint8_t { added, renewed, known, ignored };

  peer_table() = default;
  peer_table(node_description own, uint32_t total_layers)
      : own_(std::move(own)), total_layers_(total_layers) {}

  void set_own(node_description own) { own_ = std::move(own); }
  const node_description& own() const noexcept { return own_; }

  /// A record that somebody passed on, or of a heartbeat's delta.
  learned learn(const signed_node_ptr& node, int64_t now_us);
  /// The node itself, over a connection that is bound to it. Refusals: forbidden with reason `banned`,
  /// already_exists, failed_precondition with reason `sequence` (an older record than the known one).
  caf::expected<void> meet(const signed_node_ptr& node, const std::string& seen_host, int64_t now_us,
                           int64_t now_unix_us);
  /// It answered a call: after `latency_us`.
  void answered(std::string_view node_id, double latency_us, int64_t now_us);
  /// A call to it failed. A NEW one that cannot be reached three times is forgotten.
  void failed(std::string_view node_id, int64_t now_us);
  /// It said goodbye. False when it is not known.
  bool leave(std::string_view node_id, int64_t now_us);
  /// An invalid signed object came from it; the tenth within a minute bans it. True when it is banned now.
  bool bad_blob(std::string_view node_id, int64_t now_us);
  /// Something else of it was refused.
  void refused(const peer_refused& what);
  void ban(std::string_view node_id, int64_t now_us);
  bool banned(std::string_view node_id, int64_t now_us) const;
  /// What has changed with time alone.
  std::vector<change> tick(int64_t now_us);

  entry* find(std::string_view node_id);
  const std::map<std::string, entry, std::less<>>& entries() const noexcept { return entries_; }
  size_t count(peer_state state) const noexcept;
  uint64_t changes() const noexcept { return changes_; }
  /// Records of the nodes that are ONLINE and changed after `since`, oldest change first, not that of
  /// `except`; and up to which change they go.
  std::pair<std::vector<signed_blob>, uint64_t> changed_since(uint64_t since, std::string_view except,
                                                              size_t limit) const;
  /// ONLINE nodes that fit, the nearest to the target first where there is one.
  std::vector<signed_blob> select(const find_peers_request& wanted) const;

  peer_list_ptr peers() const;

  /// A way through layers [0, total) as plan_route() finds it, over this node and those that are ONLINE, take
  /// work, and have the version and the architecture.
  caf::expected<model_route> route(const route_request& request, const hop_scores& scores, int64_t now_us,
                                   uint64_t random) const;

private:
  struct suspicion {
    std::deque<int64_t> bad_blobs;
    int64_t banned_until_us = 0;
  };

  void bury(std::string_view node_id, uint64_t sequence, int64_t now_us);

  node_description own_;
  uint32_t total_layers_ = 0;
  std::map<std::string, entry, std::less<>> entries_;
  std::map<std::string, std::pair<uint64_t, int64_t>, std::less<>> graves_; ///< sequence, until when
  std::map<std::string, suspicion, std::less<>> suspects_;
  uint64_t changes_ = 0;
};

/// host:port to call a node at, [host]:port for IPv6; empty when nothing is known.
std::string address_of_peer(const peer_table::entry& of);

} // namespace neuroshard
