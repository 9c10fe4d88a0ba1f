// Stops and kills at every moment of a step and of a checkpoint.
#include "tests/actors/trainer/node_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(node_fixture, "stopped at any moment of a step, the checkpoint holds whole steps") {
  options.enabled = false;
  bool at_the_end = false;
  for (int messages = 0; !at_the_end; ++messages) {
    REQUIRE(messages < 400);
    losses.clear();
    spawn("stopped-" + std::to_string(messages));
    start();
    run_to(1);
    caf::anon_send(loop, set_training{true});
    for (int i = 0; i < messages; ++i)
      REQUIRE(sched.try_run_once());
    at_the_end = losses.contains(3);
    auto stopping = ask_later<caf::unit_t>(*this, loop, stop_training{0});
    sched.trigger_timeouts();
    sched.run();
    INFO("after ", messages, " messages");
    CHECK(stopping.receive());
    const auto step = progress()->inner_step;
    kill();
    spawn("stopped-" + std::to_string(messages));
    const auto found = start();
    CHECK(found.state.inner_step == step);
    CHECK(found.state.optimizer_step == step); // what the weights have seen
    CHECK(found.state.committed_steps == step);
    kill();
  }
}

TEST_CASE_FIXTURE(node_fixture, "a stop while a step is being skipped ends once and writes its checkpoint") {
  stage.slice_flops = 1e3;
  options.enabled = false;
  options.optimizer = {1e30, 0, 500}; // the second step is not finite
  worker_options.optimizer = options.optimizer;
  options.diloco_steps = 10'000;
  spawn();
  start();
  caf::anon_send(loop, set_training{true});
  while (counters->training_skipped == 0)
    REQUIRE(sched.try_run_once());
  auto stopping = ask_later<caf::unit_t>(*this, loop, stop_training{0});
  for (int i = 0; i < 3; ++i) {
    sched.try_run_once();
    clock->advance_s(1);
    sched.advance_time(std::chrono::seconds(1));
  }
  sched.run();
  CHECK(stopping.receive());
  CHECK_FALSE(progress()->running);
}

TEST_CASE_FIXTURE(node_fixture, "what was trained reaches the disk in time though training was paused") {
  options.enabled = false;
  options.diloco_steps = 10'000;
  spawn();
  start();
  run_to(3);
  clock->advance_s(121);
  sched.advance_time(std::chrono::seconds(121));
  sched.run();
  CHECK(list_folder(root.path() + "/checkpoints").front().inner_step == 3);
  CHECK_FALSE(progress()->running);
  run_to(4);
}

TEST_CASE_FIXTURE(node_fixture,
                  "work whose checkpoint is on disk is rewarded after a kill before the claim") {
  options.enabled = false;
  options.diloco_steps = 10'000;
  spawn();
  start();
  run_to(6);
  money->rewards.clear();
  pause_at = 9;
  caf::anon_send(loop, set_training{true});
  const auto folder = root.path() + "/checkpoints";
  while (list_folder(folder).front().inner_step != 7)
    REQUIRE(sched.try_run_once());
  caf::anon_send_exit(caf::actor_cast<caf::actor>(loop), caf::exit_reason::kill);
  caf::anon_send_exit(caf::actor_cast<caf::actor>(ledger), caf::exit_reason::kill);
  pause_at.reset();
  kill();
  CHECK(money->rewards.empty());

  spawn();
  CHECK(start().state.inner_step == 7);
  sched.run();
  REQUIRE(money->rewards.size() == 1);
  CHECK(money->rewards[0].step_begin == 0);
  CHECK(money->rewards[0].step_end == 7);
  CHECK(money->rewards[0].label_tokens == 7 * 64);
  // Started again from the same checkpoint: the same claim, which the ledger answers with the first payment.
  kill();
  spawn();
  start();
  run_to(14);
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  sched.run();
  REQUIRE(money->rewards.size() == 3);
  CHECK(money->rewards[1].step_begin == money->rewards[0].step_begin);
  CHECK(money->rewards[1].step_end == money->rewards[0].step_end);
  CHECK(money->rewards[1].label_tokens == money->rewards[0].label_tokens);
  CHECK(money->rewards[1].model_hash_start == money->rewards[0].model_hash_start);
  CHECK(money->rewards[2].step_begin == 7);
  CHECK(money->rewards[2].step_end == 14);
}

TEST_CASE("what a checkpoint may claim ends where the next outer step does, and follows what was claimed") {
  reward_claims claims;
  claims.begin(0, std::string(64, 'a'));
  CHECK_FALSE(claims.open());
  claims.step(1, 10);
  claims.saving(1);
  REQUIRE(claims.open());
  CHECK(claims.open()->step_end == 1);
  claims.step(2, 20);
  claims.saving(2, true); // ends a round; its outcome is not known yet
  claims.step(3, 40);
  claims.saving(3);
  const auto open = claims.open();
  REQUIRE(open);
  CHECK(open->step_begin == 0);
  CHECK(open->step_end == 2);
  CHECK(open->label_tokens == 30);
  REQUIRE(claims.saved(2, std::string(64, 'b')));
  CHECK(claims.open()->model_hash_start == std::string(64, 'b'));
  CHECK(claims.open()->step_begin == 2);
  CHECK(claims.open()->label_tokens == 40);
}
