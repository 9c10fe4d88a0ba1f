// Stops and kills at every moment of a step and of a checkpoint.
#include "actors/proof_keeper/gradient_commitment.hpp"
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
                  "work whose checkpoint is on disk is offered again after a kill, once proven not") {
  options.enabled = false;
  options.diloco_steps = 10'000;
  spawn();
  start();
  run_to(9); // a checkpoint of step 7 is on disk
  const auto most = take_work{1'000'000, 1'000};
  CHECK(ask<offered_work>(*this, loop, most)->step_end == 9);
  kill(); // before the proof was recorded

  spawn();
  CHECK(start().state.inner_step == 7);
  const auto again = ask<offered_work>(*this, loop, most);
  CHECK(again->step_begin == 0);
  CHECK(again->step_end == 7);
  CHECK(again->label_tokens == 7 * 64);
  CHECK(commitment_of(money->preimages.front()) == again->commitment);
  // The ledger may never have heard of the checkpoint.
  CHECK(money->noted.back().model_hash == again->segments.front().model_hash);
  caf::anon_send(loop, work_proven{0, 7});
  run_to(16);
  CHECK(ask<offered_work>(*this, loop, most)->step_begin == 7);
  kill();
  // The checkpoint of step 14 was written when the first seven steps were proven.
  spawn();
  CHECK(start().state.inner_step == 14);
  CHECK(ask<offered_work>(*this, loop, most)->step_begin == 7);
}

namespace {

/// A worker that cannot sample gradients for so many requests.
caf::behavior forgetful_worker(caf::stateful_actor<layer_worker_actor>* self, layer_worker_actor behind,
                               std::shared_ptr<int> refusals) {
  self->state = behind;
  self->set_default_handler(
      [self](caf::scheduled_actor*, caf::message_view& view) -> caf::result<caf::message> {
        return self->delegate(caf::actor_cast<caf::actor>(self->state), view.move_content_to_message());
      });
  return {[self, refusals](const sample_gradient& r) -> caf::result<gradient_sample_ptr> {
    if ((*refusals)-- > 0)
      return refuse(errc::internal, "the device is busy");
    return self->delegate(self->state, r);
  }};
}

} // namespace

TEST_CASE_FIXTURE(node_fixture,
                  "a step whose gradient cannot be sampled counts, and the next one begins the work") {
  options.enabled = false;
  options.diloco_steps = 10'000;
  const auto refusals = std::make_shared<int>(2);
  between = [&](layer_worker_actor real) {
    return caf::actor_cast<layer_worker_actor>(keep(sys.spawn(forgetful_worker, real, refusals)));
  };
  spawn();
  start();
  run_to(5);
  const auto work = ask<offered_work>(*this, loop, take_work{1'000'000, 1'000});
  CHECK(work->step_begin == 2);
  CHECK(work->step_end == 5);
}
