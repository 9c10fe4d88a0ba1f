#pragma once

#include "actors/gradient_exchanger/exchange_records.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// When a round ends, who collects, and which weights stand (spec/training.md section 4). Pure functions;
/// times are milliseconds of the caller's own steady clock.
namespace neuroshard {

namespace round_rules {
inline constexpr int64_t window_ms = 60'000;        ///< from T0, for the parts
inline constexpr int64_t collector_ms = 15'000;     ///< for each collector to publish its set
inline constexpr size_t collectors_max = 3;         ///< then the round is lost
inline constexpr int64_t release_ms = 30'000;       ///< from T0: a stage without RELEASE releases itself
inline constexpr int64_t fetch_ms = 15'000;         ///< to fetch what the set names
inline constexpr int64_t compare_ms = 15'000;       ///< to compare the hashes of all members
inline constexpr int64_t overdue_least_ms = 60'000; ///< a round is never overdue before
inline constexpr size_t lengths_kept = 5;           ///< rounds whose median length counts
} // namespace round_rules

/// Members by SHA-256(round as u64 LE, node id) ascending: the first is the collector.
std::vector<std::string> collector_order(uint64_t round, std::vector<std::string> members);

/// Times of the exchange of one round as one member sees it. Made when RoundEnd is seen (T0).
class exchange_window {
public:
  explicit exchange_window(int64_t t0_ms) : end_ms_(t0_ms + round_rules::window_ms), t0_ms_(t0_ms) {}

  /// Every member has been heard: the window ends now, if it has not.
  void all_heard(int64_t now_ms) noexcept;

  int64_t t0_ms() const noexcept { return t0_ms_; }
  int64_t end_ms() const noexcept { return end_ms_; }
  bool open(int64_t now_ms) const noexcept { return now_ms < end_ms_; }
  /// Position in collector_order of who should publish now; nothing while the window is open and once all
  /// have had their time. `members` is at least 1.
  std::optional<size_t> collector(int64_t now_ms, size_t members) const noexcept;
  /// No set will come any more: the round is lost.
  bool given_up(int64_t now_ms, size_t members) const noexcept;

private:
  int64_t end_ms_;
  int64_t t0_ms_;
};

/// Of two collectors, whose set counts: the earlier in `order`; who is not among the first 3 has none.
/// Empty when neither has.
std::string better_collector(const std::vector<std::string>& order, const std::string& a,
                             const std::string& b);

/// Median length of at most the last 5 rounds, in milliseconds; nothing before one has ended.
class round_lengths {
public:
  void add(int64_t length_ms);
  std::optional<int64_t> median_ms() const;

private:
  std::vector<int64_t> last_; ///< at most 5, oldest first
};

/// Whether a round of that age may end before H: older than twice the median length and 60 s; never the
/// first.
bool round_overdue(int64_t age_ms, const round_lengths& lengths);

/// What a member knows when it hears a RoundEnd.
struct round_view {
  uint64_t round = 0;
  std::string architecture_id;
  uint32_t diloco_steps = 500; ///< H
  int64_t age_ms = 0;          ///< of the round
  bool ended = false;          ///< a RoundEnd of this round was taken already
  bool from_driver = false;    ///< its signer holds `embed`
};
/// Empty when the RoundEnd counts, else why not: other_round, already_ended, not_a_driver, too_early.
std::string_view round_end_refused(const round_end& what, const round_view& view,
                                   const round_lengths& lengths);

/// What one member says its unit is after the outer step.
struct member_hash {
  std::string node_id;
  kernels::digest unit_hash{};
};
/// The hash that stands: of the largest group, a tie to the group with the lowest node id. Nothing for no
/// members. A node named twice counts once, with its first hash.
std::optional<kernels::digest> standing_hash(std::vector<member_hash> members);

} // namespace neuroshard
