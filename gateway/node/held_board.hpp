#pragma once

#include "actors/peer_manager/layer_map.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "kernels/model/architecture.hpp"

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

private:
  mutable std::mutex lock_;
  std::optional<held_range> range_;
};
using held_board_ptr = std::shared_ptr<held_board>;

/// The held units as /layers shows them: `memory_mb` of weights and training state, or of the serving copy
/// alone. Their status is not known here.
std::vector<held_layer> layers_of(const held_range& held, const model::architecture& a,
                                  kernels::dtype compute, bool training);
/// Driver with `embed`, validator with `head`, worker with layers.
std::vector<node_role> roles_of(const held_range& held);

} // namespace neuroshard
