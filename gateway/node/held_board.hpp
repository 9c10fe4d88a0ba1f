#pragma once

#include "actors/peer_manager/layer_map.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "kernels/model/architecture.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace neuroshard {

/// The part of the model that this node holds, or is about to load: written when the layer map assigns
/// another, read whenever the model's actors are made and whenever others are told. Thread safe.
class held_board {
public:
  /// Nothing until the first assignment.
  std::optional<held_range> read() const;
  /// False when it is what it was.
  bool assign(held_range next);

  /// Hashes of the held units at an outer step, as the outer loop computes them.
  void announce(std::vector<unit_state> units, uint64_t version);
  /// The last completed outer step, as the trainer knows it.
  void completed(uint64_t outer_step) { outer_step_.store(outer_step, std::memory_order_relaxed); }
  uint64_t outer_step() const { return outer_step_.load(std::memory_order_relaxed); }
  /// Whether an outer exchange is under way.
  void exchanging(bool under_way) { exchanging_.store(under_way, std::memory_order_relaxed); }
  bool exchanging() const { return exchanging_.load(std::memory_order_relaxed); }
  /// Whether the weights of others are being taken: then nobody is to bind this node.
  void syncing(bool under_way) { syncing_.store(under_way, std::memory_order_relaxed); }
  bool syncing() const { return syncing_.load(std::memory_order_relaxed); }
  /// Those of this version; empty where others are known.
  std::vector<unit_state> units_at(uint64_t version) const;

private:
  std::atomic<uint64_t> outer_step_{0};
  std::atomic<bool> exchanging_{false};
  std::atomic<bool> syncing_{false};
  mutable std::mutex lock_;
  std::optional<held_range> range_;
  std::vector<unit_state> units_;
  uint64_t units_version_ = 0;
};
using held_board_ptr = std::shared_ptr<held_board>;

/// The held units as /layers shows them: `memory_mb` of weights and training state, or of the serving copy
/// alone. Their status is not known here.
std::vector<held_layer> layers_of(const held_range& held, const model::architecture& a,
                                  kernels::dtype compute, bool training);
/// Driver with `embed`, validator with `head`, worker with layers.
std::vector<node_role> roles_of(const held_range& held);

} // namespace neuroshard
