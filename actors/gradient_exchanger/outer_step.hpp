#pragma once

#include "actors/gradient_exchanger/aggregation.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <span>
#include <vector>

/// The outer step of one unit (spec/training.md section 4): what its weights become at the end of a round.
/// delta = w_H - w0 is the direction of improvement; the update adds, and starts from w0. f32 throughout.
namespace neuroshard {

struct outer_parameters {
  double learning_rate = 0.7; ///< eta
  double momentum = 0.9;      ///< mu
};

enum class outer_kind : uint8_t {
  alone,    ///< no other node in the cohort: w = w_H, v untouched; the residual is to be cleared
  lost,     ///< no contribution, or no set: w = w0, v untouched
  single,   ///< one contribution: w = w0 + delta, v untouched, for its author too
  momentum, ///< v = mu v + dbar, w = w0 + eta (mu v + dbar)
};
/// `contributions`: those of the set that passed the deterministic checks.
outer_kind outer_kind_of(bool alone, size_t contributions) noexcept;

/// v = mu v + dbar and w = w0 + eta (mu v + dbar) with the new v, element by element. All of one length;
/// overwrites w, which may be w0.
void nesterov_step(std::span<const float> w0, std::span<const float> dbar, const outer_parameters& by,
                   std::span<float> v, std::span<float> w) noexcept;

/// Weights and velocity of a unit over an outer step. An empty velocity is zero.
struct outer_state {
  unit_values w; ///< w0 before, the new weights after
  unit_values v;
};

/// Turns w0 and v into those of the next round, from a set of contributions whose numbers everybody has: two
/// are averaged, three and more aggregated by `rules`. For a round that is not `alone` (then nothing is to be
/// done: the inner weights stand). Holds what `aggregate` holds. On an error the state is unchanged.
caf::expected<outer_kind> outer_step(const unit_layout& layout, std::vector<contribution> set,
                                     const aggregation_rules& rules, const outer_parameters& by,
                                     int64_t set_unix_ms, outer_state& state);

} // namespace neuroshard
