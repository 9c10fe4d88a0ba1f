#pragma once

#include "actors/trainer/standing_weights.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace neuroshard {

/// When this node is to take the weights of others. Records are late by seconds, so a node that has been in
/// step with others acts when it has stood apart for 15 s; at once where that cannot be the reason: two outer
/// steps behind, never in step yet, told by the outer loop. A take that fails is tried again with growing
/// pauses, then given up for some minutes: a node that announces what it does not give stops nobody for good.
/// Plain logic, one thread; times are of a steady clock.
class resync_watch {
public:
  static constexpr int64_t apart_us = 15'000'000;
  static constexpr int64_t unclear_us = 60'000'000; ///< to wait at most for what stands to become clear
  static constexpr unsigned tries_max = 6;
  static constexpr int64_t pause_first_us = 1'000'000; ///< doubled with every try
  static constexpr int64_t given_up_us = 300'000'000;

  /// The outer loop has lost touch with the others.
  void must() {
    must_ = true;
    given_up_until_us_.reset();
  }
  /// Looks at what stands now.
  void look(const own_weights& own, const peer_list& peers, int64_t now_us);

  /// Weights are to be taken, or are waited for: no training meanwhile.
  bool syncing() const noexcept { return must_ || tries_ > 0 || target_; }
  /// What is to be taken now; nothing while it pauses, or while nothing is clear.
  std::optional<standing_weights> take(int64_t now_us) const;
  /// It could not be had; of these nodes. False: given up, the node goes on with what it has.
  bool failed(const std::vector<std::string>& nodes, int64_t now_us);
  /// This node is in step now.
  void taken();

private:
  void rest();

  bool settled_ = false; ///< has been in step with others
  bool must_ = false;
  std::optional<int64_t> unclear_since_us_; ///< weights are waited for, and none can be taken
  std::optional<int64_t> apart_since_us_;
  std::optional<standing_weights> target_;
  std::set<std::string> avoid_;
  unsigned tries_ = 0;
  int64_t again_us_ = 0;
  std::optional<int64_t> given_up_until_us_;
};

} // namespace neuroshard
