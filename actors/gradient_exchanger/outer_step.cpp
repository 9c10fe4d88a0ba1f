#include "actors/gradient_exchanger/outer_step.hpp"

#include "actors/common/error.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

bool has_layout(const unit_values& values, const unit_layout& layout) {
  return std::equal(
      values.begin(), values.end(), layout.tensors.begin(), layout.tensors.end(),
      [](const auto& held, const tensor_shape& tensor) { return held.size() == tensor.elements(); });
}

} // namespace

outer_kind outer_kind_of(bool alone, size_t contributions) noexcept {
  if (alone)
    return outer_kind::alone;
  if (contributions == 0)
    return outer_kind::lost;
  return contributions == 1 ? outer_kind::single : outer_kind::momentum;
}

void nesterov_step(std::span<const float> w0, std::span<const float> dbar, const outer_parameters& by,
                   std::span<float> v, std::span<float> w) noexcept {
  const auto mu = static_cast<float>(by.momentum);
  const auto eta = static_cast<float>(by.learning_rate);
  for (size_t i = 0; i < w.size(); ++i) {
    v[i] = mu * v[i] + dbar[i];
    w[i] = w0[i] + eta * (mu * v[i] + dbar[i]);
  }
}

caf::expected<outer_kind> outer_step(const unit_layout& layout, std::vector<contribution> set,
                                     const aggregation_rules& rules, const outer_parameters& by,
                                     int64_t set_unix_ms, outer_state& state) {
  if (!has_layout(state.w, layout) || !(state.v.empty() || has_layout(state.v, layout)))
    return refuse(errc::internal, "Weights or velocity have another layout than the unit.");
  const auto kind = outer_kind_of(false, set.size());
  if (kind == outer_kind::lost)
    return kind;
  // The mean of one is that one: its share is 1.
  const auto dbar = aggregate(layout, std::move(set), rules, set_unix_ms);
  if (!dbar)
    return dbar.error();
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    auto& w = state.w[tensor];
    const auto& step = (*dbar)[tensor];
    if (kind == outer_kind::single) {
      for (size_t i = 0; i < w.size(); ++i)
        w[i] += step[i];
      continue;
    }
    if (state.v.size() == tensor) // the velocity was zero
      state.v.emplace_back(w.size());
    nesterov_step(w, step, by, state.v[tensor], w);
  }
  return kind;
}

} // namespace neuroshard
