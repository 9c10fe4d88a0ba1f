#include "actors/common/learning_rate.hpp"
#include "actors/layer_worker/training_binding.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;

namespace {

constexpr int64_t second = 1'000'000;

std::string reason(const caf::error& e) {
  return e ? problem_of(e).reason : "";
}

training_binding bound() {
  training_binding b;
  REQUIRE_FALSE(b.bind("me", 0, 0));
  return b;
}

} // namespace

TEST_CASE("the learning rate follows the schedule of the specification") {
  const auto rate = [](uint64_t s) { return learning_rate_at(1e-4, 1000, 50000, s); };
  CHECK(rate(0) == rate(1));
  CHECK(rate(1) == doctest::Approx(1e-7));
  CHECK(rate(500) == doctest::Approx(5e-5));
  CHECK(rate(1000) == doctest::Approx(1e-4));
  CHECK(rate(25000) == doctest::Approx(5.64e-5).epsilon(0.001));
  CHECK(rate(50000) == doctest::Approx(1e-5));
  CHECK(rate(1'000'000'000) == doctest::Approx(1e-5));
  const auto pico = [](uint64_t s) { return learning_rate_at(2e-3, 100, 3000, s); };
  CHECK(pico(50) == doctest::Approx(1e-3));
  CHECK(pico(100) == doctest::Approx(2e-3));
  CHECK(pico(1550) == doctest::Approx(1.1e-3));
  CHECK(pico(3000) == doctest::Approx(2e-4));
  CHECK(learning_rate_at(1, 0, 10, 1) > 0.9);
  CHECK(learning_rate_at(1, 10, 10, 10) == doctest::Approx(0.1));
}

TEST_CASE("a stage serves one driver at a time, until it has been silent for 120 s") {
  auto b = bound();
  CHECK(reason(b.bind("other", 0, 119 * second)) == "busy_pipeline");
  CHECK_FALSE(b.bind("me", 3, 119 * second));
  CHECK(reason(b.bind("other", 0, 238 * second)) == "busy_pipeline");
  CHECK_FALSE(b.bind("other", 0, 239 * second));
  CHECK(reason(b.heard("me", 239 * second)) == "not_bound");
  CHECK_FALSE(b.expire(358 * second));
  CHECK(b.expire(359 * second));
  CHECK_FALSE(b.bound());
  CHECK(reason(b.heard("other", 359 * second)) == "not_bound");
  CHECK(b.bind("", 0, 0));
  CHECK(b.bind(std::string(65, 'x'), 0, 0));
}

TEST_CASE("micro-batches are run once, in any order, and the step is ready with all of them") {
  auto b = bound();
  CHECK_FALSE(b.may_forward(1, 2));
  b.forwarded(1, 2, true);
  b.accumulated(1, 2);
  CHECK_FALSE(b.ready());
  CHECK(reason(b.may_commit(1)) == "not_ready");
  CHECK(reason(b.may_forward(1, 2)) == "duplicate_microbatch");
  CHECK(reason(b.may_forward(1, 3)) == "step");
  b.forwarded(1, 0, false);
  b.forwarded(1, 1, false);
  b.accumulated(1, 0);
  CHECK_FALSE(b.ready());
  b.accumulated(1, 1);
  CHECK(b.ready());
  CHECK_FALSE(b.may_commit(1));
  CHECK(reason(b.may_commit(2)) == "not_ready");
  b.committed(1);
  CHECK(b.committed_before(1));
  CHECK(b.inner_steps() == 1);
  CHECK(reason(b.may_forward(1, 0)) == "step");
  CHECK_FALSE(b.under_way());
}

TEST_CASE("a later step commits a ready one first, and is refused while it is not ready") {
  auto b = bound();
  b.forwarded(1, 0, false);
  b.accumulated(1, 0);
  CHECK(reason(b.may_forward(2, 0)) == "step");
  CHECK_FALSE(b.commits_first(2));
  b.forwarded(1, 1, true);
  b.accumulated(1, 1);
  CHECK(b.commits_first(2));
  CHECK_FALSE(b.may_forward(2, 0));
  CHECK_FALSE(b.commits_first(1));
}

TEST_CASE("a discarded step can be formed again under the same number") {
  auto b = bound();
  b.forwarded(5, 0, true);
  b.discard();
  CHECK_FALSE(b.may_forward(5, 0));
  CHECK(b.last_committed() == 0);
}
