#include "actors/gradient_exchanger/contribution_checks.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

namespace neuroshard {

namespace {

constexpr double magnitude_max = 100.0;
constexpr double rates_per_step_max = 4.0;
constexpr double own_cosine_min = -0.2;
constexpr double norm_ratio_min = 0.1;
constexpr double norm_ratio_max = 10.0;
constexpr double variance_ratio_max = 100.0;
constexpr double z_score_max = 3.0;
constexpr size_t z_score_from = 5;

constexpr check_verdict surely(std::string_view reason) {
  return {reason, true};
}
constexpr check_verdict perhaps(std::string_view reason) {
  return {reason, false};
}

/// Sums over the flattened unit.
struct moments {
  block_sum sum;
  block_sum squares;
  block_sum dot; ///< with the reference
  uint64_t count = 0;

  void add(double value, double reference) noexcept {
    sum.add(value);
    squares.add(value * value);
    dot.add(value * reference);
    ++count;
  }
  double norm() const noexcept { return std::sqrt(squares.value()); }
  double variance() const noexcept {
    const auto n = static_cast<double>(count);
    const double mean = sum.value() / n;
    return std::max(0.0, squares.value() / n - mean * mean);
  }
};

struct comparison {
  std::vector<moments> of; ///< by position among the compared
  moments reference;
  bool has_reference = false;
};

/// One reading of the compared contributions beside their reference: the coordinate median where `by_median`,
/// else `own`, else none. False where a source fails, which check_values would have told.
bool compare(const unit_layout& layout, const std::vector<const value_source*>& compared,
             const value_source* own, bool by_median, comparison& out) {
  const size_t n = compared.size();
  out.of.resize(n);
  out.has_reference = by_median || own != nullptr;
  std::vector<std::vector<float>> rows(n);
  std::vector<float> reference;
  std::vector<float> column(n);
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    const uint64_t elements = layout.tensors[tensor].elements();
    for (size_t i = 0; i < n; ++i) {
      rows[i].resize(elements);
      if (compared[i]->read(tensor, rows[i]))
        return false;
    }
    reference.assign(elements, 0.0f);
    if (!by_median && own != nullptr && own->read(tensor, reference))
      return false;
    for (uint64_t at = 0; at < elements; ++at) {
      if (by_median) {
        for (size_t i = 0; i < n; ++i)
          column[i] = rows[i][at];
        reference[at] = median_of(column);
      }
      out.reference.add(reference[at], reference[at]);
      for (size_t i = 0; i < n; ++i)
        out.of[i].add(rows[i][at], reference[at]);
    }
  }
  return true;
}

/// Direction, magnitude and variance against the reference.
check_verdict against_reference(const moments& of, const moments& reference, bool by_median,
                                double min_cosine) {
  const double reference_norm = reference.norm();
  if (reference_norm == 0)
    return {};
  const double norm = of.norm();
  const double cosine = norm == 0 ? 0.0 : of.dot.value() / (norm * reference_norm);
  if (by_median ? !(cosine > min_cosine) : !(cosine >= own_cosine_min))
    return perhaps("direction");
  if (!(norm >= norm_ratio_min * reference_norm && norm <= norm_ratio_max * reference_norm))
    return perhaps("magnitude");
  if (!(of.variance() <= variance_ratio_max * reference.variance()))
    return perhaps("variance");
  return {};
}

/// Whether the norm at `at` is more than 3 standard deviations from the mean of all.
bool outlying(const std::vector<moments>& all, size_t at) {
  if (all.size() < z_score_from)
    return false;
  const auto n = static_cast<double>(all.size());
  double mean = 0;
  for (const auto& one : all)
    mean += one.norm() / n;
  double variance = 0;
  for (const auto& one : all)
    variance += (one.norm() - mean) * (one.norm() - mean) / n;
  return std::fabs(all[at].norm() - mean) > z_score_max * std::sqrt(variance);
}

bool plausible(uint64_t batches, int64_t round_ms, uint64_t per_minute) {
  const double minutes = static_cast<double>(std::max<int64_t>(round_ms, 0)) / 60'000.0;
  return static_cast<double>(batches) <= static_cast<double>(per_minute) * minutes;
}

} // namespace

double magnitude_bound(uint32_t inner_steps, const exchange_base& base) noexcept {
  const auto steps = static_cast<double>(std::min(inner_steps, base.diloco_steps));
  return std::min(magnitude_max, rates_per_step_max * steps * base.peak_learning_rate);
}

check_verdict check_manifest(const delta_manifest& of, const exchange_base& base) {
  if (of.round != base.round)
    return surely("stale_round");
  if (of.unit != base.unit || of.architecture_id != base.architecture_id)
    return surely("base_mismatch");
  if (of.base_round + 1 == of.round) {
    if (of.base_unit_hash != base.base_unit_hash)
      return surely("base_mismatch");
  } else if (base.strategy != aggregation_strategy::mean || of.base_round + 2 != of.round) {
    return surely("stale_round");
  } else if (!base.previous_unit_hash || of.base_unit_hash != *base.previous_unit_hash) {
    return surely("base_mismatch");
  }
  if (of.inner_steps < 1)
    return surely("no_inner_steps");
  if (!std::isfinite(of.loss) || !(of.loss > 0))
    return surely("bad_loss");
  return {};
}

check_verdict check_values(const unit_layout& layout, const value_source& values, uint32_t inner_steps,
                           const exchange_base& base) {
  const double bound = magnitude_bound(inner_steps, base);
  std::vector<float> now;
  check_verdict worst;
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    now.resize(layout.tensors[tensor].elements());
    if (values.read(tensor, now))
      return surely("bad_shape");
    for (const float value : now) {
      if (!std::isfinite(value))
        return surely("not_finite");
      if (!(std::fabs(static_cast<double>(value)) <= bound))
        worst = surely("too_large");
    }
  }
  return worst;
}

std::vector<check_verdict> judge_contributions(const unit_layout& layout, const std::vector<candidate>& all,
                                               const exchange_base& base, const judge_view& view) {
  std::vector<check_verdict> verdicts(all.size());
  std::map<std::string, size_t> authors;
  for (const auto& one : all)
    ++authors[one.manifest->node_id];
  std::vector<size_t> sound;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto& manifest = *all[i].manifest;
    auto& verdict = verdicts[i];
    // Of an author who says two things neither is taken: which came first is not the same everywhere.
    if (authors[manifest.node_id] > 1)
      verdict = surely("duplicate");
    else if (view.membership && !view.membership(manifest.node_id).empty())
      verdict = perhaps(view.membership(manifest.node_id));
    else if (verdict = check_manifest(manifest, base); verdict.passed())
      verdict = all[i].values == nullptr ? surely("bad_shape")
                                         : check_values(layout, *all[i].values, manifest.inner_steps, base);
    if (verdict.passed())
      sound.push_back(i);
  }
  // The sums below are the same in every order of arrival.
  std::sort(sound.begin(), sound.end(),
            [&](size_t a, size_t b) { return all[a].manifest->node_id < all[b].manifest->node_id; });
  std::vector<const value_source*> compared;
  for (const size_t i : sound)
    compared.push_back(all[i].values);
  const bool by_median = sound.size() >= 3 && !base.top_k;
  comparison seen;
  // The contributions have been read before; the judge's own, where it cannot be read, is as if it had none.
  if (!compare(layout, compared, view.own, by_median, seen)) {
    seen = {};
    if (!compare(layout, compared, nullptr, by_median, seen))
      return verdicts;
  }
  for (size_t at = 0; at < sound.size(); ++at) {
    auto& verdict = verdicts[sound[at]];
    if (seen.has_reference)
      verdict = against_reference(seen.of[at], seen.reference, by_median, base.min_cosine);
    if (verdict.passed() && outlying(seen.of, at))
      verdict = perhaps("outlier");
    if (verdict.passed() &&
        !plausible(all[sound[at]].manifest->batches, view.round_ms, view.batches_per_minute))
      verdict = perhaps("implausible");
  }
  return verdicts;
}

} // namespace neuroshard
