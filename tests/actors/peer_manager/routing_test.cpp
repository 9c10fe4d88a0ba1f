#include "actors/peer_manager/routing.hpp"
#include "tests/support/test.hpp"

#include <set>

using namespace neuroshard;

namespace {

constexpr int64_t second = 1'000'000;

route_candidate stage(char id, uint32_t begin, uint32_t end, uint32_t total = 6) {
  route_candidate one;
  one.hop.local = false;
  one.hop.node_id = std::string(32, id);
  one.hop.address = std::string("host-") + id;
  one.hop.layer_begin = begin;
  one.hop.layer_end = end;
  one.embed = begin == 0;
  one.head = end == total;
  one.wallet = "other";
  return one;
}

std::string way(const std::vector<route_candidate>& candidates, uint64_t random = 1) {
  const auto found = plan_route(candidates, 6, "mine", random);
  if (!found)
    return "no " + std::get<std::string>(problem_of(found.error()).details.at(0).second);
  std::string text;
  for (const auto& hop : found->hops)
    text += hop.node_id.substr(0, 1) + std::to_string(hop.layer_begin) + "-" + std::to_string(hop.layer_end) +
            " ";
  return text;
}

} // namespace

TEST_CASE("a route covers every layer once, embedding first and head last") {
  CHECK(way({stage('a', 0, 2), stage('b', 2, 4), stage('c', 4, 6)}) == "a0-2 b2-4 c4-6 ");
  // The longest first.
  CHECK(way({stage('a', 0, 2), stage('b', 0, 3), stage('c', 2, 6), stage('d', 3, 6)}) == "b0-3 d3-6 ");
}

TEST_CASE("a node runs all of its layers or none: ranges must join") {
  // The longer first one leads nowhere.
  CHECK(way({stage('a', 0, 2), stage('b', 0, 3), stage('c', 1, 6), stage('d', 2, 6)}) == "a0-2 d2-6 ");
  CHECK(way({stage('a', 0, 3), stage('b', 0, 6)}) == "b0-6 ");
  const auto apart = plan_route({stage('a', 0, 3), stage('b', 2, 6)}, 6, "mine", 1);
  REQUIRE_FALSE(apart);
  CHECK(code_of(apart.error()) == errc::no_route);
  CHECK(problem_of(apart.error()).message == "no node's layers begin with layer.3 where those of others end");
  auto own = stage('z', 0, 1);
  own.hop.local = true;
  CHECK(way({own, stage('a', 0, 6), stage('b', 1, 6)}) == "z0-1 b1-6 ");
  CHECK(way({own, stage('a', 0, 6)}) == "a0-6 "); // its own layers are of no use here
}

TEST_CASE("one that holds the last layer without the head is no end of a route") {
  auto headless = stage('a', 0, 6);
  headless.head = false;
  CHECK(way({headless, stage('b', 0, 4), stage('c', 4, 6)}) == "b0-4 c4-6 ");
  CHECK(way({headless}) == "no head");
}

TEST_CASE("the first unit that no candidate holds is named") {
  CHECK(way({}) == "no embed");
  CHECK(way({stage('a', 0, 2), stage('b', 3, 6)}) == "no layer.2");
  CHECK(way({stage('a', 1, 6)}) == "no embed");
  auto misplaced = stage('a', 0, 6);
  misplaced.embed = false;
  CHECK(way({misplaced, stage('b', 2, 6)}) == "no embed");
  CHECK(code_of(plan_route({}, 0, "mine", 1).error()) == errc::no_route);
  // A range beyond the model is nobody's.
  CHECK(way({stage('a', 0, 7, 7)}) == "no layer.0");
}

TEST_CASE("own layers come before better ones of others, and one wallet alone is self-service") {
  auto own = stage('z', 0, 3);
  own.hop.local = true;
  own.wallet = "mine";
  own.queue = 100;
  CHECK(way({stage('a', 0, 6), own, stage('b', 3, 6)}, 1).starts_with("z0-3 "));
  auto mine_too = stage('y', 3, 6);
  mine_too.wallet = "mine";
  CHECK(plan_route({own, mine_too}, 6, "mine", 1)->own_layers_only);
  CHECK_FALSE(plan_route({own, stage('b', 3, 6)}, 6, "mine", 1)->own_layers_only);
}

TEST_CASE("the score weighs latency, queue, failures and age as published") {
  auto one = stage('a', 0, 6);
  CHECK(score_of(one) == doctest::Approx(0.4 * 100 / 500));
  one.latency_ms = 5'000;
  one.queue = 50;
  CHECK(score_of(one) == doctest::Approx(0.4 + 0.3));
  one.failures = 2;
  CHECK(score_of(one) == doctest::Approx(0.4 + 0.3 + 0.4));
  one.failures = 1'000'000;
  one.age_us = 15 * second;
  CHECK(score_of(one) == doctest::Approx(0.4 + 0.3 + 1));
  one.age_us = 30 * second;
  CHECK(score_of(one) == doctest::Approx(0.4 + 0.3 + 1 + 0.5));
  one.age_us = 300 * second;
  CHECK(score_of(one) == doctest::Approx(0.4 + 0.3 + 1 + 1));
}

TEST_CASE("only the three best of a layer are considered, and the better of equally long ones is taken") {
  auto slow = stage('e', 0, 6);
  slow.latency_ms = 500;
  std::vector<route_candidate> all{slow, stage('a', 0, 2), stage('b', 0, 2), stage('c', 0, 2),
                                   stage('d', 2, 6)};
  for (uint64_t random = 0; random < 50; ++random)
    CHECK(way(all, random).find('e') == std::string::npos);
  auto better = stage('f', 2, 6);
  better.latency_ms = 1;
  all.push_back(better);
  auto much_worse = stage('g', 2, 6);
  much_worse.failures = 3;
  all.push_back(much_worse);
  size_t f = 0, d = 0;
  for (uint64_t random = 0; random < 1'000; ++random) {
    const auto text = way(all, random);
    f += text.ends_with("f2-6 ");
    d += text.ends_with("d2-6 ");
  }
  CHECK(f + d == 1'000); // never one that is not as good
  CHECK(d > 20);         // one choice in ten is random, half of them the other
  CHECK(d < 90);
}

TEST_CASE("latency is an EWMA for each class; the budget is four of it, at least 200 ms") {
  hop_scores scores;
  CHECK_FALSE(scores.latency_ms("a", request_class::decode).has_value());
  CHECK(scores.budget_ms("a", request_class::decode) == 400);
  scores.note({"a", request_class::decode, 10'000, false}, 0);
  CHECK(*scores.latency_ms("a", request_class::decode) == doctest::Approx(10));
  CHECK(scores.budget_ms("a", request_class::decode) == 200);
  scores.note({"a", request_class::decode, 110'000, false}, 0);
  CHECK(*scores.latency_ms("a", request_class::decode) == doctest::Approx(40));
  scores.note({"a", request_class::prefill, 2'000'000, false}, 0);
  CHECK(scores.budget_ms("a", request_class::prefill) == 8'000);
  CHECK(scores.budget_ms("a", request_class::decode) == 200);
  CHECK(scores.budget_ms("a", request_class::backward) == 400);
}

TEST_CASE("five failures in a row open the circuit for half a minute; success resets") {
  hop_scores scores;
  const auto fail = [&](int64_t at) { scores.note({"a", request_class::decode, 0, true}, at); };
  for (int i = 0; i < 4; ++i)
    fail(0);
  CHECK_FALSE(scores.circuit_open("a", 0));
  fail(0);
  CHECK(scores.circuit_open("a", 29 * second));
  CHECK_FALSE(scores.circuit_open("a", 30 * second)); // one may try
  fail(31 * second);
  CHECK(scores.circuit_open("a", 60 * second));
  scores.note({"a", request_class::decode, 1'000, false}, 61 * second);
  CHECK(scores.failures("a") == 0);
  CHECK_FALSE(scores.circuit_open("a", 61 * second));
  scores.forget("a");
  CHECK(scores.size() == 0);
}
