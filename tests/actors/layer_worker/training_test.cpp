#include "tests/actors/layer_worker/worker_fixture.hpp"

#include <cmath>

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(worker_fixture, "a step is formed, committed, and the loss on the same batch falls") {
  bind();
  double first = 0;
  double last = 0;
  for (uint64_t step = 1; step <= 20; ++step) {
    auto forwarded = ask<forward_reply>(*this, worker, train(step));
    REQUIRE(forwarded);
    CHECK(forwarded->label_count == 16);
    CHECK(forwarded->report.ready);
    CHECK(forwarded->report.grad_norm_sq > 0);
    (step == 1 ? first : last) = forwarded->loss;
    auto committed = ask<backward_reply>(*this, worker, backward(backward_action::commit, step));
    REQUIRE(committed);
    CHECK(committed->inner_steps == step);
    CHECK(committed->report.optimizer_step == step);
  }
  CHECK(first == doctest::Approx(std::log(266)).epsilon(0.05));
  CHECK(last < first - 1);
}

TEST_CASE_FIXTURE(worker_fixture, "a repeated COMMIT gets the same answer and changes nothing") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto once = ask<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  auto twice = ask<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  REQUIRE(once);
  REQUIRE(twice);
  CHECK(once->inner_steps == twice->inner_steps);
  CHECK(once->report.grad_norm_sq == twice->report.grad_norm_sq);
  CHECK(twice->report.optimizer_step == 1);
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 2)).reason() == "not_ready");
}

TEST_CASE_FIXTURE(worker_fixture, "the binding's rules are the answers' reasons") {
  CHECK(ask<forward_reply>(*this, worker, train(1)).reason() == "not_bound");
  bind(3);
  CHECK(ask<forward_reply>(*this, worker, forward(forward_mode::bind, "other")).reason() == "busy_pipeline");
  CHECK(ask<forward_reply>(*this, worker, train(3)).reason() == "step");
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 4)).reason() == "not_ready");
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::discard, 4, "other")).reason() ==
        "not_bound");
  auto half = ask<forward_reply>(*this, worker, train(4, 0, false, 0.5F));
  REQUIRE(half);
  CHECK_FALSE(half->report.ready);
  CHECK(ask<forward_reply>(*this, worker, train(4, 0, false, 0.5F)).reason() == "duplicate_microbatch");
  CHECK(ask<forward_reply>(*this, worker, train(5)).reason() == "step");
  auto whole = ask<forward_reply>(*this, worker, train(4, 1, true, 0.5F));
  REQUIRE(whole);
  CHECK(whole->report.ready);
  // The next step's TRAIN comes before the COMMIT: it commits by itself.
  auto next = ask<forward_reply>(*this, worker, train(5));
  REQUIRE(next);
  CHECK(next->report.optimizer_step == 1);
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 4))->inner_steps == 1);
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::release, 0))->inner_steps == 1);
  CHECK(ask<forward_reply>(*this, worker, train(6)).reason() == "not_bound");
  clock->advance_s(1);
  CHECK(ask<forward_reply>(*this, worker, forward(forward_mode::bind, "other")));
}

TEST_CASE_FIXTURE(worker_fixture,
                  "a discarded step leaves nothing behind: doing it again gives the same numbers") {
  bind();
  auto once = ask<forward_reply>(*this, worker, train(1));
  REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::discard, 1)));
  auto twice = ask<forward_reply>(*this, worker, train(1));
  REQUIRE(once);
  REQUIRE(twice);
  CHECK(once->loss == twice->loss);
  CHECK(once->report.grad_norm_sq == twice->report.grad_norm_sq);
}

TEST_CASE_FIXTURE(worker_fixture,
                  "a step that is discarded while it runs is answered at once and can be done again") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, 1)));
  auto running = ask_later<forward_reply>(*this, worker, train(2));
  for (int i = 0; i < 5; ++i)
    sched.try_run_once();
  auto dropped = ask<backward_reply>(*this, worker, backward(backward_action::discard, 2));
  CHECK(dropped);
  CHECK(running.receive().code() == errc::aborted);
  CHECK(ask<forward_reply>(*this, worker, train(2)));
}

TEST_CASE_FIXTURE(worker_fixture, "malformed training work is refused by name and changes nothing") {
  bind();
  const auto refused = [&](forward_request r, const char* field) {
    auto answered = ask<forward_reply>(*this, worker, std::move(r));
    CHECK(answered.code() == errc::invalid_request);
    CHECK(problem_of(answered.refused).field == field);
  };
  auto r = train(1);
  r.token_ids = integers(std::vector<int32_t>(16, 320), 2, 8);
  refused(r, "token_ids");
  r = train(1);
  r.labels = integers(std::vector<int32_t>(16, -1), 2, 8);
  refused(r, "labels");
  r = train(1);
  r.labels = integers(std::vector<int32_t>(8, 20), 1, 8);
  refused(r, "labels");
  r = train(1);
  r.labels = {};
  refused(r, "labels");
  r = train(1);
  r.token_ids = {};
  refused(r, "token_ids");
  r = train(1);
  r.token_ids = integers(std::vector<int32_t>(65, 20), 1, 65);
  refused(r, "token_ids");
  r = train(1);
  r.loss_scale = 0;
  refused(r, "loss_scale");
  r = train(1);
  r.loss_scale = std::nanf("");
  refused(r, "loss_scale");
  r = train(1);
  r.sequence_lengths = {8, 9};
  refused(r, "sequence_lengths");
  r = train(1);
  r.layer_end = 1;
  CHECK(ask<forward_reply>(*this, worker, r).code() == errc::not_found);
  r = train(1);
  r.header.architecture_id = "0123456789abcdef";
  CHECK(ask<forward_reply>(*this, worker, r).reason() == "architecture");
  CHECK(ask<forward_reply>(*this, worker, train(1)));
}

TEST_CASE_FIXTURE(worker_fixture,
                  "a non-finite gradient is reported and the COMMIT refused with nothing changed") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, 1)));
  // Weights so large that the loss overflows.
  std::vector<float> huge(320 * 32, 3e38F);
  tensor_handle value;
  value.view = kernels::make_tensor(huge.data(), kernels::dtype::f32, {320, 32});
  REQUIRE(ask<caf::unit_t>(*this, worker, write_tensor{"head.weight", value}));
  REQUIRE(ask<caf::unit_t>(*this, worker, finish_load{1}));
  CHECK(ask<forward_reply>(*this, worker, train(2)).reason() == "not_bound"); // other weights are bound anew
  bind(1);
  CHECK(ask<forward_reply>(*this, worker, train(2)).reason() == "not_finite");
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 2)).reason() == "not_ready");
  CHECK(ask<forward_reply>(*this, worker, train(3)).reason() == "step"); // until it is discarded
  auto dropped = ask<backward_reply>(*this, worker, backward(backward_action::discard, 2));
  REQUIRE(dropped);
  CHECK(dropped->report.optimizer_step == 1);
}

TEST_CASE_FIXTURE(worker_fixture, "a decode is answered between two slices of a training step") {
  refresh();
  auto begun = ask<forward_reply>(*this, worker, prompt("chat", {1, 30, 31}));
  REQUIRE(begun);
  bind();
  auto training = ask_later<forward_reply>(*this, worker, train(1));
  sched.try_run_once(); // the request is queued
  sched.try_run_once(); // its first slice
  auto decoding = ask_later<forward_reply>(*this, worker, decode("chat", begun->sampled.front(), 3));
  int slices = 0;
  bool decoded_first = false;
  while (sched.try_run_once()) {
    ++slices;
    if (!self->mailbox().empty()) {
      // Whichever answer is there first: the decode's, long before the training step is through.
      auto answered = decoding.receive();
      decoded_first = static_cast<bool>(answered);
      break;
    }
  }
  CHECK(decoded_first);
  const int slices_of_decode = slices;
  while (sched.try_run_once())
    ++slices;
  CHECK(training.receive());
  CHECK(slices > slices_of_decode + 3);
}

TEST_CASE_FIXTURE(worker_fixture, "a driver that is silent for 120 s loses the binding") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  clock->advance_s(120);
  sched.advance_time(std::chrono::seconds(1));
  sched.run();
  CHECK(ask<forward_reply>(*this, worker, forward(forward_mode::bind, "other")));
}

TEST_CASE_FIXTURE(worker_fixture,
                  "DISCARD during a COMMIT is answered after it, with the step that it made") {
  bind();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto committing = ask_later<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  for (int i = 0; i < 4; ++i) // its first slices
    REQUIRE(sched.try_run_once());
  auto discarding = ask_later<backward_reply>(*this, worker, backward(backward_action::discard, 1));
  sched.run();
  CHECK(committing.receive()->report.optimizer_step == 1);
  CHECK(discarding.receive()->report.optimizer_step == 1);
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::discard, 2))->report.optimizer_step ==
        1);
  REQUIRE(ask<forward_reply>(*this, worker, train(2)));
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 2))->report.optimizer_step == 2);
}

TEST_CASE_FIXTURE(worker_fixture, "a driver whose micro-batch is being computed is not silent") {
  bind();
  auto training = ask_later<forward_reply>(*this, worker, train(1));
  for (int i = 0; i < 20; ++i)
    REQUIRE(sched.try_run_once());
  clock->advance_s(121);
  sched.advance_time(std::chrono::seconds(1));
  sched.run();
  CHECK(training.receive());
  CHECK(ask<backward_reply>(*this, worker, backward(backward_action::commit, 1)));
}
