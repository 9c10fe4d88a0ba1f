#pragma once

#include "actors/gradient_exchanger/aggregation.hpp"
#include "actors/gradient_exchanger/exchange_records.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Which contributions are fit to be aggregated (spec/training.md section 7). No actor.
///
/// Checks are deterministic (D: everybody comes to the same end; a failure leaves the contribution out of the
/// aggregate even when it is in the set, and lowers reputation) or not (the collector's judgement: out of the
/// set it makes; of another's set only reported).
namespace neuroshard {

/// What contributions of one unit and round must build on, and the network's parameters.
struct exchange_base {
  std::string unit;
  std::string architecture_id;
  uint64_t round = 0;                                ///< outer step being formed
  kernels::digest base_unit_hash{};                  ///< of outer step round - 1
  std::optional<kernels::digest> previous_unit_hash; ///< of round - 2; where unknown nothing may build on it
  uint32_t diloco_steps = 500;                       ///< H
  double peak_learning_rate = 1e-4;
  double min_cosine = 0.0;
  aggregation_strategy strategy = aggregation_strategy::trimmed_mean;
  bool top_k = false; ///< the network's compression is topk_i8
};

/// `reason`: empty for a pass, else a snake_case word:
/// D: duplicate, stale_round, base_mismatch, bad_shape, not_finite, bad_loss, no_inner_steps, too_large;
/// not D: direction, magnitude, variance, outlier, implausible, or the word `membership` gave.
struct check_verdict {
  std::string_view reason;
  bool deterministic = false;
  bool passed() const noexcept { return reason.empty(); }
  friend bool operator==(const check_verdict&, const check_verdict&) = default;
};

/// Largest magnitude that so many inner steps can honestly make: min(100, 4 min(inner_steps, H) rate).
double magnitude_bound(uint32_t inner_steps, const exchange_base& base) noexcept;

/// D, before any part is there: staleness, loss, inner steps. A signature that does not hold has no author,
/// so it never comes here.
check_verdict check_manifest(const delta_manifest& of, const exchange_base& base);
/// D, on dequantized values: shape where only reading shows it, finite, absolute. Holds the largest tensor.
check_verdict check_values(const unit_layout& layout, const value_source& values, uint32_t inner_steps,
                           const exchange_base& base);

/// One contribution to be judged; both outlive the call. Its parts match the manifest's hashes.
struct candidate {
  const delta_manifest* manifest = nullptr;
  const value_source* values = nullptr; ///< nothing: its parts are not those of the unit, `bad_shape`
};

/// What the judge knows beside the contributions.
struct judge_view {
  /// Empty for a member, else why it is none: not_a_member, banned, ignored.
  std::function<std::string_view(const std::string& node_id)> membership;
  const value_source* own = nullptr;   ///< the judge's own pseudo-gradient before compression, or nothing
  int64_t round_ms = 0;                ///< length of the round so far
  uint64_t batches_per_minute = 2'000; ///< more than that is not believed
};

/// All checks on all contributions; verdicts in the order of `all`, and the same in every order. Holds one
/// tensor of every contribution, one of `own` and one of the reference.
std::vector<check_verdict> judge_contributions(const unit_layout& layout, const std::vector<candidate>& all,
                                               const exchange_base& base, const judge_view& view);

} // namespace neuroshard
