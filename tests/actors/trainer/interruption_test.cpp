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

TEST_CASE("a checkpoint tells of all work that it holds, also of that after a round not yet on disk") {
  const std::string a(64, 'a');
  const std::string b(64, 'b');
  reward_claims claims;
  claims.begin(0, a);
  CHECK(claims.open().empty());
  claims.step(1, 10);
  claims.saving(1);
  REQUIRE(claims.open().size() == 1);
  CHECK(claims.open()[0].step_end == 1);
  claims.step(2, 20);
  claims.saving(2, true); // ends a round; its outcome is not known yet
  CHECK(claims.outer_under_way() == 2);
  claims.step(3, 40);
  claims.saving(3);
  const auto open = claims.open();
  REQUIRE(open.size() == 2);
  CHECK(open[0].model_hash_start == a);
  CHECK_FALSE(open[0].hash_of);
  CHECK(open[0].step_begin == 0);
  CHECK(open[0].step_end == 2);
  CHECK(open[0].label_tokens == 30);
  CHECK(open[1].hash_of == 2);
  CHECK(open[1].step_begin == 2);
  CHECK(open[1].step_end == 3);
  CHECK(open[1].label_tokens == 40);
  REQUIRE(claims.saved(2, b));
  REQUIRE(claims.open().size() == 1);
  CHECK(claims.open()[0].model_hash_start == b);
  CHECK(claims.open()[0].step_begin == 2);
  CHECK(claims.open()[0].label_tokens == 40);
  CHECK_FALSE(claims.outer_under_way());
}

TEST_CASE("a round whose checkpoint failed starts no range of its own") {
  reward_claims claims;
  claims.begin(0, std::string(64, 'a'));
  claims.step(1, 10);
  claims.saving(1, true);
  claims.failed(1);
  claims.step(2, 20);
  claims.saving(2);
  REQUIRE(claims.open().size() == 1);
  CHECK(claims.open()[0].step_begin == 0);
  CHECK(claims.open()[0].step_end == 2);
  CHECK(claims.open()[0].label_tokens == 30);
  CHECK_FALSE(claims.outer_under_way());
}

TEST_CASE_FIXTURE(node_fixture,
                  "after a start everything a checkpoint tells of is claimed, each part under its hash") {
  options.enabled = false;
  spawn();
  restored from;
  from.found = true;
  from.state = {};
  from.state.inner_step = 12;
  from.state.round_first_step = 10;
  from.state.outer_step = 1;
  from.state.outer_model_hash = std::string(64, 'b');
  from.state.unclaimed = {
      {std::string(64, 'a'), std::nullopt, 3, 10, 448},
      {std::string(64, 'b'), std::nullopt, 10, 12, 128},
      {std::string(64, 'b'), std::nullopt, 12, 99, 128}}; // of no checkpoint: not believed
  REQUIRE(ask<caf::unit_t>(*this, loop, start_atom_v, from));
  REQUIRE(money->rewards.size() == 2);
  CHECK(money->rewards[0].step_begin == 3);
  CHECK(money->rewards[0].step_end == 10);
  CHECK(kernels::to_hex(money->rewards[0].model_hash_start) == std::string(64, 'a'));
  CHECK(money->rewards[1].step_begin == 10);
  CHECK(money->rewards[1].step_end == 12);
  CHECK(kernels::to_hex(money->rewards[1].model_hash_start) == std::string(64, 'b'));
  // The ledger may never have heard of either checkpoint.
  REQUIRE(money->noted.size() == 2);
  CHECK(kernels::to_hex(money->noted[0].model_hash) == std::string(64, 'b'));
  CHECK(kernels::to_hex(money->noted[1].model_hash) == std::string(64, 'a'));
}
