#include "actors/gradient_exchanger/contribution_checks.hpp"

#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

#include <limits>

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

const unit_layout checked_layout{{{"head.weight", {70, 80}}, {"norm.weight", {80}}}};

exchange_base base_of_round() {
  exchange_base base;
  base.unit = "head";
  base.architecture_id = "0123456789abcdef";
  base.round = 7;
  base.base_unit_hash = kernels::sha256::of("base");
  base.previous_unit_hash = kernels::sha256::of("previous");
  return base;
}

delta_manifest manifest_by(uint64_t node) {
  delta_manifest made;
  made.unit = "head";
  made.architecture_id = "0123456789abcdef";
  made.node_id = node_name(node);
  made.round = 7;
  made.base_round = 6;
  made.base_unit_hash = kernels::sha256::of("base");
  made.inner_steps = 500;
  made.batches = 500;
  made.tokens = 2'000'000;
  made.loss = 3.5;
  return made;
}

/// Contributions of one round, honest until a test changes them.
struct round_of {
  explicit round_of(size_t n) {
    draws from(31);
    const auto common = random_values(checked_layout, from, 0.01);
    for (size_t i = 0; i < n; ++i) {
      manifests.push_back(manifest_by(i + 1));
      values.push_back(random_values(checked_layout, from, 0.01));
      for (size_t tensor = 0; tensor < common.size(); ++tensor)
        for (size_t at = 0; at < common[tensor].size(); ++at)
          values.back()[tensor][at] += common[tensor][at];
    }
  }

  std::vector<check_verdict> judged() const {
    std::vector<held_values> held(values.begin(), values.end());
    std::vector<candidate> all;
    for (size_t i = 0; i < values.size(); ++i)
      all.push_back({&manifests[i], &held[i]});
    const held_values own_values(own);
    judge_view view;
    view.own = own.empty() ? nullptr : &own_values;
    view.round_ms = round_ms;
    view.membership = [this](const std::string& node) -> std::string_view {
      return node == stranger ? "not_a_member" : "";
    };
    return judge_contributions(checked_layout, all, base, view);
  }
  /// The reason of the last one; the others must have passed.
  std::string last() const {
    const auto verdicts = judged();
    for (size_t i = 0; i + 1 < verdicts.size(); ++i)
      CHECK(verdicts[i].passed());
    return std::string(verdicts.back().reason);
  }
  void scale_last(float by) {
    for (auto& tensor : values.back())
      for (auto& value : tensor)
        value *= by;
  }

  std::vector<delta_manifest> manifests;
  std::vector<unit_values> values;
  unit_values own;
  exchange_base base = base_of_round();
  int64_t round_ms = 600'000;
  std::string stranger;
};

} // namespace

TEST_CASE("honest contributions pass, however many") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  for (const size_t n : {1, 2, 3, 4, 5, 9})
    for (const auto& verdict : round_of(n).judged())
      CHECK(verdict.reason == "");
  CHECK(round_of(0).judged().empty());
}

TEST_CASE("a manifest of another round, base or form fails a deterministic check") {
  const auto said = [](auto change, exchange_base base = base_of_round()) {
    auto manifest = manifest_by(1);
    change(manifest);
    const auto verdict = check_manifest(manifest, base);
    CHECK(verdict.deterministic == !verdict.passed());
    return std::string(verdict.reason);
  };
  CHECK(said([](delta_manifest&) {}) == "");
  CHECK(said([](delta_manifest& m) { m.round = 6; }) == "stale_round");
  CHECK(said([](delta_manifest& m) { m.round = 8; }) == "stale_round");
  CHECK(said([](delta_manifest& m) { m.base_round = ~uint64_t{0}; }) == "stale_round");
  CHECK(said([](delta_manifest& m) { m.base_unit_hash = {}; }) == "base_mismatch");
  CHECK(said([](delta_manifest& m) { m.unit = "embed"; }) == "base_mismatch");
  CHECK(said([](delta_manifest& m) { m.architecture_id = "fedcba9876543210"; }) == "base_mismatch");
  CHECK(said([](delta_manifest& m) { m.inner_steps = 0; }) == "no_inner_steps");
  CHECK(said([](delta_manifest& m) { m.loss = 0; }) == "bad_loss");
  CHECK(said([](delta_manifest& m) { m.loss = -1; }) == "bad_loss");
  CHECK(said([](delta_manifest& m) { m.loss = std::numeric_limits<double>::quiet_NaN(); }) == "bad_loss");
  CHECK(said([](delta_manifest& m) { m.loss = std::numeric_limits<double>::infinity(); }) == "bad_loss");
}

TEST_CASE("a contribution of the round before is taken with the mean alone") {
  auto late = manifest_by(1);
  late.base_round = 5;
  late.base_unit_hash = kernels::sha256::of("previous");
  auto base = base_of_round();
  CHECK(check_manifest(late, base).reason == "stale_round");
  base.strategy = aggregation_strategy::mean;
  CHECK(check_manifest(late, base).passed());
  late.base_unit_hash = kernels::sha256::of("base");
  CHECK(check_manifest(late, base).reason == "base_mismatch");
  base.previous_unit_hash.reset();
  CHECK(check_manifest(late, base).reason == "base_mismatch");
  late.base_round = 4;
  CHECK(check_manifest(late, base).reason == "stale_round");
}

TEST_CASE("the largest magnitude follows the steps and the peak rate") {
  auto base = base_of_round();
  CHECK(magnitude_bound(500, base) == doctest::Approx(0.2));
  CHECK(magnitude_bound(5'000, base) == doctest::Approx(0.2)); // no more than H count
  CHECK(magnitude_bound(50, base) == doctest::Approx(0.02));
  base.peak_learning_rate = 2e-3;
  CHECK(magnitude_bound(500, base) == doctest::Approx(4.0));
  base.peak_learning_rate = 1;
  CHECK(magnitude_bound(500, base) == 100.0);
}

TEST_CASE("each attack on the values is named") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  for (const size_t n : {4, 5}) {
    round_of scaling(n);
    scaling.scale_last(1'000.0f);
    CHECK(scaling.last() == "too_large");
    CHECK(scaling.judged().back().deterministic);
    round_of mild(n); // below the bound of pico's rate
    mild.base.peak_learning_rate = 2e-3;
    mild.scale_last(30.0f);
    CHECK(mild.last() == "magnitude");
    round_of faint(n);
    faint.scale_last(0.01f);
    CHECK(faint.last() == "magnitude");
    round_of reversal(n);
    reversal.scale_last(-1.0f);
    CHECK(reversal.last() == "direction");
    CHECK_FALSE(reversal.judged().back().deterministic);
    round_of nothing(n);
    nothing.scale_last(0.0f);
    CHECK(nothing.last() == "direction");
    round_of nan(n);
    nan.values.back()[0][77] = std::numeric_limits<float>::quiet_NaN();
    CHECK(nan.last() == "not_finite");
    CHECK(nan.judged().back().deterministic);
    round_of infinite(n);
    infinite.values.back()[1].back() = -std::numeric_limits<float>::infinity();
    CHECK(infinite.last() == "not_finite");
    round_of replay(n);
    replay.manifests.back().round = 6;
    replay.manifests.back().base_round = 5;
    CHECK(replay.last() == "stale_round");
    CHECK(replay.judged().back().deterministic);
    round_of noise(n);
    noise.base.peak_learning_rate = 2e-3;
    draws from(32);
    noise.values.back() = random_values(checked_layout, from, 0.5);
    const auto said = noise.last();
    CHECK((said == "direction" || said == "magnitude"));
  }
}

TEST_CASE("a constant added to every value fails the variance of its reference") {
  round_of round(3);
  // The reference is the median, here of three flat contributions: its variance is almost nothing.
  for (auto& values : round.values)
    for (auto& tensor : values)
      for (size_t at = 0; at < tensor.size(); ++at)
        tensor[at] = 0.01f + (at % 2 == 0 ? 1e-6f : -1e-6f);
  for (auto& tensor : round.values.back())
    for (size_t at = 0; at < tensor.size(); ++at)
      tensor[at] = at % 2 == 0 ? 0.03f : 0.0f;
  CHECK(round.last() == "variance");
}

TEST_CASE("with few others the judge compares with its own") {
  round_of round(2);
  CHECK(round.last() == "");
  round.own = round.values.front();
  CHECK(round.last() == "");
  round.scale_last(-1.0f);
  CHECK(round.last() == "direction");
  round.own.clear();
  CHECK(round.last() == "");
  // With top-k too, however many.
  round_of many(5);
  many.base.top_k = true;
  many.scale_last(-1.0f);
  CHECK(many.last() == "");
  many.own = many.values.front();
  CHECK(many.last() == "direction");
  // A reference of zero lets everything pass.
  for (auto& tensor : many.own)
    std::fill(tensor.begin(), tensor.end(), 0.0f);
  CHECK(many.last() == "");
}

TEST_CASE("a norm far from all others is an outlier") {
  round_of round(11); // one of n can be at most sqrt(n - 1) deviations away: from 11 on more than 3
  for (size_t i = 0; i + 1 < round.values.size(); ++i)
    round.values[i] = round.values[0];
  round.values.back() = round.values[0];
  CHECK(round.last() == "");
  round.base.peak_learning_rate = 2e-3;
  round.scale_last(5.0f);
  CHECK(round.last() == "outlier");
  CHECK_FALSE(round.judged().back().deterministic);
}

TEST_CASE("more batches than a minute holds are implausible") {
  round_of round(3);
  round.manifests.back().batches = 20'000;
  CHECK(round.last() == "");
  round.manifests.back().batches = 20'001;
  CHECK(round.last() == "implausible");
  round.manifests.back().batches = ~uint64_t{0};
  CHECK(round.last() == "implausible");
}

TEST_CASE("strangers, and authors who say two things, are out") {
  round_of round(4);
  round.stranger = node_name(4);
  CHECK(round.last() == "not_a_member");
  CHECK_FALSE(round.judged().back().deterministic);
  round.stranger.clear();
  round.manifests[2].node_id = round.manifests[3].node_id;
  const auto verdicts = round.judged();
  CHECK(verdicts[0].passed());
  CHECK(verdicts[1].passed());
  CHECK(verdicts[2] == check_verdict{"duplicate", true});
  CHECK(verdicts[3] == check_verdict{"duplicate", true});
}

TEST_CASE("parts of another shape fail, also where only reading shows it") {
  round_of round(3);
  round.values.back()[1].pop_back();
  CHECK(round.last() == "bad_shape");
  const auto manifest = manifest_by(1);
  const auto verdicts = judge_contributions(checked_layout, {{&manifest, nullptr}}, base_of_round(), {});
  CHECK(verdicts.front() == check_verdict{"bad_shape", true});
}

TEST_CASE("verdicts are the same in every order") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  round_of round(6);
  round.scale_last(-1.0f);
  const auto before = round.judged();
  std::reverse(round.values.begin(), round.values.end());
  std::reverse(round.manifests.begin(), round.manifests.end());
  auto after = round.judged();
  std::reverse(after.begin(), after.end());
  CHECK(before == after);
}
