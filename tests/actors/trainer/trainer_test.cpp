#include "actors/proof_keeper/gradient_commitment.hpp"
#include "tests/actors/trainer/node_fixture.hpp"

#include <cmath>

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(node_fixture, "the loss falls, rounds end, and everything that is due is done") {
  options.enabled = false;
  spawn();
  start();
  sched.run();
  const auto before = progress();
  CHECK(before->inner_step == 0);
  REQUIRE(before->untrained_loss);
  CHECK(*before->untrained_loss == doctest::Approx(std::log(266)).epsilon(0.05));
  CHECK_FALSE(before->trained);
  run_to(60);
  const auto p = progress();
  CHECK(p->outer_step == 6);
  CHECK(p->steps_in_round == 0);
  CHECK(p->tokens_trained == 60 * 64);
  CHECK(*p->validation_loss < *p->untrained_loss - 1);
  CHECK(p->trained);
  CHECK(p->loss_history.size() == 6);
  CHECK(p->outer_model_hash.size() == 64);
  CHECK(p->batch_size == 4);
  CHECK(p->grad_norm > 0);
  CHECK_FALSE(p->shards_covered.empty());
  CHECK_FALSE(p->running);
  CHECK(counters->training_steps == 60);
  CHECK(counters->training_tokens == 60 * 64);
  CHECK(root.read("training_logs/loss.jsonl").find("\"step\":60,") != std::string::npos);
  // The copy that is served is of the last outer step.
  auto served = ask<serving_info>(*this, worker, session_copy{});
  CHECK(served->model_version == 6);
  CHECK(served->inner_step == 60);
}

TEST_CASE_FIXTURE(node_fixture, "every step is offered for a proof once, after the outer step before it") {
  options.enabled = false;
  spawn();
  start();
  run_to(33);
  REQUIRE(money->noted.size() == 4); // steps 0, 10, 20, 30
  const auto work = ask<offered_work>(*this, loop, take_work{1'000'000, 1'000});
  REQUIRE(work);
  CHECK(work->step_begin == 0);
  CHECK(work->step_end == 33);
  CHECK(work->label_tokens == 33 * 64);
  REQUIRE(work->segments.size() == 4);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(work->segments[i].model_hash == money->noted[i].model_hash);
    CHECK(work->segments[i].step_begin == money->noted[i].step);
  }
  // What its first step is committed to went to the ledger before.
  REQUIRE_FALSE(money->preimages.empty());
  CHECK(commitment_of(money->preimages.front()) == work->commitment);
  const auto preimage = decode_preimage(money->preimages.front());
  REQUIRE(preimage);
  CHECK(preimage->model_hash == money->noted[0].model_hash);
  CHECK(preimage->data_hash == work->data_hash);
  CHECK(preimage->loss_e6 == work->loss_e6);
  CHECK(preimage->batch_size == 4);
  CHECK(preimage->seq_len == 16);
  CHECK(static_cast<double>(work->loss_e6) / 1e6 == doctest::Approx(losses.at(1)).epsilon(1e-5));
  REQUIRE(preimage->unit_norms_e6.size() == 4); // embed, two layers, head
  double square = 0;
  for (const auto& [unit, norm] : preimage->unit_norms_e6)
    square += static_cast<double>(norm) * static_cast<double>(norm);
  CHECK(std::sqrt(square) == doctest::Approx(static_cast<double>(work->gradient_norm_e6)).epsilon(1e-4));
  caf::anon_send(loop, work_proven{0, 33});
  CHECK(ask<offered_work>(*this, loop, take_work{1'000'000, 1'000})->step_end == 0);
}

TEST_CASE_FIXTURE(node_fixture, "a stop finishes the step, writes a checkpoint and answers") {
  spawn();
  std::optional<asked<caf::unit_t, decltype(self->request(loop, caf::infinite, stop_training{}))>> stopping;
  watch = [&](const training_progress& p) {
    if (p.inner_step == 4 && !stopping)
      stopping.emplace(ask_later<caf::unit_t>(*this, loop, stop_training{}));
  };
  start();
  sched.run();
  REQUIRE(stopping);
  CHECK(stopping->receive());
  const auto p = progress();
  CHECK(p->inner_step >= 4);
  CHECK_FALSE(p->running);
  kill();
  watch = {};
  options.enabled = false;
  spawn();
  CHECK(start().state.inner_step == p->inner_step);
}

TEST_CASE_FIXTURE(node_fixture, "a step that takes too long is dropped when the node stops") {
  stage.slice_flops = 1e3; // very many slices
  options.enabled = false;
  spawn();
  start();
  sched.run();
  caf::anon_send(loop, set_training{true});
  while (losses.size() < 2)
    REQUIRE(sched.try_run_once());
  // The testing scheduler lets an actor go on while it has messages: the trainer begins the third step, hears
  // of the stop, and only then the worker has its turn.
  auto stopping = ask_later<caf::unit_t>(*this, loop, stop_training{1'000'000});
  for (int i = 0; i < 3; ++i)
    REQUIRE(sched.try_run_once());
  clock->advance_s(2);
  sched.advance_time(std::chrono::seconds(2));
  sched.run();
  CHECK(stopping.receive());
  CHECK(progress()->inner_step == 2);
  CHECK(list_folder(root.path() + "/checkpoints").front().inner_step == 2);
}

TEST_CASE_FIXTURE(node_fixture, "stopping before the start, or twice, is answered") {
  spawn();
  CHECK(ask<caf::unit_t>(*this, loop, stop_training{}));
  CHECK(ask<caf::unit_t>(*this, loop, stop_training{}));
  CHECK(ask<caf::unit_t>(*this, loop, start_atom_v, restored{}).code() == errc::failed_precondition);
}

TEST_CASE_FIXTURE(node_fixture, "changes take effect at the next step, a round's length at the next round") {
  options.enabled = false;
  spawn();
  start();
  run_to(2);
  REQUIRE(ask<caf::unit_t>(*this, loop, training_patch{1e-3, 2, 3}));
  run_to(3);
  auto p = progress();
  CHECK(p->tokens_trained == 2 * 64 + 32);
  CHECK(p->batch_size == 2);
  CHECK(p->learning_rate == doctest::Approx(1e-3 * 3 / 5));
  CHECK(p->diloco_steps == 10);
  run_to(13);
  p = progress();
  CHECK(p->diloco_steps == 3);
  CHECK(p->outer_step == 2);
}

TEST_CASE_FIXTURE(node_fixture, "a checkpoint is written when 120 s have passed and something changed") {
  options.enabled = false;
  options.checkpoint_every_steps = 1'000'000;
  options.diloco_steps = 10'000;
  spawn();
  start();
  run_to(2);
  CHECK(list_folder(root.path() + "/checkpoints").size() == 1);
  clock->advance_s(121);
  run_to(3);
  const auto found = list_folder(root.path() + "/checkpoints");
  REQUIRE(found.size() == 2);
  CHECK(found.front().inner_step == 2);
}

TEST_CASE_FIXTURE(node_fixture, "the serving copy follows training every refresh_s, and when it is paused") {
  options.enabled = false;
  options.diloco_steps = 10'000;
  spawn();
  start();
  const auto copy = [this] {
    const auto found = ask<serving_info>(*this, worker, session_copy{});
    REQUIRE(found);
    return *found;
  };
  const auto first = copy().copy_id;
  run_to(3); // and pauses there
  CHECK(copy().inner_step == 3);
  CHECK(copy().copy_id == first + 1);
  run_to(5);
  CHECK(copy().inner_step == 5);
  CHECK(copy().copy_id == first + 2);
  clock->advance_s(31);
  run_to(8); // once on the way, at a step boundary
  CHECK(copy().inner_step == 8);
  CHECK(copy().copy_id == first + 4);
}

TEST_CASE_FIXTURE(
    node_fixture,
    "ten non-finite steps in a row reload the last checkpoint, and at last training stands still") {
  options.enabled = false;
  options.optimizer = {1e30, 0, 500}; // a rate that destroys the weights in one step
  worker_options.optimizer = options.optimizer;
  options.checkpoint_every_steps = 1'000'000;
  options.diloco_steps = 10'000;
  spawn();
  start();
  caf::anon_send(loop, set_training{true});
  sched.run();
  const auto p = progress();
  CHECK_FALSE(p->error.empty());
  CHECK_FALSE(p->enabled);
  CHECK(counters->training_skipped >= 10);
  CHECK(ask<actor_status>(*this, loop, status_atom_v)->state == actor_status::health::error);
}

TEST_CASE_FIXTURE(node_fixture, "a batch larger than the stage takes at once is cut smaller") {
  options.enabled = false;
  options.batch_size = 9;
  options.microbatches = 1;
  spawn();
  start();
  run_to(2);
  CHECK(progress()->tokens_trained == 2 * 9 * 16);
}

TEST_CASE_FIXTURE(node_fixture,
                  "without data the trainer makes its first checkpoint, then idles and says why") {
  data = nullptr;
  options.enabled = false;
  spawn();
  start();
  sched.run();
  CHECK(list_folder(root.path() + "/checkpoints").size() == 1);
  CHECK(progress()->error.empty());
  REQUIRE(ask<caf::unit_t>(*this, loop, set_training{true}));
  sched.run();
  CHECK(progress()->error.find("nothing to train on") != std::string::npos);
  CHECK_FALSE(progress()->running);
  CHECK(progress()->inner_step == 0);
  CHECK(ask<actor_status>(*this, loop, status_atom_v)->state == actor_status::health::degraded);
  REQUIRE(ask<caf::unit_t>(*this, loop, set_training{false}));
  CHECK(progress()->error.empty());
  CHECK(ask<caf::unit_t>(*this, loop, stop_training{}));
}

TEST_CASE_FIXTURE(
    node_fixture,
    "a node that only serves holds no f32 weights, and asks for another stage when told to train") {
  options.enabled = false;
  spawn();
  start();
  run_to(3);
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  kill();
  const auto before = list_folder(root.path() + "/checkpoints").size();
  options.serves_only = true;
  stage.train = false;
  const auto master_bytes = [&] {
    auto plan = ask<memory_plan_ptr>(*this, worker, plan_atom_v);
    REQUIRE(plan);
    CHECK((*plan)->bytes[1].first == "master");
    return (*plan)->bytes[1].second;
  };
  spawn();
  CHECK(start().state.inner_step == 3);
  CHECK(progress()->validation_loss.has_value());
  CHECK(master_bytes() == 0);
  REQUIRE(ask<caf::unit_t>(*this, loop, set_training{true}));
  CHECK(renewals == 1);
  CHECK_FALSE(progress()->enabled);
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  CHECK(list_folder(root.path() + "/checkpoints").size() == before);
  CHECK(counters->training_skipped == 0);
  kill();
  // Without a checkpoint it makes its first one before it lets go.
  spawn("empty");
  CHECK_FALSE(start().found);
  sched.run();
  CHECK(list_folder(root.path() + "/empty").size() == 1);
  CHECK(progress()->outer_model_hash.size() == 64);
  CHECK(master_bytes() == 0);
}

namespace {

/// A worker whose device has memory for so many sequences of a micro-batch and no more.
caf::behavior narrow_worker(caf::stateful_actor<layer_worker_actor>* self, layer_worker_actor behind,
                            std::shared_ptr<int64_t> rows_max) {
  self->state = behind;
  self->set_default_handler(
      [self](caf::scheduled_actor*, caf::message_view& view) -> caf::result<caf::message> {
        return self->delegate(caf::actor_cast<caf::actor>(self->state), view.move_content_to_message());
      });
  return {[self, rows_max](const forward_request& r) -> caf::result<forward_reply> {
    if (r.mode == forward_mode::train && r.token_ids.view.shape[0] > *rows_max) {
      problem what;
      what.reason = "out_of_memory";
      what.message = "the device has no memory for this";
      return refuse(errc::overloaded, std::move(what));
    }
    return self->delegate(self->state, r);
  }};
}

} // namespace

TEST_CASE_FIXTURE(node_fixture,
                  "out of memory halves the batch, and it stays so until another is asked for") {
  options.enabled = false;
  options.batch_size = 2; // what the larger one is to become
  options.diloco_steps = 10'000;
  spawn("small-from-the-start");
  start();
  run_to(4);
  const auto expected = losses;
  kill();
  losses.clear();

  options.batch_size = 8;
  auto rows_max = std::make_shared<int64_t>(1); // of a micro-batch; there are two of them
  between = [&](layer_worker_actor real) {
    return caf::actor_cast<layer_worker_actor>(keep(sys.spawn(narrow_worker, real, rows_max)));
  };
  spawn();
  start();
  run_to(4);
  CHECK(progress()->batch_size == 2); // 8, 4, 2
  CHECK(losses == expected);          // no step is lost to it, and none trained with half of its data
  CHECK(counters->training_skipped == 0);
  // Kept over a start, though the memory is there again.
  REQUIRE(ask<caf::unit_t>(*this, loop, stop_training{}));
  kill();
  *rows_max = 100;
  spawn();
  start();
  CHECK(progress()->batch_size == 2);
  run_to(5);
  training_patch patch;
  patch.batch_size = 4;
  REQUIRE(ask<caf::unit_t>(*this, loop, patch));
  run_to(6);
  CHECK(progress()->batch_size == 4);
  // Not even one sequence: it says so and stands still, and the node goes on.
  *rows_max = 0;
  caf::anon_send(loop, set_training{true});
  sched.run();
  CHECK(progress()->batch_size == 1);
  CHECK(progress()->inner_step == 6);
  CHECK_FALSE(progress()->running);
  CHECK(progress()->error.find("does not fit in memory") != std::string::npos);
  CHECK(ask<actor_status>(*this, loop, status_atom_v)->state == actor_status::health::error);
}
