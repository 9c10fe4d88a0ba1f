#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/expected.hpp>

#include <cstdint>

namespace neuroshard {

/// Who holds what, as far as this node knows: itself, until discovery brings others. Plain logic.
class peer_table {
public:
  peer_table() = default;
  peer_table(node_description own, uint32_t total_layers)
      : own_(std::move(own)), total_layers_(total_layers) {}

  void set_own(node_description own) { own_ = std::move(own); }
  const node_description& own() const noexcept { return own_; }
  peer_list_ptr peers() const { return peers_; }

  /// A way through layers [0, total): embedding first, head last, own layers preferred. errc::no_route names
  /// the first unit that nobody holds for that version.
  caf::expected<model_route> route(const route_request& request) const;

private:
  node_description own_;
  uint32_t total_layers_ = 0;
  peer_list_ptr peers_ = std::make_shared<const peer_list>();
};

} // namespace neuroshard
