#include "kernels/core/sampling.hpp"

#include "kernels/core/philox.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

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

/// The last of the k first in descending order. Reorders; precondition: 0 < k <= all.size().
candidate kth(std::span<candidate> all, size_t k) noexcept {
  const auto at = all.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(all.begin(), at, all.end(), heavier);
  return *at;
}

/// The last of the smallest prefix in descending order whose sum reaches p of the whole. Weights lie within 0
/// and 1, where floats order as their bits do: a histogram over the upper bits finds the bucket of the edge
/// in one pass; inside it the range that holds the edge is halved until it is worth sorting. Reorders.
candidate last_of_nucleus(std::span<candidate> all, float p) noexcept {
  constexpr size_t worth_sorting = 64;
  constexpr int dropped_bits = 19; // leaves 16 buckets an octave
  constexpr size_t buckets = (std::bit_cast<uint32_t>(1.0F) >> dropped_bits) + 1;
  const auto bucket_of = [](const candidate& c) { return std::bit_cast<uint32_t>(c.weight) >> dropped_bits; };
  std::array<double, buckets> sums{};
  for (const candidate& c : all)
    sums[bucket_of(c)] += c.weight;
  const double goal = static_cast<double>(p) * std::accumulate(sums.rbegin(), sums.rend(), 0.0);
  double reached = 0; // by those that are known to be in
  size_t bucket = buckets - 1;
  for (; bucket > 0 && reached + sums[bucket] < goal; --bucket)
    reached += sums[bucket];
  while (bucket > 0 && sums[bucket] == 0) // p = 0 is reached before the heaviest
    --bucket;
  const auto inside =
      std::partition(all.begin(), all.end(), [&](const candidate& c) { return bucket_of(c) == bucket; });
  all = all.first(static_cast<size_t>(inside - all.begin()));
  while (all.size() > worth_sorting) {
    const size_t half = all.size() / 2;
    kth(all, half);
    const double sum = sum_of(all.first(half));
    if (reached + sum >= goal) {
      all = all.first(half);
    } else {
      reached += sum;
      all = all.subspan(half);
    }
  }
  std::sort(all.begin(), all.end(), heavier);
  for (const candidate& c : all) {
    reached += c.weight;
    if (reached >= goal)
      return c;
  }
  return all.back();
}

/// Up to so many candidates a heap finds the k first in one pass that almost always only compares.
constexpr uint32_t heap_max = 256;

/// The lowest of the ids with the largest logit.
uint32_t best_of(const masked_row& row, uint32_t count) noexcept {
  uint32_t best = 2; // the lowest id that may be drawn
  float largest = row[best];
  for (uint32_t id = 4; id < count; ++id)
    if (row.logits[id] > largest) { // false for a NaN
      largest = row.logits[id];
      best = id;
    }
  return best;
}

/// The k first in descending order, by logit, as a heap with the last of them in front. Precondition: more
/// than k ids may be drawn.
std::span<candidate> heap_of_top(const masked_row& row, uint32_t count, size_t k,
                                 std::span<candidate> scratch) noexcept {
  const auto heap = scratch.first(k);
  size_t held = 0;
  uint32_t id = 2;
  for (; held < k; id = id == 2 ? 4 : id + 1)
    heap[held++] = {row[id], id};
  std::make_heap(heap.begin(), heap.end(), heavier);
  for (id = std::max(id, 4U); id < count; ++id)
    if (row.logits[id] > heap.front().weight) { // an equal one has the higher id and comes after
      std::pop_heap(heap.begin(), heap.end(), heavier);
      heap.back() = {row.logits[id], id};
      std::push_heap(heap.begin(), heap.end(), heavier);
    }
  return heap;
}

uint32_t draw(std::span<const candidate> ascending, uint64_t seed, uint64_t step) noexcept {
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
  return last;
}

} // namespace

sampled sample_row(std::span<const float> logits, const sample_params& params, std::span<candidate> scratch,
                   bool with_logprob) noexcept {
  const masked_row row{logits};
  const uint32_t count = params.valid_vocab;
  const uint32_t best = best_of(row, count);
  const float largest = row[best];

  uint32_t id = best;
  if (params.temperature > 0 && params.top_k > 0 && params.top_k <= heap_max && params.top_k < count - 3) {
    std::span<candidate> kept = heap_of_top(row, count, params.top_k, scratch);
    for (candidate& c : kept)
      c.weight = weight_of(c.weight, largest, params.temperature);
    if (params.top_p < 1) {
      const candidate last = last_of_nucleus(kept, params.top_p);
      const auto end =
          std::partition(kept.begin(), kept.end(), [&](const candidate& c) { return !heavier(last, c); });
      kept = kept.first(static_cast<size_t>(end - kept.begin()));
    }
    std::sort(kept.begin(), kept.end(), [](const candidate& a, const candidate& b) { return a.id < b.id; });
    id = draw(kept, params.seed, params.step);
  } else if (params.temperature > 0) {
    const auto logit_of = [&](uint32_t i) { return candidate{row[i], i}; };
    const auto weigh = [&](candidate c) {
      c.weight = weight_of(c.weight, largest, params.temperature);
      return c;
    };
    // The candidates that `pick` takes, in ascending order. Finding an edge reorders the scratch, so it is
    // filled again from the row after each.
    const auto fill = [&](auto&& pick) {
      size_t held = 0;
      for (uint32_t i = 2; i < count; ++i)
        if (!never_drawn(i) && pick(logit_of(i)))
          scratch[held++] = logit_of(i);
      return scratch.first(held);
    };
    const auto weigh_all = [&](std::span<candidate> some) {
      std::transform(some.begin(), some.end(), some.begin(), weigh);
    };
    // Top-k goes by the logits: weights that round to the same float must not change who is kept.
    candidate edge{minus_infinity, count};
    const auto in_top_k = [&](const candidate& c) { return !heavier(edge, c); };
    std::span<candidate> kept = fill(in_top_k);
    if (params.top_k > 0 && params.top_k < kept.size()) {
      edge = kth(kept, params.top_k);
      kept = fill(in_top_k);
    }
    weigh_all(kept);
    if (params.top_p < 1) {
      const candidate last = last_of_nucleus(kept, params.top_p);
      kept = fill([&](const candidate& c) { return in_top_k(c) && !heavier(last, weigh(c)); });
      weigh_all(kept);
    }
    id = draw(kept, params.seed, params.step);
  }
  if (!with_logprob)
    return {static_cast<int32_t>(id), 0};

  // The unmodified distribution, for the log-probability.
  double whole = 0;
  for (uint32_t i = 2; i < count; ++i)
    if (!never_drawn(i))
      whole += weight_of(row[i], largest, 1);
  const double above = std::isinf(largest) ? (row[id] == largest ? 0.0 : static_cast<double>(minus_infinity))
                                           : static_cast<double>(row[id]) - static_cast<double>(largest);
  return {static_cast<int32_t>(id), static_cast<float>(above - std::log(whole))};
}

} // namespace neuroshard::kernels
