#pragma once

#include "actors/peer_manager/layer_map.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

/// Who holds which layers (spec/network.md section 3), as a pure function: the same inputs, in whatever
/// order, give the same map. No actor.
namespace neuroshard {

namespace placement_rules {
inline constexpr uint32_t replicas_min = 2;
inline constexpr uint32_t replicas_max = 5;
inline constexpr uint32_t crowded = 4;   ///< more than 3 replicas somewhere while a layer has fewer than 2
inline constexpr uint32_t imbalance = 3; ///< max - min
inline constexpr int64_t node_rest_us = 600'000'000;   ///< between two moves of one node
inline constexpr int64_t moves_window_us = 60'000'000; ///< in which one node in ten moves, at least one
inline constexpr uint32_t usable_percent = 60;         ///< of the memory that a node offers
} // namespace placement_rules

/// What a part of the model needs on a node (spec/model.md section 6).
struct unit_costs {
  uint64_t layer_bytes = 1;
  uint64_t embed_bytes = 0;
  uint64_t head_bytes = 0;
  double head_layers = 0; ///< time of the head, in layers
};
/// Costs of training and serving in a cohort: weights, gradients, moments and the bf16 weights x 1.2, two
/// serving copies, and 12 bytes of the outer loop a parameter.
unit_costs costs_in_cohort(uint64_t layer_params, uint64_t embed_params, uint64_t head_params, bool bf16);

struct placement_node {
  std::string id;
  uint64_t memory_mb = 0;  ///< offered
  double ms_per_layer = 0; ///< measured; 0: not known, then the median of the others
  uint32_t max_layers = 0; ///< peers.max_layers; 0: by memory
  bool validator = false;
  bool takes_layers = true; ///< offers memory and has a role
  bool online = true;       ///< false: silent for a moment (STALE); it keeps what it has and gets nothing new
  held_range held;          ///< what it announces to hold; fits it in any case, but for max_layers
};

struct placement_input {
  uint32_t total_layers = 0;
  unit_costs costs;
  std::vector<placement_node> nodes;       ///< who is there; one that is gone is left out
  const layer_map* previous = nullptr;     ///< null: none; then what nodes hold counts as theirs
  std::map<std::string, int64_t> moved_us; ///< when a node was last given another range; steady clock
  int64_t now_us = 0;
  bool exchanging = false; ///< an outer exchange is under way: nothing is moved for balance
  bool trained = false;    ///< there are weights worth keeping where they are
};

struct placement {
  std::map<std::string, held_range> ranges; ///< of every node that holds something
  std::vector<unit_holders> units;          ///< embed, layer.0, ..., head; without hashes
  bool complete = false;
};

/// Whether layers [begin, end), with the ends that come with them, fit a node.
bool fits(const placement_node& node, uint32_t begin, uint32_t end, uint32_t total_layers,
          const unit_costs& costs);
/// Most layers a node can hold from `begin` on.
uint32_t capacity_at(const placement_node& node, uint32_t begin, uint32_t total_layers,
                     const unit_costs& costs);

/// Ranges of before stay; a new node takes what nobody holds, else the window of its capacity with the fewest
/// replicas. A gap that is left goes to the node with most free capacity. While the pipeline was never
/// complete, it is laid anew so that its stages take about equal time. Complete, at most one node in ten a
/// minute is moved, and only where replicas are far out of balance.
placement place(const placement_input& in);

/// What this node shall hold by the layer map, told when it changes. Advice: the part is no larger than this
/// node can hold, and nothing is to be dropped whose new holder is not active.
struct placement_changed {
  uint32_t layer_begin = 0; ///< half open; empty: nothing is wanted of this node
  uint32_t layer_end = 0;
  bool embed = false;
  bool head = false;
  uint64_t map_version = 0;
  std::string architecture; ///< canonical JSON, as the keeper has it
  std::string training;     ///< canonical JSON of the network parameters
  size_t other_nodes = 0;   ///< that the map gives work to, beside this one
  /// The map is of a network with another architecture, so this node has no part in it as it is.
  bool other_architecture = false;
};

} // namespace neuroshard
