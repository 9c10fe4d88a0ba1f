#pragma once

#include "actors/peer_manager/node_info.hpp"
#include "actors/peer_manager/peer_manager.hpp"
#include "tests/simulation/network.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::simulation {

/// What a node tells of itself, kept outside of its actors.
struct node_board {
  held_range held;
  std::vector<unit_state> units;
  uint64_t model_version = 0;
  bool training = false;
  training_report report = {};
  bool exchanging = false;
};

/// A node on the simulated network: what is on its disk, and its actors while it is up.
struct peer_node {
  unsigned number = 0;
  std::shared_ptr<const node_identity> identity;
  std::string address;
  std::shared_ptr<skewed_clock> clock;
  peer_manager_options options; ///< as configured
  std::shared_ptr<node_board> board = std::make_shared<node_board>();

  bool up = false;
  uint64_t life = 0;     ///< counts starts
  uint64_t sequence = 0; ///< its record's, as it started last
  peer_manager_actor manager = {};
  std::vector<caf::strong_actor_ptr> actors = {}; ///< of this life
  const std::string& id() const { return identity->node_id(); }
};

/// Node `number` at 10.0.0.<number>:9000; its wall clock is off by up to 10 s.
std::unique_ptr<peer_node> make_peer_node(world& in, unsigned number);
/// Starts its peer manager, anew where there was one. `placed` is told what to hold.
void start_peers(world& in, network& on, peer_node& node,
                 std::function<void(const placement_changed&)> placed = {});
/// All its actors end at once, and its connections.
void crash(world& in, network& on, peer_node& node);

/// Whether the nodes that are up see each other, and nobody else, as they are now; else who does not.
std::string strangers_among(world& in, const std::vector<std::unique_ptr<peer_node>>& nodes);
/// Whether they hold one map, of the keeper that the rules name, with a part for nobody else.
std::string maps_among(world& in, const std::vector<std::unique_ptr<peer_node>>& nodes);

} // namespace neuroshard::simulation
