#include "actors/gradient_exchanger/aggregation.hpp"

#include "actors/common/error.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

namespace neuroshard {

namespace {

constexpr int weiszfeld_rounds_max = 100;
constexpr double weiszfeld_step = 1e-6;
constexpr double distance_min = 1e-10;
constexpr std::array<std::pair<aggregation_strategy, const char*>, 6> strategy_names{{
    {aggregation_strategy::mean, "mean"},
    {aggregation_strategy::median, "median"},
    {aggregation_strategy::trimmed_mean, "trimmed_mean"},
    {aggregation_strategy::krum, "krum"},
    {aggregation_strategy::multi_krum, "multi_krum"},
    {aggregation_strategy::geometric_median, "geometric_median"},
}};

/// Ascending; stable, and so the same whatever the library (-0 and +0 compare equal). Sets are small.
void sort_ascending(std::span<float> values) noexcept {
  for (size_t i = 1; i < values.size(); ++i) {
    const float now = values[i];
    size_t at = i;
    for (; at > 0 && now < values[at - 1]; --at)
      values[at] = values[at - 1];
    values[at] = now;
  }
}

/// w_i / sum w, divided in f64 and rounded once; equal shares when all weigh nothing.
std::vector<float> shares_of(const std::vector<double>& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<float> shares;
  for (const double weight : weights)
    shares.push_back(static_cast<float>(sum > 0 ? weight / sum : 1.0 / static_cast<double>(weights.size())));
  return shares;
}

/// Reads the set tensor by tensor. rows[i] is contribution i, in ascending node id.
class set_reader {
public:
  set_reader(const unit_layout& layout, const std::vector<contribution>& set)
      : layout_(layout), set_(set), rows_(set.size()) {}

  using each_tensor = std::function<void(size_t tensor, const std::vector<std::vector<float>>& rows)>;
  caf::error walk(const each_tensor& each) {
    for (size_t tensor = 0; tensor < layout_.tensors.size(); ++tensor) {
      for (size_t i = 0; i < set_.size(); ++i) {
        rows_[i].resize(layout_.tensors[tensor].elements());
        if (auto wrong = set_[i].values->read(tensor, rows_[i]))
          return wrong;
        if (!std::all_of(rows_[i].begin(), rows_[i].end(), [](float x) { return std::isfinite(x); }))
          return refuse(errc::invalid_request, "A contribution has values that are not finite.");
      }
      each(tensor, rows_);
    }
    return {};
  }
  unit_values zeros() const {
    unit_values made;
    for (const auto& tensor : layout_.tensors)
      made.emplace_back(tensor.elements());
    return made;
  }
  size_t size() const noexcept { return set_.size(); }

private:
  const unit_layout& layout_;
  const std::vector<contribution>& set_;
  std::vector<std::vector<float>> rows_;
};

/// share_0 x_0 + share_1 x_1 + ..., left to right; what has no share is left out.
float weighted(const std::vector<std::vector<float>>& rows, const std::vector<float>& shares,
               size_t at) noexcept {
  float sum = 0;
  for (size_t i = 0; i < rows.size(); ++i)
    if (shares[i] != 0)
      sum += shares[i] * rows[i][at];
  return sum;
}

caf::expected<unit_values> weighted_mean(set_reader& set, const std::vector<double>& weights) {
  const auto shares = shares_of(weights);
  auto out = set.zeros();
  auto wrong = set.walk([&](size_t tensor, const std::vector<std::vector<float>>& rows) {
    // Row by row: to each coordinate the same additions in the same order as `weighted`.
    float* const sum = out[tensor].data();
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t at = 0; shares[i] != 0 && at < rows[i].size(); ++at)
        sum[at] += shares[i] * rows[i][at];
  });
  if (wrong)
    return wrong;
  return out;
}

/// Each coordinate from its n values.
template <class Statistic>
caf::expected<unit_values> coordinate_wise(set_reader& set, Statistic statistic) {
  auto out = set.zeros();
  std::vector<float> column(set.size());
  auto wrong = set.walk([&](size_t tensor, const std::vector<std::vector<float>>& rows) {
    for (size_t at = 0; at < out[tensor].size(); ++at) {
      for (size_t i = 0; i < column.size(); ++i)
        column[i] = rows[i][at];
      out[tensor][at] = statistic(std::span(column));
    }
  });
  if (wrong)
    return wrong;
  return out;
}

float trimmed_mean_of(std::span<float> values, size_t trim) noexcept {
  sort_ascending(values);
  const auto kept = values.subspan(trim, values.size() - 2 * trim);
  return std::accumulate(kept.begin(), kept.end(), 0.0f) / static_cast<float>(kept.size());
}

double squared_distance(float a, float b) noexcept {
  const double apart = static_cast<double>(a) - static_cast<double>(b);
  return apart * apart;
}

/// Squared distances, n x n.
caf::expected<std::vector<double>> pair_distances(set_reader& set) {
  const size_t n = set.size();
  std::vector<block_sum> sums(n * n);
  auto wrong = set.walk([&](size_t, const std::vector<std::vector<float>>& rows) {
    for (size_t i = 0; i < n; ++i)
      for (size_t j = i + 1; j < n; ++j)
        for (size_t at = 0; at < rows[i].size(); ++at)
          sums[i * n + j].add(squared_distance(rows[i][at], rows[j][at]));
  });
  if (wrong)
    return wrong;
  std::vector<double> out(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = i + 1; j < n; ++j)
      out[i * n + j] = out[j * n + i] = sums[i * n + j].value();
  return out;
}

/// The `chosen` contributions of least score (Blanchard et al., 2017), averaged.
caf::expected<unit_values> krum_mean(set_reader& set, size_t chosen) {
  const size_t n = set.size();
  const auto distances = pair_distances(set);
  if (!distances)
    return distances.error();
  const size_t nearest = n - krum_tolerance(n) - 2;
  std::vector<std::pair<double, size_t>> scores; // the position breaks ties: it ascends by node id
  for (size_t i = 0; i < n; ++i) {
    std::vector<double> others;
    for (size_t j = 0; j < n; ++j)
      if (j != i)
        others.push_back((*distances)[i * n + j]);
    std::sort(others.begin(), others.end());
    scores.emplace_back(
        std::accumulate(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(nearest), 0.0), i);
  }
  std::sort(scores.begin(), scores.end());
  std::vector<double> weights(n);
  for (size_t i = 0; i < chosen; ++i)
    weights[scores[i].second] = 1;
  return weighted_mean(set, weights);
}

/// Weiszfeld's iteration. The step to the next x, its norm and all distances to it come from one reading.
caf::expected<unit_values> geometric_median_of(set_reader& set) {
  auto x = coordinate_wise(set, median_of);
  if (!x)
    return x;
  const size_t n = set.size();
  std::vector<double> weights;
  const auto weigh = [&](const std::vector<block_sum>& squares) {
    weights.clear();
    for (const auto& square : squares)
      weights.push_back(1.0 / std::max(std::sqrt(square.value()), distance_min));
  };
  std::vector<block_sum> squares(n);
  auto wrong = set.walk([&](size_t tensor, const std::vector<std::vector<float>>& rows) {
    for (size_t i = 0; i < n; ++i)
      for (size_t at = 0; at < rows[i].size(); ++at)
        squares[i].add(squared_distance(rows[i][at], (*x)[tensor][at]));
  });
  for (int round = 0; round < weiszfeld_rounds_max && !wrong; ++round) {
    weigh(squares);
    const auto shares = shares_of(weights);
    block_sum step;
    block_sum norm;
    squares.assign(n, {});
    wrong = set.walk([&](size_t tensor, const std::vector<std::vector<float>>& rows) {
      auto& now = (*x)[tensor];
      for (size_t at = 0; at < now.size(); ++at) {
        const float next = weighted(rows, shares, at);
        step.add(squared_distance(next, now[at]));
        norm.add(squared_distance(next, 0.0f));
        for (size_t i = 0; i < n; ++i)
          squares[i].add(squared_distance(rows[i][at], next));
        now[at] = next;
      }
    });
    if (std::sqrt(step.value()) < weiszfeld_step * (1 + std::sqrt(norm.value())))
      break;
  }
  if (wrong)
    return wrong;
  return x;
}

} // namespace

std::optional<aggregation_strategy> parse_aggregation(std::string_view name) {
  for (const auto& [strategy, text] : strategy_names)
    if (name == text)
      return strategy;
  return std::nullopt;
}

const char* to_string(aggregation_strategy strategy) noexcept {
  return strategy_names[static_cast<size_t>(strategy)].second;
}

double freshness_of(int64_t age_ms) noexcept {
  constexpr int64_t hour_ms = 3'600'000;
  if (age_ms < hour_ms)
    return 1.0;
  if (age_ms < 24 * hour_ms)
    return 0.9;
  return age_ms < 7 * 24 * hour_ms ? 0.7 : 0.3;
}

size_t trim_count(size_t n, double fraction) noexcept {
  size_t trim = 0;
  if (fraction > 0) // false for what is not a number
    trim = static_cast<size_t>(std::floor(std::min(fraction, 1.0) * static_cast<double>(n)));
  if (n >= 3)
    trim = std::max<size_t>(trim, 1);
  if (2 * trim >= n)
    trim = n == 0 ? 0 : (n + 1) / 2 - 1;
  return trim;
}

size_t krum_tolerance(size_t n) noexcept {
  return n < 3 ? 0 : std::min(n / 5, (n - 3) / 2);
}

float median_of(std::span<float> values) noexcept {
  sort_ascending(values);
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

caf::expected<unit_values> aggregate(const unit_layout& layout, std::vector<contribution> set,
                                     const aggregation_rules& rules, int64_t set_unix_ms) {
  std::sort(set.begin(), set.end(),
            [](const contribution& a, const contribution& b) { return a.node_id < b.node_id; });
  for (size_t i = 0; i < set.size(); ++i)
    if (set[i].values == nullptr || (i > 0 && set[i - 1].node_id == set[i].node_id))
      return refuse(errc::invalid_request, "A set names a node twice, or a contribution that is not here.");
  if (set.empty())
    return refuse(errc::invalid_request, "A set without contributions has no aggregate.");
  set_reader reader(layout, set);
  const size_t n = set.size();
  switch (n < 3 ? aggregation_strategy::mean : rules.strategy) {
  case aggregation_strategy::median:
    return coordinate_wise(reader, median_of);
  case aggregation_strategy::trimmed_mean:
    return coordinate_wise(reader, [trim = trim_count(n, rules.trim_fraction)](std::span<float> values) {
      return trimmed_mean_of(values, trim);
    });
  case aggregation_strategy::krum:
    return krum_mean(reader, 1);
  case aggregation_strategy::multi_krum:
    return krum_mean(reader, n - krum_tolerance(n));
  case aggregation_strategy::geometric_median:
    return geometric_median_of(reader);
  case aggregation_strategy::mean:
    break;
  }
  std::vector<double> weights;
  for (const auto& one : set)
    weights.push_back(std::sqrt(static_cast<double>(one.batches)) *
                      freshness_of(set_unix_ms - one.created_unix_ms));
  return weighted_mean(reader, weights);
}

} // namespace neuroshard
