#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/relay/relay_actor.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace neuroshard {

/// How long the hops of a driver's routes take, and how long it waits for them (spec/grpc-api.md section 1).
/// Plain logic; one per scheduler; remembers a bounded number of nodes.
class hop_watch {
public:
  static constexpr size_t nodes_max = 256;
  static constexpr int64_t decode_us_min = 200'000, decode_us_max = 5'000'000; ///< a hop
  static constexpr int64_t prefill_us_min = 2'000'000, prefill_us_max = 30'000'000;
  static constexpr int64_t report_every_us = 1'000'000;

  /// A call along the route was answered after `whole_us`. Each hop gets the time it reports for its share,
  /// and the rest is divided among those that a network lies before. What the peer manager is to be told: of
  /// each other node and class at most once a second.
  std::vector<hop_outcome> answered(const model_route& route, const std::vector<hop_report>& reports,
                                    request_class what, int64_t whole_us, uint32_t positions, int64_t now_us);

  /// Time for one hop: for a decode as the peer manager says, or 4 times what this node itself takes, within
  /// 200 ms to 5 s; for a prefill 4 times what so many positions took there before, within 2 s to 30 s, and
  /// 30 s where nothing is known.
  int64_t budget_us(const route_hop& hop, request_class what, uint32_t positions) const;

private:
  struct one {
    double decode_us = 0;               ///< EWMA; 0: not known
    double prefill_us_per_position = 0; ///< likewise
    std::array<int64_t, request_classes> told_us{};
  };
  std::map<std::string, one> nodes_;
};

} // namespace neuroshard
