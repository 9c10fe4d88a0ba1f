#pragma once

#include "actors/peer_manager/peer_manager_actor.hpp"

#include <caf/expected.hpp>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Ways through the model over other nodes (spec/network.md section 4). No actor.
namespace neuroshard {

namespace routing_rules {
inline constexpr double new_latency_share = 0.3; ///< of a new value in an EWMA
inline constexpr double latency_default_ms = 100;
inline constexpr size_t candidates_max = 3; ///< a layer
inline constexpr double equal_within = 0.1; ///< scores this near are equal
inline constexpr double random_share = 0.1; ///< of choices among equals
inline constexpr uint32_t failures_max = 5; ///< in a row open the circuit
inline constexpr int64_t circuit_us = 30'000'000;
inline constexpr int64_t late_us = 15'000'000; ///< age that counts
inline constexpr double budget_floor_ms = 200;
inline constexpr double budget_ewmas = 4;
} // namespace routing_rules

/// How calls to other nodes went: latency for each class of request, failures in a row, open circuits. Times
/// of the steady clock. Bounded by whoever calls forget().
class hop_scores {
public:
  /// A hop was answered after so long, or it failed or expired.
  void note(const hop_outcome& of, int64_t now_us);
  void forget(std::string_view node_id);

  /// EWMA; nothing before the first answer of that class.
  std::optional<double> latency_ms(std::string_view node_id, request_class what) const;
  uint32_t failures(std::string_view node_id) const;
  /// Five failures in a row, and the last less than 30 s ago.
  bool circuit_open(std::string_view node_id, int64_t now_us) const;
  /// max(200 ms, 4 x EWMA); with the default latency before the first answer.
  uint32_t budget_ms(std::string_view node_id, request_class what) const;
  size_t size() const noexcept { return nodes_.size(); }

private:
  struct one {
    std::array<std::optional<double>, request_classes> latency_ms;
    uint32_t failures = 0;
    int64_t failed_us = 0;
  };
  std::map<std::string, one, std::less<>> nodes_;
};

/// A node as a possible stage.
struct route_candidate {
  route_hop hop; ///< its whole range; `local` for this node
  bool embed = false;
  bool head = false;
  std::string_view wallet;
  double latency_ms = routing_rules::latency_default_ms;
  uint32_t queue = 0;
  uint32_t failures = 0;
  int64_t age_us = 0; ///< since it was heard of
};

/// 0.4 min(1, latency/500) + 0.6 min(1, queue/100) + min(1, 0.1 x 2^failures) where some + min(1, age/60 s)
/// over 15 s. Lower is better.
double score_of(const route_candidate& of) noexcept;

/// Covers layers [0, total) with `embed` first and `head` last, each node with all that it holds: of the
/// three best for each layer from which others go on to the end, the one that goes on longest, of equal ones
/// the better, now and then another as good; this node's own layers before all. `candidates` may be used:
/// accepting, of the right version, not among those that failed. `random` are bits that differ with every
/// call. errc::no_route names the first unit that nobody holds, or where the ranges do not join.
caf::expected<model_route> plan_route(const std::vector<route_candidate>& candidates, uint32_t total_layers,
                                      std::string_view own_wallet, uint64_t random);

} // namespace neuroshard
