#include "tests/actors/trainer/node_fixture.hpp"

namespace neuroshard::test {

namespace {

/// A node whose rounds end in an outer loop that does what a test says.
struct round_fixture : node_fixture {
  std::vector<begin_round> begun;
  std::vector<finish_round> finished;
  std::function<caf::result<round_outcome>(const finish_round&)> finish = [](const finish_round& share) {
    round_outcome outcome;
    outcome.round = share.round;
    return outcome;
  };

  round_fixture() {
    options.enabled = false;
    options.diloco_steps = 6;
    outer = keep(sys.spawn([this](outer_loop_actor::pointer) -> outer_loop_actor::behavior_type {
      return {[this](const begin_round& round) -> caf::result<void> {
                begun.push_back(round);
                return caf::unit;
              },
              [this](const finish_round& share) {
                finished.push_back(share);
                return finish(share);
              },
              [](const restore_outer_state&) -> caf::result<void> { return caf::unit; }};
    }));
  }
};

} // namespace

TEST_CASE_FIXTURE(round_fixture, "the outer loop hears where each round begins and what was done in it") {
  spawn();
  start();
  run_to(13);
  REQUIRE(begun.size() == 3);
  CHECK(begun[0].base == 0);
  CHECK(begun[2].base == 2);
  REQUIRE(finished.size() == 2);
  CHECK(finished[1].round == 2);
  CHECK(finished[1].drives);
  CHECK(finished[1].inner_steps == 6);
  CHECK(finished[1].tokens == 6 * 4 * 16);
  CHECK(finished[1].loss ==
        doctest::Approx((losses[7] + losses[8] + losses[9] + losses[10] + losses[11] + losses[12]) / 6));
  CHECK(progress()->outer_step == 2);
  CHECK(progress()->inner_step == 13);
}

TEST_CASE_FIXTURE(
    round_fixture,
    "a round that another driver ends is left after the step in hand, and steps count on as his") {
  finish = [](const finish_round& share) {
    round_outcome outcome;
    outcome.round = share.round;
    outcome.how = round_end_kind::updated;
    outcome.members = 2;
    outcome.tokens = 999;
    return outcome;
  };
  watch = [this](const training_progress& p) {
    if (p.inner_step == 2 && p.outer_step == 0)
      caf::anon_send(loop, round_ends{1});
  };
  spawn();
  start();
  run_to(8);
  REQUIRE(finished.size() >= 1);
  CHECK(finished[0].round == 1);
  CHECK(finished[0].inner_steps >= 2);
  CHECK(finished[0].inner_steps < 6);
  CHECK(progress()->outer_step == 1);
  CHECK(progress()->steps_in_round == 2); // the second round's first step is number 7
  CHECK(progress()->tokens_trained == 999 + 2 * 4 * 16);
}

TEST_CASE_FIXTURE(round_fixture, "a node without steps of its own takes the outer step with the others") {
  options.drives = false;
  shared = true;
  spawn();
  start();
  sched.run();
  REQUIRE(begun.size() == 1);
  CHECK(finished.empty());
  SUBCASE("when it has done nothing") {
    caf::anon_send(loop, round_ends{1});
    sched.run();
    REQUIRE(finished.size() == 1);
    CHECK(finished[0].inner_steps == 0);
    CHECK_FALSE(finished[0].drives);
    CHECK(progress()->outer_step == 1);
    CHECK(progress()->inner_step == 6);
    CHECK(begun.size() == 2);
    caf::anon_send(loop, round_ends{1}); // heard again
    sched.run();
    CHECK(finished.size() == 1);
  }
  SUBCASE("not before its driver releases it, but at most half a minute later") {
    forward_request bind;
    bind.header = {"request-of-binding", "a-driver", 0, options.architecture_id, 0};
    bind.mode = forward_mode::bind;
    bind.layer_end = 2;
    REQUIRE(ask<forward_reply>(*this, worker, bind));
    caf::anon_send(loop, round_ends{1});
    sched.run();
    CHECK(finished.empty());
    bool released = false;
    SUBCASE("released") {
      backward_request release;
      release.header.session_id = "a-driver";
      release.action = backward_action::release;
      REQUIRE(ask<backward_reply>(*this, worker, release));
      released = true;
    }
    SUBCASE("forgotten") {}
    for (int i = 0; i < (released ? 5 : 200) && finished.empty(); ++i) {
      clock->advance_us(200'000);
      sched.advance_time(std::chrono::milliseconds(200));
      sched.run();
    }
    CHECK(finished.size() == 1);
  }
}

TEST_CASE_FIXTURE(round_fixture,
                  "while others hold parts of the model, serving copies are of outer steps alone") {
  shared = true;
  options.refresh_s = 1;
  watch = [this](const training_progress&) { clock->advance_s(1); };
  spawn();
  start();
  run_to(5);
  const auto copy = ask<serving_info>(*this, worker, session_copy{});
  REQUIRE(copy);
  CHECK(copy->inner_step == 0);
  run_to(8);
  const auto next = ask<serving_info>(*this, worker, session_copy{});
  REQUIRE(next);
  CHECK(next->model_version == 1);
  CHECK(next->inner_step == 6);
}

TEST_CASE_FIXTURE(round_fixture, "an outer step that cannot be taken stops training and says why") {
  finish = [](const finish_round&) -> caf::result<round_outcome> {
    return refuse(errc::storage, "the disk is full");
  };
  spawn();
  start();
  pause_at = 20;
  caf::anon_send(loop, set_training{true});
  sched.run();
  CHECK(progress()->inner_step == 6);
  CHECK(progress()->error == "the outer step could not be taken: the disk is full");
}

TEST_CASE_FIXTURE(round_fixture,
                  "a node restarted in the middle of a round ends it with the weights it has") {
  spawn();
  start();
  run_to(9);
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  kill();
  begun.clear();
  finished.clear();
  spawn();
  REQUIRE(start().found);
  run_to(20);
  CHECK(progress()->outer_step == 3);
  REQUIRE(begun.size() == 2); // not in the round it came back to
  CHECK(begun[0].base == 2);
  REQUIRE(finished.size() == 1);
  CHECK(finished[0].round == 3);
}

TEST_CASE_FIXTURE(round_fixture,
                  "a node restarted in the middle of a round stays in it where its base was kept") {
  outer_tensors base;
  std::optional<restore_outer_state> given_back;
  outer_state = keep(sys.spawn([&](outer_state_actor::pointer) -> outer_state_actor::behavior_type {
    return {[&](const read_outer_state&) { return base; },
            [&](const restore_outer_state& what) -> caf::result<void> {
              given_back = what;
              return caf::unit;
            }};
  }));
  spawn();
  start();
  auto view = ask<snapshot_opened>(*this, worker, open_snapshot{false});
  REQUIRE(view);
  for (const auto& entry : view->tensors) {
    auto tensor = ask<tensor_handle>(*this, worker, read_snapshot{view->snapshot_id, entry.name});
    REQUIRE(tensor);
    base.tensors.push_back({"diloco.w0/" + entry.name, *tensor});
  }
  run_to(9);
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  kill();
  begun.clear();
  finished.clear();
  spawn();
  REQUIRE(start().found);
  REQUIRE(given_back);
  CHECK(given_back->tensors.size() == base.tensors.size());
  run_to(13);
  REQUIRE(begun.size() == 2);
  CHECK(begun[0].base == 1);
  REQUIRE(finished.size() == 1);
  CHECK(finished[0].round == 2);
  CHECK(finished[0].inner_steps == 6);
  CHECK(finished[0].tokens == 6 * 4 * 16);
  CHECK(finished[0].loss > 0);
  kill(); // who refers to this frame
}

TEST_CASE_FIXTURE(round_fixture, "a node stopped with the last step of a round goes on after it") {
  bool told = false;
  watch = [&](const training_progress& p) {
    if (p.inner_step == 6 && !std::exchange(told, true))
      caf::anon_send(loop, stop_training{});
  };
  spawn();
  start();
  pause_at = 100;
  caf::anon_send(loop, set_training{true});
  sched.run();
  kill();
  watch = {};
  pause_at.reset();
  spawn();
  REQUIRE(start().found);
  run_to(15);
  CHECK(progress()->error.empty());
  CHECK(progress()->outer_step == 2);
}

} // namespace neuroshard::test
