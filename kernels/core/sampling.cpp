#include "kernels/core/sampling.hpp"

#include "kernels/core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace neuroshard::kernels {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// The masked row: finite or infinite, never NaN.
struct masked_row {
  std::span<const float> logits;

  float operator[](uint32_t id) const noexcept {
    const float value = logits[id];
    return never_drawn(id) || std::isnan(value) ? minus_infinity : value;
  }
};

/// exp((logit - largest) / temperature): the unnormalised softmax, safe for infinite logits and any
/// temperature > 0.
float weight_of(float logit, float largest, float temperature) noexcept {
  if (std::isinf(largest))
    return logit == largest ? 1.0F : 0.0F;
  return std::exp((logit - largest) / temperature);
}

bool heavier(const candidate& a, const candidate& b) noexcept {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

double sum_of(std::span<const candidate> some) noexcept {
  double sum = 0;
  for (const candidate& c : some)
    sum += c.weight;
  return sum;
}

/// Keeps the k first of the order `before`, in any order.
template <class Before>
std::span<candidate> keep_first(std::span<candidate> all, size_t k, Before before) noexcept {
  if (k == 0 || k >= all.size())
    return all;
  std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(k), all.end(), before);
  return all.first(k);
}

/// The smallest prefix in descending order whose sum reaches p of the whole. Sorts the head of the list only,
/// as far as needed.
std::span<candidate> keep_nucleus(std::span<candidate> all, float p) noexcept {
  const double goal = static_cast<double>(p) * sum_of(all);
  double reached = 0;
  size_t sorted = 0;
  for (size_t depth = 64; sorted < all.size(); depth *= 4) {
    const size_t end = std::min(all.size(), depth);
    std::partial_sort(all.begin() + static_cast<std::ptrdiff_t>(sorted),
                      all.begin() + static_cast<std::ptrdiff_t>(end), all.end(), heavier);
    for (; sorted < end; ++sorted) {
      reached += all[sorted].weight;
      if (reached >= goal)
        return all.first(sorted + 1);
    }
  }
  return all;
}

int32_t draw(std::span<const candidate> ascending, uint64_t seed, uint64_t step) noexcept {
  const double u = static_cast<double>(philox_u64(seed, step) >> 11) * 0x1p-53;
  const double target = u * sum_of(ascending);
  double passed = 0;
  uint32_t last = ascending.front().id;
  for (const candidate& c : ascending) {
    passed += c.weight;
    if (c.weight > 0)
      last = c.id;
    if (passed > target)
      break;
  }
  return static_cast<int32_t>(last);
}

} // namespace

sampled sample_row(std::span<const float> logits, const sample_params& params,
                   std::span<candidate> scratch) noexcept {
  const masked_row row{logits};
  const uint32_t count = params.valid_vocab;
  uint32_t best = 2; // the lowest id that may be drawn
  for (uint32_t id = 2; id < count; ++id)
    if (row[id] > row[best])
      best = id;
  const float largest = row[best];

  // The unmodified distribution, for the log-probability.
  double whole = 0;
  for (uint32_t id = 2; id < count; ++id)
    if (!never_drawn(id))
      whole += weight_of(row[id], largest, 1);
  const auto logprob_of = [&](uint32_t id) {
    const double above = std::isinf(largest)
                             ? (row[id] == largest ? 0.0 : static_cast<double>(minus_infinity))
                             : static_cast<double>(row[id]) - static_cast<double>(largest);
    return static_cast<float>(above - std::log(whole));
  };
  if (params.temperature == 0)
    return {static_cast<int32_t>(best), logprob_of(best)};

  size_t held = 0;
  for (uint32_t id = 2; id < count; ++id)
    if (!never_drawn(id))
      scratch[held++] = {row[id], id};
  // Top-k goes by the logits: weights that round to the same float must not change who is kept.
  std::span<candidate> kept = keep_first(scratch.first(held), params.top_k, heavier);
  for (candidate& c : kept)
    c.weight = weight_of(c.weight, largest, params.temperature);
  if (params.top_p < 1)
    kept = keep_nucleus(kept, params.top_p);
  if (kept.size() < held || params.top_p < 1) // otherwise they are still in order
    std::sort(kept.begin(), kept.end(), [](const candidate& a, const candidate& b) { return a.id < b.id; });
  const int32_t id = draw(kept, params.seed, params.step);
  return {id, logprob_of(static_cast<uint32_t>(id))};
}

} // namespace neuroshard::kernels
