#include "actors/gradient_exchanger/aggregation.hpp"

#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

using strategy = aggregation_strategy;
constexpr strategy all_strategies[] = {strategy::mean, strategy::median,     strategy::trimmed_mean,
                                       strategy::krum, strategy::multi_krum, strategy::geometric_median};
constexpr strategy robust[] = {strategy::median, strategy::trimmed_mean, strategy::krum, strategy::multi_krum,
                               strategy::geometric_median};

const unit_layout three{{{"norm.weight", {3}}}};

/// Contributions of one tensor of three, node ids ascending.
std::vector<float> of_rows(const std::vector<std::vector<float>>& rows, strategy by) {
  std::vector<held_values> held;
  for (const auto& row : rows)
    held.emplace_back(unit_values{row});
  std::vector<contribution> set;
  constexpr uint64_t batches[] = {4, 9, 16, 25, 36, 49, 64};
  constexpr int64_t hours[] = {0, 2, 24 * 8, 0, 0, 0, 0};
  constexpr int64_t now_ms = 10 * 86'400'000LL;
  for (size_t i = 0; i < rows.size(); ++i)
    set.push_back({node_name(i + 1), batches[i], now_ms - hours[i] * 3'600'000, &held[i]});
  const auto made = aggregate(three, set, {by, 0.1}, now_ms);
  REQUIRE(static_cast<bool>(made));
  return made->front();
}

std::vector<std::vector<float>> with_a_liar() {
  return {{1, 2, -1}, {2, 1, -2}, {3, 4, 0}, {-40, 50, 60}};
}

bool near(const std::vector<float>& got, const std::vector<double>& wanted, double within) {
  return std::equal(got.begin(), got.end(), wanted.begin(), wanted.end(),
                    [&](float a, double b) { return std::fabs(a - b) <= within; });
}

/// Honest deltas: a common direction and noise about it, as AdamW's deltas have.
std::vector<unit_values> honest(const unit_layout& layout, size_t n, uint64_t stream) {
  draws from(stream);
  const auto common = random_values(layout, from, 0.01);
  std::vector<unit_values> made;
  for (size_t i = 0; i < n; ++i) {
    made.push_back(random_values(layout, from, 0.01));
    for (size_t tensor = 0; tensor < common.size(); ++tensor)
      for (size_t at = 0; at < common[tensor].size(); ++at)
        made.back()[tensor][at] += common[tensor][at];
  }
  return made;
}

unit_values aggregate_of(const unit_layout& layout, const std::vector<unit_values>& all, strategy by) {
  std::vector<held_values> held(all.begin(), all.end());
  std::vector<contribution> set;
  for (size_t i = 0; i < all.size(); ++i)
    set.push_back({node_name(i + 1), 100, 0, &held[i]});
  auto made = aggregate(layout, std::move(set), {by, 0.1}, 0);
  REQUIRE(static_cast<bool>(made));
  return std::move(*made);
}

double distance(const unit_values& a, const unit_values& b) {
  double sum = 0;
  for (size_t tensor = 0; tensor < a.size(); ++tensor)
    for (size_t at = 0; at < a[tensor].size(); ++at)
      sum += std::pow(static_cast<double>(a[tensor][at]) - b[tensor][at], 2);
  return std::sqrt(sum);
}

double norm(const unit_values& of) {
  auto zero = of;
  for (auto& tensor : zero)
    std::fill(tensor.begin(), tensor.end(), 0.0f);
  return distance(of, zero);
}

void scale(unit_values& values, float by) {
  for (auto& tensor : values)
    for (auto& value : tensor)
      value *= by;
}

bool same_bits(const unit_values& a, const unit_values& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  });
}

} // namespace

TEST_CASE("each strategy gives the worked values") {
  // worked_values.py; the mean of the first three with weights 2, 2.7 and 1.2
  auto three_rows = with_a_liar();
  three_rows.pop_back();
  CHECK(near(of_rows(three_rows, strategy::mean), {1.864406779661, 1.949152542372, -1.25423728813}, 3e-7));
  CHECK(of_rows(with_a_liar(), strategy::median) == std::vector<float>{1.5f, 3.0f, -0.5f});
  CHECK(of_rows(with_a_liar(), strategy::trimmed_mean) == std::vector<float>{1.5f, 3.0f, -0.5f});
  CHECK(of_rows(with_a_liar(), strategy::krum) == std::vector<float>{1, 2, -1});
  auto five = with_a_liar();
  five.push_back({2, 2, 1});
  CHECK(of_rows(five, strategy::krum) == std::vector<float>{1, 2, -1});
  CHECK(near(of_rows(five, strategy::multi_krum), {2.0, 2.25, -0.5}, 1e-6));
  CHECK(near(of_rows(with_a_liar(), strategy::geometric_median), {1.1249179, 2.1074497, -0.9245664}, 2e-5));
}

TEST_CASE("how many are dropped, and how many liars Krum allows for") {
  CHECK(trim_count(1, 0.1) == 0);
  CHECK(trim_count(2, 0.1) == 0);
  CHECK(trim_count(3, 0.1) == 1);
  CHECK(trim_count(9, 0.1) == 1);
  CHECK(trim_count(20, 0.1) == 2);
  CHECK(trim_count(4, 0.5) == 1);
  CHECK(trim_count(5, 0.5) == 2);
  CHECK(trim_count(5, std::numeric_limits<double>::quiet_NaN()) == 1);
  CHECK(krum_tolerance(3) == 0);
  CHECK(krum_tolerance(4) == 0);
  CHECK(krum_tolerance(5) == 1);
  CHECK(krum_tolerance(10) == 2);
}

TEST_CASE("freshness falls with age") {
  constexpr int64_t hour_ms = 3'600'000;
  CHECK(freshness_of(-5) == 1.0);
  CHECK(freshness_of(hour_ms - 1) == 1.0);
  CHECK(freshness_of(hour_ms) == 0.9);
  CHECK(freshness_of(24 * hour_ms) == 0.7);
  CHECK(freshness_of(7 * 24 * hour_ms) == 0.3);
}

TEST_CASE("two contributions are averaged whatever the strategy, and one is itself") {
  const std::vector<std::vector<float>> rows{{1, 2, 3}, {3, -2, 1}};
  const auto mean = of_rows(rows, strategy::mean);
  for (const auto by : all_strategies) {
    CHECK(of_rows(rows, by) == mean);
    CHECK(of_rows({{1, 2, 3}}, by) == std::vector<float>{1, 2, 3});
  }
}

TEST_CASE("contributions that weigh nothing count equally") {
  const held_values a({{1.0f, 0, 0}});
  const held_values b({{3.0f, 0, 0}});
  const auto made = aggregate(three, {{node_name(1), 0, 0, &a}, {node_name(2), 0, 0, &b}}, {}, 0);
  REQUIRE(static_cast<bool>(made));
  CHECK(made->front()[0] == 2.0f);
}

TEST_CASE("Krum breaks a tie by the lower node id") {
  CHECK(of_rows({{1, 0, 0}, {-1, 0, 0}, {1, 0, 0}, {-1, 0, 0}}, strategy::krum) ==
        std::vector<float>{1, 0, 0});
}

TEST_CASE("sums run over blocks of 4096 in order") {
  // 2^53 + 1 + 1 in one sum loses both ones; in blocks of their own they come together first.
  block_sum sum;
  for (int i = 0; i < 4'095; ++i)
    sum.add(0);
  sum.add(9'007'199'254'740'992.0);
  sum.add(1);
  sum.add(1);
  CHECK(sum.value() == 9'007'199'254'740'994.0);
}

TEST_CASE("the order of arrival changes no bit") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  const auto layout = small_layer();
  draws from(21);
  const auto all = honest(*layout, 7, 22);
  std::vector<held_values> held(all.begin(), all.end());
  std::vector<contribution> set;
  for (size_t i = 0; i < all.size(); ++i)
    set.push_back({node_name(100 - 7 * i), 1 + from.below(500), static_cast<int64_t>(from.below(90'000'000)),
                   &held[i]});
  for (const auto by : all_strategies) {
    const auto first = aggregate(*layout, set, {by, 0.1}, 90'000'000);
    REQUIRE(static_cast<bool>(first));
    for (int round = 0; round < 5; ++round) {
      for (size_t i = set.size(); i > 1; --i)
        std::swap(set[i - 1], set[from.below(i)]);
      const auto again = aggregate(*layout, set, {by, 0.1}, 90'000'000);
      REQUIRE(static_cast<bool>(again));
      CHECK(same_bits(*first, *again));
    }
  }
}

TEST_CASE("encoded contributions aggregate to the bits of their dequantized values") {
  const auto layout = small_layer();
  const auto all = honest(*layout, 4, 23);
  std::vector<delta_reader> readers;
  std::vector<held_values> held;
  for (const auto& values : all) {
    auto opened = delta_reader::open(layout, delta_encoding::dense_i8, encoded(*layout, {}, values));
    REQUIRE(static_cast<bool>(opened));
    held.emplace_back(all_of(*layout, *opened));
    readers.push_back(std::move(*opened));
  }
  for (const auto by : all_strategies) {
    std::vector<contribution> a;
    std::vector<contribution> b;
    for (size_t i = 0; i < all.size(); ++i) {
      a.push_back({node_name(i), 10, 0, &readers[i]});
      b.push_back({node_name(i), 10, 0, &held[i]});
    }
    const auto from_parts = aggregate(*layout, a, {by, 0.1}, 0);
    const auto from_values = aggregate(*layout, b, {by, 0.1}, 0);
    REQUIRE(static_cast<bool>(from_parts));
    REQUIRE(static_cast<bool>(from_values));
    CHECK(same_bits(*from_parts, *from_values));
  }
}

TEST_CASE("sets that are none are refused") {
  const held_values good({{1.0f, 2.0f, 3.0f}});
  const held_values nan({{1.0f, std::numeric_limits<float>::quiet_NaN(), 3.0f}});
  const held_values infinite({{1.0f, std::numeric_limits<float>::infinity(), 3.0f}});
  for (const auto by : all_strategies) {
    CHECK_FALSE(static_cast<bool>(aggregate(three, {}, {by, 0.1}, 0)));
    CHECK_FALSE(static_cast<bool>(
        aggregate(three, {{node_name(1), 1, 0, &good}, {node_name(1), 1, 0, &good}}, {by, 0.1}, 0)));
    CHECK_FALSE(static_cast<bool>(aggregate(three, {{node_name(1), 1, 0, nullptr}}, {by, 0.1}, 0)));
    for (const auto* bad : {&nan, &infinite})
      CHECK_FALSE(static_cast<bool>(aggregate(
          three, {{node_name(1), 1, 0, &good}, {node_name(2), 1, 0, &good}, {node_name(3), 1, 0, bad}},
          {by, 0.1}, 0)));
  }
}

TEST_CASE("one liar of five moves no robust aggregate further than the honest lie apart") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  const auto layout = small_layer();
  auto all = honest(*layout, 5, 24);
  const std::vector<unit_values> clean(all.begin(), all.begin() + 4);
  const auto wanted = aggregate_of(*layout, clean, strategy::mean);
  const double spread = distance(clean[0], clean[1]);
  const auto attack = [&](const char* name, auto&& change) {
    auto attacked = all;
    change(attacked[4]);
    CAPTURE(name);
    CHECK(distance(aggregate_of(*layout, attacked, strategy::mean), wanted) >
          distance(aggregate_of(*layout, attacked, strategy::median), wanted) * 0.5);
    for (const auto by : robust) {
      const auto made = aggregate_of(*layout, attacked, by);
      CAPTURE(to_string(by));
      CHECK(distance(made, wanted) < spread);
      CHECK(norm(made) < 2 * norm(wanted));
    }
  };
  attack("scaling", [](unit_values& values) { scale(values, 1'000.0f); });
  attack("reversal", [](unit_values& values) { scale(values, -1.0f); });
  attack("scaled reversal", [](unit_values& values) { scale(values, -100.0f); });
  attack("noise", [&](unit_values& values) {
    draws noise(25);
    values = random_values(*layout, noise, 1.0);
  });
  attack("zeros", [](unit_values& values) { scale(values, 0.0f); });
}
