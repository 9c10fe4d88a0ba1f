// What a proof commits to of a gradient: when it can be asked for.
#include "tests/actors/layer_worker/worker_fixture.hpp"

#include <cmath>
#include <limits>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

sample_gradient sample_of(uint64_t step, std::vector<uint64_t> draws = {0, 1, 2, 1'000'000}) {
  return {"trainer", step, std::move(draws)};
}

} // namespace

TEST_CASE_FIXTURE(worker_fixture, "a step that is ready is sampled, as often as asked, and then committed") {
  bind();
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1)).reason() == "not_ready");
  REQUIRE(ask<forward_reply>(*this, worker, train(1, 0, false, 0.5F)));
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1)).reason() == "not_ready");
  auto ready = ask<forward_reply>(*this, worker, train(1, 1, true, 0.5F));
  REQUIRE(ready);
  auto once = ask<gradient_sample_ptr>(*this, worker, sample_of(1));
  REQUIRE(once);
  const auto& told = **once;
  REQUIRE(told.unit_norms.size() == 4);
  CHECK(told.unit_norms[0].first == "embed");
  CHECK(told.unit_norms[1].first == "layer.0");
  CHECK(told.unit_norms[2].first == "layer.1");
  CHECK(told.unit_norms[3].first == "head");
  double squares = 0;
  for (const auto& [unit, norm] : told.unit_norms)
    squares += norm * norm;
  CHECK(squares == doctest::Approx(ready->report.grad_norm_sq).epsilon(1e-9));
  CHECK(told.values.size() == 4);
  auto again = ask<gradient_sample_ptr>(*this, worker, sample_of(1));
  REQUIRE(again);
  CHECK((*again)->values == told.values);
  CHECK((*again)->unit_norms == told.unit_norms);
  auto committed = ask<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  REQUIRE(committed);
  CHECK(committed->report.grad_norm_sq == ready->report.grad_norm_sq);
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1)).reason() == "not_ready");
}

TEST_CASE_FIXTURE(worker_fixture, "another's, another step's and too large a sample are refused") {
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1)).reason() == "not_bound");
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto other = sample_of(1);
  other.session_id = "other";
  CHECK(ask<gradient_sample_ptr>(*this, worker, other).reason() == "not_bound");
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(2)).reason() == "not_ready");
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(0)).code() == errc::failed_precondition);
  auto large = ask<gradient_sample_ptr>(*this, worker, sample_of(1, std::vector<uint64_t>(4097)));
  CHECK(large.code() == errc::invalid_request);
  CHECK(problem_of(large.refused).field == "draws");
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1, std::vector<uint64_t>(4096))));
  REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::discard, 1)));
  CHECK(ask<gradient_sample_ptr>(*this, worker, sample_of(1)).reason() == "not_ready");
}

TEST_CASE_FIXTURE(worker_fixture, "a sample comes before the step that commits, and goes with a DISCARD") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto next = ask_later<forward_reply>(*this, worker, train(2)); // commits step 1 first
  auto sampled = ask<gradient_sample_ptr>(*this, worker, sample_of(1));
  CHECK(sampled);
  CHECK(next.receive());
  auto waiting = ask_later<gradient_sample_ptr>(*this, worker, sample_of(2));
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::discard, 2)));
  CHECK(waiting.receive().code() == errc::aborted);
  CHECK(ask<forward_reply>(*this, worker, train(2)));
}

TEST_CASE("a sample of a gradient that is not finite says so") {
  worker_fixture f(false);
  auto stage = tiny_stage();
  REQUIRE(stage->initialize(7).run().ok());
  auto* held = stage.get();
  f.worker = f.make(std::move(stage));
  f.bind();
  REQUIRE(ask<forward_reply>(f, f.worker, f.train(1)));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(held->write("embed.weight", model::parameter_part::gradient, 0, std::span(&nan, 1)).ok());
  auto sampled = ask<gradient_sample_ptr>(f, f.worker, sample_of(1));
  REQUIRE(sampled);
  CHECK(std::isnan((*sampled)->unit_norms[0].second));
  CHECK(std::isnan((*sampled)->values[0]));
  CHECK(std::isfinite((*sampled)->unit_norms[1].second));
}
