#include "tests/kernels/model/stage_support.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// The gradient of each unit, its tensors one after the other by name.
std::vector<std::vector<float>> by_name(stage& s) {
  std::vector<std::vector<float>> units;
  for (const unit& u : s.units()) {
    std::vector<std::string> names;
    for (const parameter& p : u.parameters)
      names.push_back(p.name);
    std::sort(names.begin(), names.end());
    auto& values = units.emplace_back();
    for (const auto& name : names) {
      const auto all = read_all(s, name, parameter_part::gradient);
      values.insert(values.end(), all.begin(), all.end());
    }
  }
  return units;
}

std::vector<uint64_t> some_draws(std::mt19937_64& random) {
  std::vector<uint64_t> draws(1000);
  for (uint64_t& draw : draws)
    draw = random();
  draws.front() = 0;
  draws.back() = std::numeric_limits<uint64_t>::max();
  return draws;
}

} // namespace

TEST_CASE("a sampled gradient is the accumulated one: its norms unit by unit, its values by name and place") {
  const uint64_t seed = test_seed();
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  for (const std::string& backend : backends())
    for (dtype compute : {dtype::f32, dtype::bf16}) {
      INFO((backend + (compute == dtype::bf16 ? " bf16" : " f32")));
      const architecture a = tiny_shape();
      const auto one = make_stage(open_device(backend, 1), a, whole_options(a, compute));
      const auto two = make_stage(open_device(backend, 2), a, whole_options(a, compute));
      for (auto* s : {one.get(), two.get()})
        for (uint32_t m = 0; m < 2; ++m) { // two micro-batches: what is sampled is their sum
          train_input in = whole_batch(a, 2, 16, m);
          in.key.microbatch = m;
          in.loss_scale = 0.5F;
          REQUIRE(s->forward_train(in).run().ok());
        }
      auto draws = some_draws(random);
      const auto count = static_cast<uint64_t>(one->parameters());
      draws[1] = count - 1; // the last element, and round to the first
      draws[2] = count;
      const auto probe = one->sample_gradient(draws).run();
      REQUIRE(probe.ok());

      const auto units = by_name(*one);
      REQUIRE(probe->unit_norms.size() == units.size());
      std::vector<float> all;
      double whole_sq = 0;
      for (size_t u = 0; u < units.size(); ++u) {
        double squares = 0;
        for (const float g : units[u])
          squares += double{g} * g;
        CHECK(probe->unit_norms[u] == doctest::Approx(std::sqrt(squares)).epsilon(1e-9));
        whole_sq += probe->unit_norms[u] * probe->unit_norms[u];
        all.insert(all.end(), units[u].begin(), units[u].end());
      }
      CHECK(*one->gradient_norm_sq().run() == doctest::Approx(whole_sq).epsilon(1e-9));
      REQUIRE(all.size() == count);
      for (size_t i = 0; i < draws.size(); ++i)
        CHECK(probe->values[i] == all[draws[i] % count]);

      const auto same = two->sample_gradient(draws).run();
      REQUIRE(same.ok());
      CHECK(same->unit_norms == probe->unit_norms);
      CHECK(same->values == probe->values);
      // It changes nothing: neither the gradient nor the norm that clips.
      CHECK(by_name(*one) == units);
      optimizer_step step;
      step.learning_rate = 1e-3F;
      const auto applied = one->apply(step).run();
      REQUIRE(applied.ok());
      CHECK(applied->grad_norm_sq == doctest::Approx(whole_sq).epsilon(1e-9));
    }
}

TEST_CASE("a gradient is sampled only while there is one") {
  const architecture a = tiny_shape();
  stage_options o = whole_options(a);
  o.slice_flops = 1; // a slice ends wherever one can
  const auto s = make_stage(open_device("reference"), a, o);
  const train_input in = whole_batch(a, 2, 8, 1);
  CHECK(s->sample_gradient({1, 2}).run().status().why() == code::invalid_argument);
  REQUIRE(s->forward_train(in).run().ok());
  {
    auto sampling = s->sample_gradient(std::vector<uint64_t>(4096, 5));
    REQUIRE_FALSE(sampling.resume());
    CHECK(s->apply({}).run().status().why() == code::invalid_argument);
    CHECK(s->discard().run().why() == code::invalid_argument);
  } // cancelled: nothing is broken
  {
    auto applying = s->apply({});
    REQUIRE_FALSE(applying.resume());
    CHECK(s->sample_gradient({1}).run().status().why() == code::invalid_argument);
    while (!applying.resume()) {
    }
    REQUIRE(applying.take().ok());
  }
  CHECK(s->sample_gradient({1}).run().status().why() == code::invalid_argument); // it is zero now
  REQUIRE(s->forward_train(in).run().ok());
  REQUIRE(s->sample_gradient({}).run().ok());
  REQUIRE(s->discard().run().ok());
  CHECK(s->sample_gradient({1}).run().status().why() == code::invalid_argument);
  o.train = false;
  const auto serving = make_stage(open_device("reference"), a, o);
  CHECK(serving->sample_gradient({1}).run().status().why() == code::invalid_argument);
}

TEST_CASE("what is not finite in a gradient is sampled as it is") {
  const architecture a = tiny_shape();
  for (const std::string& backend : backends()) {
    INFO(backend);
    const auto s = make_stage(open_device(backend), a, whole_options(a));
    REQUIRE(s->forward_train(whole_batch(a, 2, 8, 1)).run().ok());
    const float infinite = std::numeric_limits<float>::infinity();
    REQUIRE(s->write("embed.weight", parameter_part::gradient, 3, std::span(&infinite, 1)).ok());
    const auto probe = s->sample_gradient({3, 4}).run();
    REQUIRE(probe.ok());
    CHECK(probe->values[0] == infinite);
    CHECK(std::isfinite(probe->values[1]));
    CHECK_FALSE(std::isfinite(probe->unit_norms[0]));
    CHECK(std::isfinite(probe->unit_norms[1]));
  }
}
