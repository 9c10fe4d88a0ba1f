#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/ledger.hpp"
#include "actors/proof_keeper/proof_keeper.hpp"
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"

#include <caf/all.hpp>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

/// What the trainer has, and what it was asked.
struct work_script {
  offered_work work;
  double speed = 0; ///< label tokens a second
  std::vector<take_work> asked;
  std::vector<work_proven> proven;
};

trainer_actor::behavior_type scripted_trainer(trainer_actor::pointer, std::shared_ptr<work_script> s) {
  const auto unset = [] { return refuse(errc::unavailable, "not in this test"); };
  return {
      [=](start_atom, const restored&) -> caf::result<void> { return unset(); },
      [=](const set_training&) -> caf::result<void> { return unset(); },
      [=](const training_patch&) -> caf::result<void> { return unset(); },
      [=](progress_atom) -> training_progress_ptr {
        auto progress = std::make_shared<training_progress>();
        progress->tokens_per_second_best = s->speed;
        progress->batch_size = 4;
        progress->seq_len = 256;
        return progress;
      },
      [=](const stop_training&) -> caf::result<void> { return unset(); },
      [=](const take_work& most) {
        s->asked.push_back(most);
        return s->work;
      },
      [=](const work_proven& done) {
        s->proven.push_back(done);
        s->work = {};
      },
      [](const checkpoint_saved&) {},
      [](const checkpoint_failed&) {},
      [](const round_ends&) {},
      [](next_atom) {},
      [](tick_atom) {},
      [](status_atom) -> actor_status { return {}; },
  };
}

struct keeper_fixture
    : book_fixture,
      test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                          caf::id_block::neuroshard_ledger, caf::id_block::neuroshard_layer_worker,
                          caf::id_block::neuroshard_checkpointer, caf::id_block::neuroshard_peer_manager,
                          caf::id_block::neuroshard_trainer, caf::id_block::neuroshard_proof_keeper> {
  random_source_ptr random = std::make_shared<test::counting_random>();
  std::shared_ptr<work_script> script = std::make_shared<work_script>();
  std::shared_ptr<ledger_reader> at;
  proof_keeper_options how;
  ledger_actor ledger;
  trainer_actor trainer;
  proof_keeper_actor keeper;
  uint64_t next_step = 0;
  int64_t began_us = 0;

  /// Opens the book, with as much stake, and starts everything.
  void begin(neuro_amount stake = {}) {
    open();
    if (stake.atto > 0) {
      fund({2 * stake.atto});
      done(stake_neuro{stake, 30, {}});
    }
    done(note_checkpoint{architecture, digest_of("weights"), 0});
    began_us = clock->us;
    how.params = options.params;
    how.chain_id = book->chain_id();
    how.architecture_id = architecture;
    how.num_layers = 6;
    how.held = [] { return held_layers{0, 6, true, true}; };
    at = reader();
    ledger = keep(spawn_ledger(sys, std::move(book), options, false));
    trainer = keep(sys.spawn(scripted_trainer, script));
    start_keeper();
  }
  void start_keeper() {
    keeper = keep(sys.spawn(proof_keeper, how,
                            proof_keeper_parts{options.identity, trainer, ledger, {}, at, clock, random}));
    sched.run();
  }
  /// Seconds pass, a tick each.
  void pass(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      clock->advance_s(1);
      sched.advance_time(std::chrono::seconds(1));
      sched.run();
    }
  }
  void train(uint64_t steps) {
    auto& work = script->work;
    work.step_begin = next_step;
    work.step_end = next_step += steps;
    work.label_tokens = steps * 1'024;
    work.segments = {{digest_of("weights"), work.step_begin, work.step_end}};
    work.commitment = digest_of("gradient");
    work.data_hash = digest_of("data");
    work.loss_e6 = 4'000'000;
    work.gradient_norm_e6 = 1'000'000;
    work.batch_size = 4;
    work.seq_len = 256;
  }
  /// Those made since then.
  std::vector<recent_proof> proofs() {
    auto found = at->recent_proofs(began_us);
    REQUIRE(found);
    return *found;
  }
};

} // namespace

TEST_CASE_FIXTURE(keeper_fixture, "training is proven after ten seconds of uptime, then once a minute") {
  begin();
  train(8);
  pass(10);
  CHECK(proofs().empty());
  pass(1);
  REQUIRE(proofs().size() == 1);
  CHECK(proofs()[0].accepted);
  CHECK(proofs()[0].label_tokens == 8 * 1'024);
  REQUIRE(script->proven.size() == 1);
  CHECK(script->proven[0].step_end == 8);
  // 2 batches x 6 layers x 0.0005, all roles (1.6), a third of the wanted replicas of each layer (4/3 in
  // ppm).
  const auto earned = at->earnings();
  CHECK(to_decimal(earned->pending) == "0.0127999968");
  train(8);
  pass(59);
  CHECK(proofs().size() == 1);
  pass(1);
  REQUIRE(proofs().size() == 2);
  CHECK(proofs()[1].timestamp_us - proofs()[0].timestamp_us == 60'000'000);
  CHECK(ask<actor_status>(*this, keeper, status_atom_v)->state == actor_status::health::ok);
}

TEST_CASE_FIXTURE(keeper_fixture, "a node without stake that does not train has nothing to tell of") {
  begin();
  pass(200);
  CHECK(proofs().empty());
}

TEST_CASE_FIXTURE(keeper_fixture, "the uptime of a node with a stake is paid by the minute") {
  begin(1'000_neuro);
  const auto before = at->earnings()->earned_total;
  pass(11);
  pass(60);
  REQUIRE(proofs().size() == 2);
  CHECK(proofs()[1].label_tokens == 0);
  // 0.0001 a minute for 11 s and for 60 s; stake 1.1, driver and validator 1.5,
  // scarcity 4/3 in ppm.
  const auto earned = checked_sub(at->earnings()->earned_total, before);
  REQUIRE(earned);
  CHECK(to_decimal(*earned) == "0.000260333268249998");
}

TEST_CASE_FIXTURE(keeper_fixture,
                  "the end of a round is a moment for a proof, but not for a second one in a minute") {
  begin();
  pass(30); // 00:00:60: a new minute
  train(4);
  caf::anon_send(keeper, round_ended_atom_v);
  sched.run();
  CHECK(proofs().size() == 1);
  train(4);
  clock->advance_s(20);
  caf::anon_send(keeper, round_ended_atom_v);
  sched.run();
  CHECK(proofs().size() == 1);
  clock->advance_s(40);
  caf::anon_send(keeper, round_ended_atom_v);
  sched.run();
  CHECK(proofs().size() == 2);
}

TEST_CASE_FIXTURE(keeper_fixture, "work that the ledger refuses stays on offer, and the reason is told") {
  begin();
  train(4);
  script->work.segments.front().model_hash = digest_of("never on disk");
  pass(30);
  CHECK(proofs().empty());
  CHECK(script->proven.empty());
  const auto status = ask<actor_status>(*this, keeper, status_atom_v);
  CHECK(status->state == actor_status::health::degraded);
  CHECK(status->message.find("checkpoint") != std::string::npos);
  next_step = 0;
  train(4);
  pass(3);
  REQUIRE(proofs().size() == 1);
  CHECK(ask<actor_status>(*this, keeper, status_atom_v)->state == actor_status::health::ok);
}

TEST_CASE_FIXTURE(keeper_fixture, "no more is asked for than the checks let pass") {
  begin();
  script->speed = 1'000;
  train(4);
  pass(11);
  REQUIRE(script->asked.size() == 1);
  CHECK(script->asked[0].steps_max == 366);             // 2,000 a minute
  CHECK(script->asked[0].tokens_max == 13'200 + 1'024); // 1.2 times the speed in 11 s, and the step in hand
  REQUIRE(proofs().size() == 1);
  script->speed = 1'000'000;
  pass(60);
  CHECK(script->asked.back().tokens_max == 1'000'000 - 4'096); // of any minute, the proof before included
}

TEST_CASE_FIXTURE(keeper_fixture,
                  "a keeper that is made anew, or a clock that is set back, proves no minute twice") {
  begin();
  train(4);
  pass(11);
  REQUIRE(proofs().size() == 1);
  caf::anon_send_exit(caf::actor_cast<caf::actor>(keeper), caf::exit_reason::kill);
  start_keeper();
  train(4);
  pass(15); // 00:00:56: the minute of the first proof
  CHECK(proofs().size() == 1);
  pass(5);
  REQUIRE(proofs().size() == 2);
  const auto last_us = proofs()[1].timestamp_us;
  clock->advance_s(-3'600);
  train(4);
  pass(600);
  CHECK(proofs().size() == 2);
  clock->us = last_us;
  pass(59);
  CHECK(proofs().size() == 2); // what was up while the clock was wrong is not told of twice
  pass(1);
  CHECK(proofs().size() == 3);
}
