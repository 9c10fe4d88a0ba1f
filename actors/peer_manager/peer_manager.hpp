#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/peer_manager/peer_directory.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/peer_manager/peer_store.hpp"
#include "actors/peer_manager/peer_table.hpp"
#include "actors/peer_manager/placement.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// What the peer manager works with. Without a link (or without an identity) the node stays alone and refuses
/// to be asked.
struct peer_manager_parts {
  peer_link_actor link;
  std::shared_ptr<const node_identity> identity;
  time_source_ptr time = system_time();
  random_source_ptr random = system_random();
  /// Brings the node's own record and the report of its training up to date; asked before others are told.
  /// Empty: they stay as they are. Any thread, quick.
  std::function<void(node_description&, training_report&)> refresh = {};
  /// Told what to hold. The peer manager's thread, quick. Empty: nobody cares.
  std::function<void(const placement_changed&)> placed = {};
  /// The network parameters of this node as canonical JSON: those of a map that names no other node. Quick.
  /// Empty: none.
  std::function<std::string()> network_parameters = {};
  /// Whether an outer exchange is under way: no ranges are moved then. Empty: never.
  std::function<bool()> exchanging = {};
  /// Null: peers are found through each other alone.
  std::shared_ptr<peer_directory> directory = {};
};

struct peer_manager_options {
  node_description own;
  uint32_t total_layers = 0;           ///< depth of the model that routes must cover
  unit_costs costs;                    ///< of that model
  std::string architecture;            ///< canonical JSON, for the layer map
  std::vector<std::string> seed_peers; ///< host:port
  std::vector<stored_peer> stored;     ///< met in an earlier life; tried where seeds are not enough
  std::string store_path;              ///< peers.json; empty: nothing is stored
  size_t peers_min = 8;                ///< below it others are asked whom they know
  size_t peers_max = 64;               ///< nodes it keeps in touch with
  bool may_listen_anywhere = true; ///< the gRPC address is a wildcard: others must tell what this node's is
};

struct peer_manager_state {
  static inline const char* name = "peer_manager";
  using pointer = peer_manager_actor::stateful_pointer<peer_manager_state>;

  /// A configured peer, known by its address alone until it has answered.
  struct seed {
    std::string address;
    std::string node_id; ///< empty while nobody answered there
    int64_t next_try_us = 0;
    uint32_t tries = 0;
    bool asked = false; ///< an announcement is under way
  };
  /// A node that was met once, by its id: an address to try again when it is gone.
  struct met_once {
    seed at;
    int64_t seen_unix_us = 0;
  };

  pointer self = nullptr;
  peer_manager_parts parts;
  peer_manager_options options;
  peer_table table;
  std::vector<seed> seeds;
  std::map<std::string, met_once, std::less<>> stored; ///< at most store_rules::peers_max
  peer_store_actor store;                              ///< null: nothing is stored
  bool stored_changed = false;
  int64_t next_store_us = 0;
  signed_node_ptr own;                                     ///< as last signed
  std::map<std::string, std::string, std::less<>> seen_as; ///< own host, by the node that said so
  training_report training;
  int64_t next_search_us = 0;
  bool leaving = false;

  uint64_t left_sequence = 0; ///< of the record as last left in the directory
  int64_t next_publish_us = 0;
  std::map<std::string, std::pair<uint64_t, int64_t>> found; ///< sequence, since when it is known from there

  int64_t started_us = 0;
  int64_t met_us = 0; ///< when the first other node was met; 0: none yet
  hop_scores scores;
  signed_map_ptr map;           ///< held; may be null
  std::string keeper;           ///< as of the last tick
  std::string seed_parameters;  ///< of the map that a seed held when this node, alone, announced itself to it
  uint64_t highest_version = 0; ///< of the maps held so far
  int64_t next_hashes_us = 0;   ///< a map with nothing new but hashes is made not before
  int64_t next_fetch_us = 0;
  std::map<std::string, int64_t> moved_us; ///< nodes that were given another range lately
  std::optional<placement_changed> told;
  std::map<kernels::digest, int64_t> seen; ///< published ids, until when
  std::map<publish_kind, publish_listener> publish_sinks;

  void start(peer_manager_parts parts, peer_manager_options options);
  void change_own(node_description what);
  caf::result<announce_reply> announced(announce_request& from);
  caf::result<heartbeat_reply> heartbeat(const heartbeat_request& from);
  caf::result<find_peers_reply> find_peers(const find_peers_request& from);
  caf::result<ping_reply> pinged(ping_request& from);
  void left(const leave_request& from);
  caf::result<model_route> route(const route_request& wanted);
  void hop_ended(const hop_outcome& of);
  std::string model_hash_of(uint64_t version) const;
  caf::result<get_layer_map_reply> layer_map_for(const get_layer_map_request& from) const;
  caf::result<publish_reply> publish(publish_request& from);
  void publish_of_own(publish_kind kind, signed_blob blob);
  void found_in_directory(const found_record& what);
  void leave(caf::typed_response_promise<caf::unit_t> done);
  void tick();
  actor_status status() const;

  void told_own_host(const std::string& by, const std::string& host);

private:
  bool connected_to_others() const noexcept { return parts.link && parts.identity; }
  void sign_own();
  void refresh_own();
  /// The record in a request of the node that stands at the other end.
  caf::expected<signed_node_ptr> met(const signed_blob& node, const connection_end& end);
  void learn(std::vector<signed_blob>& records, std::string_view from);
  void try_seeds(int64_t now_us);
  void call_peers(int64_t now_us);
  void announce_to(const peer_address& to, std::string seed_address);
  void announce_answered(const peer_address& to, const std::string& seed_address, announce_reply& reply,
                         int64_t sent_us);
  void heartbeat_to(const std::string& node_id, peer_table::entry& peer);
  void search(int64_t now_us);
  seed* seed_at(std::string_view address);

  // peer_manager_store.cpp
  void begin_store();
  void try_stored(int64_t now_us);
  void keep_stored(int64_t now_us);
  void gone(const std::string& node_id, int64_t next_try_us);
  write_peers what_to_store() const;
  void enter_directory(std::string_view address);
  void keep_directory(int64_t now_us);

  // peer_manager_map.cpp
  std::vector<keeper_candidate> keeper_candidates() const;
  void keep_map(int64_t now_us);
  layer_map next_map(int64_t now_us) const;
  void add_hashes(layer_map& to) const;
  void adopt(signed_map_ptr next, int64_t now_us);
  enum class heard : uint8_t { adopted, known, not_the_keepers, other_architecture, invalid };
  heard consider_map(signed_blob blob, std::string_view from);
  void note_seed_parameters(const signed_blob& blob);
  void tell_placement(const layer_map& of, bool other_architecture);
  void fetch_map(const std::string& node_id, uint64_t its_version, int64_t now_us);
  void fill_in_map(announce_reply& reply, std::string_view caller) const;

  // peer_manager_publish.cpp
  bool mark_seen(const kernels::digest& id, int64_t now_us);
  void fan_out(publish_request what, std::string_view except);
};

/// Scheduled.
peer_manager_actor::behavior_type peer_manager(peer_manager_actor::stateful_pointer<peer_manager_state> self,
                                               peer_manager_parts parts, peer_manager_options options);

} // namespace neuroshard
