#include "tests/actors/gradient_exchanger/exchanger_fixture.hpp"
#include "tests/support/gradient_liar.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

constexpr size_t liar = 3; ///< of four nodes

unit_layout layout_of(const std::string& unit) {
  return layout_of_unit(tiny_architecture(), unit);
}

size_t times_refused(exchanger_fixture& f) {
  size_t most = 0;
  for (size_t i = 0; i < liar; ++i) {
    const auto told = f.value(i, "refused." + f.nodes[liar]->id());
    most = std::max(most, told.empty() ? size_t{0} : std::stoul(told));
  }
  return most;
}

} // namespace

TEST_CASE("a liar among four is named, and the others go on with equal weights") {
  for (const auto strategy : {aggregation_strategy::trimmed_mean, aggregation_strategy::krum,
                              aggregation_strategy::geometric_median}) {
    for (const auto& attack : attack_names()) {
      CAPTURE(std::string(to_string(strategy)));
      CAPTURE(attack);
      gradient_exchanger_options how;
      how.aggregation.strategy = strategy;
      exchanger_fixture f(4, how);
      draws any(9);
      gradient_liar lies(f.nodes[liar]->who, tiny_architecture(), attack, [&] { return any.normal(1); });
      replace_contributions(*f.network, f.nodes[liar]->id(),
                            [&](signed_blob& blob, delta_part& data) { REQUIRE(lies.lie(blob, data)); });
      for (uint64_t round = 1; round <= 2; ++round) {
        f.begin_all(round - 1);
        const auto ended = f.finish_all(round, {0, 1, 2, 3}, attack == "replay" ? 62'000 : 9'000);
        for (size_t i = 0; i < 4; ++i) {
          const auto& one = ended[i];
          CAPTURE(i);
          REQUIRE(one);
          CAPTURE(static_cast<int>(one->how));
          if (round > 1 || attack.find("replay") == std::string::npos)
            CHECK(one->members >= 3);
        }
        f.check_equal({0, 1, 2});
        // What the liar holds of the round may be its own affair; it follows the others.
        f.set_weights(liar, f.weights(0));
      }
      CHECK(times_refused(f) > 0);
      for (const auto& [name, values] : f.weights(0))
        for (const float value : values)
          REQUIRE(std::isfinite(value));
      for (size_t i = 0; i < liar; ++i)
        for (size_t j = 0; j < liar; ++j)
          CHECK(f.value(i, "refused." + f.nodes[j]->id()).empty());
    }
  }
}

TEST_CASE("three rounds of what cannot be right, and a node is ignored") {
  exchanger_fixture f(4);
  const auto by = f.nodes[liar]->who;
  std::map<std::string, forged_contribution> made;
  replace_contributions(*f.network, f.nodes[liar]->id(), [&](signed_blob& blob, delta_part& data) {
    auto manifest = decode_delta_manifest(blob.payload);
    REQUIRE(manifest);
    auto& mine = made[manifest->unit + std::to_string(manifest->round)];
    if (!mine.data)
      mine = forge(*by, *manifest, layout_of(manifest->unit), [](size_t) { return 50.0F; });
    blob = mine.blob;
    data = mine.data;
  });
  // As a collector it would name what it has told nobody: three rounds where others collect.
  std::vector<std::string> ids;
  for (const auto& one : f.nodes)
    ids.push_back(one->id());
  const auto collects = [&](uint64_t round) { return collector_order(round, ids)[0] == f.nodes[liar]->id(); };
  uint64_t base = 0;
  while (collects(base + 1) || collects(base + 2) || collects(base + 3))
    ++base;
  for (uint64_t round = base + 1; round <= base + 3; ++round) {
    f.begin_all(round - 1);
    f.finish_all(round, {0, 1, 2, 3}, 9'000);
    f.check_equal({0, 1, 2});
    f.set_weights(liar, f.weights(0));
  }
  exchange_request call;
  call.from.node_id = f.nodes[liar]->id();
  f.begin_all(base + 3);
  delta_manifest manifest;
  manifest.unit = "head";
  manifest.round = base + 4;
  manifest.base_round = base + 3;
  for (const auto& unit : f.announced(0))
    if (unit.unit == "head")
      manifest.base_unit_hash = unit.unit_hash;
  manifest.architecture_id = f.architecture;
  manifest.node_id = f.nodes[liar]->id();
  manifest.inner_steps = 10;
  manifest.loss = 1;
  const auto good = forge(*by, manifest, layout_of("head"), [](size_t) { return 0.01F; });
  call.manifest = good.blob;
  call.part_data = good.data;
  auto told = ask<exchange_reply>(f, f.nodes[0]->exchanger, call);
  REQUIRE(told);
  CHECK(told->result == exchange_result::not_a_member);
  // The peer manager hears of each refusal, and until when it is ignored.
  uint64_t ignored_until_round = 0;
  size_t refused = 0;
  for (const auto& one : f.network->refused[f.nodes[0]->id()]) {
    CHECK(one.node_id == f.nodes[liar]->id());
    refused += one.reason == "too_large" ? 1 : 0;
    ignored_until_round = std::max(ignored_until_round, one.ignored_until_round);
  }
  CHECK(refused >= 3);
  CHECK(ignored_until_round == base + 3 + exchange_reputation::ignored_rounds);
}

TEST_CASE("requests that lie are refused, and nothing of them is kept") {
  exchanger_fixture f(2);
  f.begin_all(0);
  const auto id = f.nodes[1]->id();
  const auto& by = *f.nodes[1]->who;
  delta_manifest manifest;
  manifest.unit = "head";
  manifest.round = 1;
  for (const auto& unit : f.announced(0))
    if (unit.unit == "head")
      manifest.base_unit_hash = unit.unit_hash;
  manifest.architecture_id = f.architecture;
  manifest.node_id = id;
  manifest.inner_steps = 10;
  manifest.loss = 1;
  const auto layout = layout_of("head");
  const auto call_of = [&](const delta_manifest& what) {
    const auto made = forge(by, what, layout, [](size_t) { return 0.01F; });
    exchange_request call;
    call.from.node_id = id;
    call.manifest = made.blob;
    call.part_data = made.data;
    return call;
  };
  const auto told = [&](const exchange_request& call) {
    auto reply = ask<exchange_reply>(f, f.nodes[0]->exchanger, call);
    REQUIRE(reply);
    return reply->result;
  };
  auto call = call_of(manifest);
  call.part_data = nullptr;
  CHECK(ask<exchange_reply>(f, f.nodes[0]->exchanger, call).code() == errc::invalid_request);
  call = call_of(manifest);
  call.manifest->sig[5] ^= 1;
  CHECK(ask<exchange_reply>(f, f.nodes[0]->exchanger, call).code() == errc::unauthorized);
  call = call_of(manifest);
  call.from.node_id = std::string(32, 'a');
  CHECK(told(call) == exchange_result::not_a_member);
  auto other = manifest;
  other.round = 2;
  CHECK(told(call_of(other)) == exchange_result::stale_round);
  other = manifest;
  other.unit = "layer.7";
  CHECK(told(call_of(other)) == exchange_result::not_held);
  other = manifest;
  other.base_unit_hash[0] ^= 1;
  CHECK(told(call_of(other)) == exchange_result::base_mismatch);
  other = manifest;
  other.loss = -1;
  CHECK(told(call_of(other)) == exchange_result::invalid_values);
  CHECK(f.value(0, "held_bytes") == "0");
  call = call_of(manifest);
  call.part_data = std::make_shared<const std::string>("another part");
  CHECK(told(call) == exchange_result::invalid_values);
  CHECK(f.value(0, "held_bytes") == "0");
  CHECK(told(call_of(manifest)) == exchange_result::accepted);
  const auto held = f.value(0, "held_bytes");
  for (uint64_t i = 1; i <= 50; ++i) { // two things of one author: the first is held, no other
    other.loss = 1 + static_cast<double>(i);
    other.tokens = i;
    auto another = forge(by, other, layout, [&](size_t) { return 0.001F * static_cast<float>(i); });
    call.manifest = another.blob;
    call.part_data = another.data;
    CHECK(told(call) == exchange_result::duplicate);
  }
  CHECK(f.value(0, "held_bytes") == held);
  exchange_request fetch;
  fetch.from.node_id = id;
  fetch.fetch = kernels::sha256::of("nobody's");
  CHECK(told(fetch) == exchange_result::not_held);
}

TEST_CASE("nothing grows from round to round") {
  exchanger_fixture f(3);
  std::string held;
  for (uint64_t round = 1; round <= 8; ++round) {
    f.begin_all(round - 1);
    f.finish_all(round, {0, 1, 2}, 8'000);
    const auto now = f.value(0, "held_bytes");
    if (round == 3)
      held = now;
    if (round > 3)
      CHECK(std::stoul(now) < 2 * std::stoul(held));
  }
  f.run_ms(120'000);
  CHECK(f.value(0, "held_bytes") == "0"); // nobody fetches of a round any more
  CHECK(f.value(0, "calls") == "0");
}
