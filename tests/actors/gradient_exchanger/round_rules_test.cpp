#include "actors/gradient_exchanger/round_rules.hpp"

#include "actors/gradient_exchanger/exchange_reputation.hpp"
#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

#include <algorithm>

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

std::vector<std::string> names(const std::vector<uint64_t>& numbers) {
  std::vector<std::string> made;
  for (const auto number : numbers)
    made.push_back(node_name(number));
  return made;
}

round_end end_by(uint32_t inner_steps) {
  return {4, "0123456789abcdef", node_name(1), inner_steps, 0};
}

round_view view_at(int64_t age_ms) {
  return {4, "0123456789abcdef", 500, age_ms, false, true};
}

} // namespace

TEST_CASE("collectors follow the hash of round and node, whatever order members are given in") {
  // worked_values.py
  CHECK(collector_order(1, names({1, 2, 3, 4, 5})) == names({5, 4, 2, 1, 3}));
  CHECK(collector_order(258, names({5, 3, 1, 2, 4})) == names({2, 3, 1, 5, 4}));
  CHECK(collector_order(258, names({5, 3, 5, 1, 2, 4, 1})) == names({2, 3, 1, 5, 4}));
  CHECK(collector_order(1, {}).empty());
}

TEST_CASE("the window stays open for a minute, then each collector has 15 seconds") {
  const exchange_window window(1'000);
  CHECK(window.open(60'999));
  CHECK_FALSE(window.collector(60'999, 5));
  CHECK_FALSE(window.open(61'000));
  CHECK(window.collector(61'000, 5) == size_t{0});
  CHECK(window.collector(75'999, 5) == size_t{0});
  CHECK(window.collector(76'000, 5) == size_t{1});
  CHECK(window.collector(91'000, 5) == size_t{2});
  CHECK_FALSE(window.given_up(105'999, 5));
  CHECK_FALSE(window.collector(106'000, 5));
  CHECK(window.given_up(106'000, 5));
  CHECK(window.given_up(91'000, 2)); // two members: two collectors
  CHECK_FALSE(window.given_up(60'000, 2));
}

TEST_CASE("the window ends early once all are heard, and never later for it") {
  exchange_window window(1'000);
  window.all_heard(5'000);
  CHECK(window.end_ms() == 5'000);
  CHECK(window.collector(5'000, 3) == size_t{0});
  CHECK(window.collector(20'000, 3) == size_t{1});
  window.all_heard(30'000);
  CHECK(window.end_ms() == 5'000);
  exchange_window late(1'000);
  late.all_heard(90'000);
  CHECK(late.end_ms() == 61'000);
}

TEST_CASE("of two sets that of the earlier collector counts") {
  const auto order = names({7, 3, 9, 1});
  CHECK(better_collector(order, node_name(3), node_name(7)) == node_name(7));
  CHECK(better_collector(order, node_name(9), node_name(3)) == node_name(3));
  CHECK(better_collector(order, node_name(1), node_name(9)) == node_name(9));
  CHECK(better_collector(order, node_name(1), node_name(2)).empty()); // the fourth collects nothing
}

TEST_CASE("a RoundEnd counts from a driver with H steps, once") {
  const round_lengths none;
  CHECK(round_end_refused(end_by(500), view_at(1), none) == "");
  CHECK(round_end_refused(end_by(499), view_at(1), none) == "too_early");
  auto view = view_at(1);
  view.round = 5;
  CHECK(round_end_refused(end_by(500), view, none) == "other_round");
  view = view_at(1);
  view.architecture_id = "fedcba9876543210";
  CHECK(round_end_refused(end_by(500), view, none) == "other_round");
  view = view_at(1);
  view.ended = true;
  CHECK(round_end_refused(end_by(500), view, none) == "already_ended");
  view = view_at(1);
  view.from_driver = false;
  CHECK(round_end_refused(end_by(500), view, none) == "not_a_driver");
}

TEST_CASE("a round older than twice the median of the last five may end before H") {
  round_lengths lengths;
  CHECK_FALSE(round_overdue(1'000'000'000, lengths)); // never the first
  lengths.add(10'000);
  CHECK_FALSE(round_overdue(60'000, lengths)); // at least a minute
  CHECK(round_overdue(60'001, lengths));
  CHECK(round_end_refused(end_by(3), view_at(60'001), lengths) == "");
  for (const int64_t length : {100'000, 200'000, 300'000, 400'000, 500'000})
    lengths.add(length); // the first is forgotten
  CHECK(lengths.median_ms() == 300'000);
  CHECK_FALSE(round_overdue(600'000, lengths));
  CHECK(round_overdue(600'001, lengths));
  CHECK(round_end_refused(end_by(3), view_at(600'000), lengths) == "too_early");
  round_lengths two;
  two.add(100'000);
  two.add(200'001);
  CHECK(two.median_ms() == 150'000);
}

TEST_CASE("the hash of the largest group stands, a tie goes to the lowest node id") {
  const auto a = kernels::sha256::of("a");
  const auto b = kernels::sha256::of("b");
  CHECK_FALSE(standing_hash({}));
  CHECK(standing_hash({{node_name(3), a}, {node_name(1), b}, {node_name(2), a}}) == a);
  CHECK(standing_hash({{node_name(3), a}, {node_name(1), b}}) == b);
  CHECK(standing_hash({{node_name(1), b}, {node_name(3), a}, {node_name(4), b}, {node_name(2), a}}) == b);
  CHECK(standing_hash({{node_name(2), b}, {node_name(2), b}, {node_name(1), a}}) == a); // named twice
}

TEST_CASE("three failures in a row and a node is ignored for ten rounds") {
  exchange_reputation reputation;
  const auto node = node_name(1);
  CHECK_FALSE(reputation.failed(node, 5));
  CHECK_FALSE(reputation.failed(node, 6));
  CHECK(reputation.failures(node) == 2);
  reputation.passed(node);
  CHECK(reputation.failures(node) == 0);
  CHECK(reputation.size() == 0);
  CHECK_FALSE(reputation.failed(node, 7));
  CHECK_FALSE(reputation.failed(node, 8));
  CHECK_FALSE(reputation.ignored(node, 8));
  CHECK(reputation.failed(node, 9));
  CHECK(reputation.ignored(node, 10));
  CHECK(reputation.ignored(node, 19));
  CHECK_FALSE(reputation.ignored(node, 20));
  CHECK_FALSE(reputation.ignored(node_name(2), 10));
  CHECK_FALSE(reputation.failed(node, 20)); // begins anew
}

TEST_CASE("the reputation remembers a bounded number of nodes, the latest") {
  exchange_reputation reputation;
  for (uint64_t i = 0; i < exchange_reputation::nodes_max + 10; ++i)
    reputation.failed(node_name(i), i);
  CHECK(reputation.size() == exchange_reputation::nodes_max);
  CHECK(reputation.failures(node_name(3)) == 0);
  CHECK(reputation.failures(node_name(exchange_reputation::nodes_max)) == 1);
}
