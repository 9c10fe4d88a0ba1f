#include "actors/gradient_exchanger/outer_step.hpp"

#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"

#include <cmath>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::exchange_tests;

namespace {

const unit_layout outer_layout{{{"head.weight", {40, 50}}, {"norm.weight", {50}}}};

contribution given(uint64_t node, const value_source& values) {
  return {node_name(node), 100, 0, &values};
}

outer_state state_of(unit_values w) {
  return {std::move(w), {}};
}

} // namespace

TEST_CASE("without momentum and at rate 1 one contribution gives the inner weights to one ulp") {
  INFO("NEUROSHARD_TEST_SEED=" << seed());
  draws from(11);
  const auto w0 = random_values(outer_layout, from, 1.0);
  auto w_h = random_values(outer_layout, from, 0.01);
  auto delta = w0;
  for (size_t tensor = 0; tensor < w0.size(); ++tensor)
    for (size_t i = 0; i < w0[tensor].size(); ++i) {
      w_h[tensor][i] += w0[tensor][i];
      delta[tensor][i] = w_h[tensor][i] - w0[tensor][i];
    }
  const held_values values(delta);
  auto single = state_of(w0);
  const auto kind = outer_step(outer_layout, {given(1, values)}, {}, {1.0, 0.0}, 0, single);
  REQUIRE(static_cast<bool>(kind));
  CHECK(*kind == outer_kind::single);
  CHECK(single.v.empty());
  auto stepped = w0;
  bool to_an_ulp = true;
  for (size_t tensor = 0; tensor < w0.size(); ++tensor) {
    std::vector<float> v(w0[tensor].size());
    nesterov_step(w0[tensor], delta[tensor], {1.0, 0.0}, v, stepped[tensor]);
    CHECK(v == delta[tensor]);
    for (size_t i = 0; i < v.size(); ++i) {
      const float wanted = w_h[tensor][i];
      for (const float got : {stepped[tensor][i], single.w[tensor][i]})
        to_an_ulp = to_an_ulp && (got == wanted || got == std::nextafter(wanted, 1e9f) ||
                                  got == std::nextafter(wanted, -1e9f));
    }
  }
  CHECK(to_an_ulp);
}

TEST_CASE("the first round moves 1.33 dbar, the second as worked out") {
  const unit_layout layout{{{"norm.weight", {1}}}};
  const held_values delta(unit_values{std::vector<float>{0.25f}});
  auto state = state_of({{1.0f}});
  const auto step = [&] {
    const auto kind = outer_step(layout, {given(1, delta), given(2, delta)}, {}, {}, 0, state);
    REQUIRE(static_cast<bool>(kind));
    CHECK(*kind == outer_kind::momentum);
  };
  step();
  CHECK(state.w[0][0] == doctest::Approx(1.0 + 1.33 * 0.25).epsilon(1e-7));
  CHECK(state.v[0][0] == 0.25f);
  step(); // worked_values.py
  CHECK(state.v[0][0] == doctest::Approx(0.475).epsilon(1e-7));
  CHECK(state.w[0][0] == doctest::Approx(1.80675).epsilon(1e-7));
}

TEST_CASE("the size of the set says which update is made") {
  CHECK(outer_kind_of(true, 0) == outer_kind::alone);
  CHECK(outer_kind_of(true, 1) == outer_kind::alone);
  CHECK(outer_kind_of(false, 0) == outer_kind::lost);
  CHECK(outer_kind_of(false, 1) == outer_kind::single);
  CHECK(outer_kind_of(false, 2) == outer_kind::momentum);
  CHECK(outer_kind_of(false, 30) == outer_kind::momentum);
}

TEST_CASE("a lost round leaves weights and velocity, a single contribution the velocity") {
  const unit_layout layout{{{"norm.weight", {2}}}};
  outer_state state{{{1.0f, 2.0f}}, {{0.5f, 0.25f}}};
  auto kind = outer_step(layout, {}, {}, {}, 0, state);
  REQUIRE(static_cast<bool>(kind));
  CHECK(*kind == outer_kind::lost);
  CHECK(state.w == unit_values{{1.0f, 2.0f}});
  CHECK(state.v == unit_values{{0.5f, 0.25f}});
  const held_values delta({{0.25f, -0.5f}});
  kind = outer_step(layout, {given(1, delta)}, {}, {}, 0, state);
  REQUIRE(static_cast<bool>(kind));
  CHECK(state.w == unit_values{{1.25f, 1.5f}});
  CHECK(state.v == unit_values{{0.5f, 0.25f}});
}

TEST_CASE("an outer step that fails changes nothing") {
  const unit_layout layout{{{"norm.weight", {2}}}};
  outer_state state{{{1.0f, 2.0f}}, {}};
  const held_values good({{0.25f, -0.5f}});
  const held_values bad({{0.25f, std::numeric_limits<float>::quiet_NaN()}});
  const held_values shorter(unit_values{std::vector<float>{0.25f}});
  CHECK_FALSE(static_cast<bool>(outer_step(layout, {given(1, good), given(2, bad)}, {}, {}, 0, state)));
  CHECK_FALSE(static_cast<bool>(outer_step(layout, {given(1, good), given(2, shorter)}, {}, {}, 0, state)));
  CHECK_FALSE(static_cast<bool>(outer_step(layout, {given(1, good), given(1, good)}, {}, {}, 0, state)));
  CHECK(state.w == unit_values{{1.0f, 2.0f}});
  CHECK(state.v.empty());
  outer_state wrong{{{1.0f}}, {}};
  CHECK_FALSE(static_cast<bool>(outer_step(layout, {given(1, good)}, {}, {}, 0, wrong)));
}
