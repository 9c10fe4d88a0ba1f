#include "actors/supervisor/supervisor.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;

namespace {

/// Keeps requests to restore, and answers the n-th of them when told.
using vault_actor =
    caf::typed_actor<caf::replies_to<restore_latest>::with<restored>, caf::reacts_to<uint32_t>>;

/// What the scripted actors were told, in order.
struct script {
  std::vector<std::string> seen;
  bool restore_fails = false;
  bool restore_waits = false; ///< its answers come from the test, also when who was asked has died meanwhile
  bool worker_dies_at_refresh = false;
  bool deaf = false;  ///< nobody answers what belongs to a stop
  bool stays = false; ///< the checkpointer does not end, as one that a disk holds up
  std::vector<caf::response_promise> unanswered;
  int spawned_workers = 0;
  vault_actor vault;
  std::vector<caf::typed_response_promise<restored>> waiting_restores;
  caf::expected<restored> late_answer = restored{};
  std::vector<node_state> states;
};

caf::behavior scripted_telemetry(caf::event_based_actor*, script* s) {
  return {[s](const state_changed& c) { s->states.push_back(c.state); }, [](const health_changed&) {}};
}
caf::behavior scripted_worker(caf::event_based_actor* self, script* s) {
  ++s->spawned_workers;
  return {[s, self](const refresh_serving& r) -> caf::result<serving_info> {
            if (std::exchange(s->worker_dies_at_refresh, false)) {
              self->quit(caf::exit_reason::unhandled_exception);
              return refuse(errc::draining, "the layer worker is stopping");
            }
            s->seen.push_back("refresh " + std::to_string(r.inner_step));
            return serving_info{1, r.model_version, r.inner_step};
          },
          [self](slice_atom) { self->quit(caf::exit_reason::unhandled_exception); }};
}
/// Notes a request of a stop and answers it, unless all are deaf.
caf::result<void> heard(caf::event_based_actor* self, script* s, const char* what) {
  s->seen.emplace_back(what);
  if (!s->deaf)
    return caf::unit;
  s->unanswered.push_back(self->make_response_promise());
  return s->unanswered.back();
}
restored found_at(uint64_t step) {
  restored r;
  r.found = true;
  r.id = "000000000042-0123456789abcdef";
  r.state.inner_step = step;
  return r;
}
/// Outlives the checkpointers that hand their requests to it.
vault_actor::behavior_type scripted_vault(vault_actor::pointer self, script* s) {
  return {[s, self](const restore_latest&) -> caf::result<restored> {
            s->waiting_restores.push_back(self->make_response_promise<restored>());
            return s->waiting_restores.back();
          },
          [s](uint32_t which) {
            if (s->late_answer)
              s->waiting_restores.at(which).deliver(*s->late_answer);
            else
              s->waiting_restores.at(which).deliver(s->late_answer.error());
          }};
}
caf::behavior scripted_checkpointer(caf::event_based_actor* self, script* s) {
  self->set_exit_handler([self, s](caf::exit_msg& end) {
    if (!s->stays)
      self->quit(end.reason);
  });
  return {[s, self](const restore_latest&) -> caf::result<restored> {
            s->seen.push_back("restore");
            if (s->restore_waits)
              return self->delegate(s->vault, restore_latest{});
            if (s->restore_fails)
              return refuse(errc::data_loss, "every checkpoint is damaged");
            return found_at(42);
          },
          [s, self](drain_atom) { return heard(self, s, "drain checkpointer"); }};
}
caf::behavior scripted_trainer(caf::event_based_actor* self, script* s) {
  return {[s](start_atom, const restored& r) {
            s->seen.push_back("start " + std::to_string(r.state.inner_step));
          },
          [s, self](const stop_training&) { return heard(self, s, "stop trainer"); }};
}
caf::behavior scripted_scheduler(caf::event_based_actor* self, script* s) {
  return {[s, self](drain_atom) { return heard(self, s, "drain inference"); }};
}
caf::behavior scripted_peers(caf::event_based_actor* self, script* s) {
  return {[s, self](leave_atom) { return heard(self, s, "leave"); }};
}
caf::behavior scripted_ledger(caf::event_based_actor* self, script* s) {
  return {[s, self](drain_atom) { return heard(self, s, "close ledger"); }};
}

struct fixture
    : test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                          caf::id_block::neuroshard_ledger, caf::id_block::neuroshard_layer_worker,
                          caf::id_block::neuroshard_checkpointer, caf::id_block::neuroshard_trainer,
                          caf::id_block::neuroshard_inference_scheduler,
                          caf::id_block::neuroshard_rate_limiter, caf::id_block::neuroshard_peer_manager,
                          caf::id_block::neuroshard_telemetry, caf::id_block::neuroshard_supervisor> {
  std::shared_ptr<test::manual_clock> clock = std::make_shared<test::manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  script s;
  node_actors fronts = make_fronts(sys);
  supervisor_actor super = keep(sys.spawn(supervisor, fronts, time_source_ptr{clock}, counters));

  fixture() { s.vault = keep(sys.spawn(scripted_vault, &s)); }
  ~fixture() {
    for (auto& front : fronts.fronts)
      caf::anon_send_exit(front, caf::exit_reason::kill);
    sched.run();
  }

  template <class Behavior, class Front>
  child_spec child(std::string name, const Front& address, Behavior behavior) {
    return {std::move(name), caf::actor_cast<caf::actor>(address),
            [this, behavior](caf::actor_system& system) -> caf::expected<caf::actor> {
              return caf::actor{keep(system.spawn(behavior, &s))};
            }};
  }
  start_group base() {
    return {"base",
            {child("ledger", fronts.ledger, scripted_ledger),
             child("peer_manager", fronts.peers, scripted_peers),
             child("telemetry", fronts.telemetry, scripted_telemetry)},
            group_start::nothing};
  }
  start_group model() {
    return {"model",
            {child("layer_worker", fronts.worker, scripted_worker),
             child("checkpointer", fronts.checkpointer, scripted_checkpointer),
             child("trainer", fronts.trainer, scripted_trainer),
             child("inference_scheduler", fronts.scheduler, scripted_scheduler)},
            group_start::model};
  }
  errc start(start_group plan) {
    auto reply = self->request(super, caf::infinite, std::move(plan));
    sched.run();
    errc outcome = errc::ok;
    reply.receive([] {}, [&](const caf::error& e) { outcome = code_of(e); });
    return outcome;
  }
  void answer_restore(uint32_t which, caf::expected<restored> answer) {
    s.late_answer = std::move(answer);
    caf::anon_send(s.vault, which);
    sched.run();
  }
  void fail_worker() {
    caf::anon_send(fronts.worker, slice_atom_v);
    sched.run();
  }
};

} // namespace

TEST_CASE_FIXTURE(fixture,
                  "the model group restores, makes a serving copy and starts training, in that order") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  CHECK(s.seen == std::vector<std::string>{"restore", "refresh 42", "start 42"});
  CHECK(s.states == std::vector<node_state>{node_state::syncing, node_state::running});
}

TEST_CASE_FIXTURE(fixture,
                  "a failed member takes its group down, and the group starts again from the checkpoint") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  s.seen.clear();
  fail_worker();
  CHECK(s.spawned_workers == 2);
  CHECK(s.seen == std::vector<std::string>{"restore", "refresh 42", "start 42"});
  CHECK(counters->actor_restarts.load() == 1);
  CHECK(s.states.back() == node_state::running);
}

TEST_CASE_FIXTURE(fixture,
                  "an answer to an attempt whose group has failed meanwhile does not drive the next one") {
  s.restore_waits = true;
  CHECK(start(base()) == errc::ok);
  auto reply = self->request(super, caf::infinite, model());
  sched.run();
  fail_worker();
  REQUIRE(s.waiting_restores.size() == 2);
  answer_restore(0, found_at(41));
  CHECK(s.seen == std::vector<std::string>{"restore", "restore"});
  answer_restore(1, found_at(42));
  CHECK(s.seen == std::vector<std::string>{"restore", "restore", "refresh 42", "start 42"});
  CHECK(s.states.back() == node_state::running);
  // Whoever asked for the group learns of the attempt that succeeded.
  reply.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
}

TEST_CASE_FIXTURE(fixture,
                  "an error of an attempt whose group has failed meanwhile does not end the next one") {
  s.restore_waits = true;
  CHECK(start(base()) == errc::ok);
  auto reply = self->request(super, caf::infinite, model());
  sched.run();
  fail_worker();
  REQUIRE(s.waiting_restores.size() == 2);
  answer_restore(0, refuse(errc::not_ready, "layer_worker is not running"));
  CHECK(s.states.back() == node_state::syncing);
  answer_restore(1, found_at(42));
  CHECK(s.states.back() == node_state::running);
  reply.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
}

TEST_CASE_FIXTURE(fixture,
                  "a member that dies of its part in the start is started again, without state error") {
  s.worker_dies_at_refresh = true;
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  CHECK(s.spawned_workers == 2);
  CHECK(s.states == std::vector<node_state>{node_state::syncing, node_state::syncing, node_state::running});
}

TEST_CASE_FIXTURE(fixture, "the sixth failure within a minute leaves the node in state error") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  for (int i = 0; i < 6; ++i)
    fail_worker();
  CHECK(s.spawned_workers == 6);
  CHECK(s.states.back() == node_state::error);
  auto reply = self->request(fronts.worker, caf::infinite, refresh_serving{});
  sched.run();
  reply.receive([](const serving_info&) { FAIL("answered"); },
                [](const caf::error& e) { CHECK(code_of(e) == errc::not_ready); });
}

TEST_CASE_FIXTURE(fixture, "a group is made anew on request, which is no failure") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  for (int i = 0; i < 8; ++i) {
    caf::anon_send(super, renew_group{"model"});
    sched.run();
  }
  caf::anon_send(super, renew_group{"nobody"});
  sched.run();
  CHECK(s.spawned_workers == 9);
  CHECK(s.states.back() == node_state::running);
  CHECK(counters->actor_restarts.load() == 0);
}

TEST_CASE_FIXTURE(fixture, "a start that cannot succeed is reported and not repeated") {
  s.restore_fails = true;
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::data_loss);
  CHECK(s.seen == std::vector<std::string>{"restore"});
  CHECK(s.states.back() == node_state::error);
}

TEST_CASE_FIXTURE(fixture, "a group whose member cannot be made is reported") {
  CHECK(start(base()) == errc::ok);
  auto plan = model();
  plan.children[2].spawn = [](caf::actor_system&) -> caf::expected<caf::actor> {
    return refuse(errc::unavailable, "no such device");
  };
  CHECK(start(std::move(plan)) == errc::unavailable);
  CHECK(s.states.back() == node_state::error);
}

TEST_CASE_FIXTURE(fixture, "a node stops in the order inference, trainer, checkpoint, peers, ledger") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  s.seen.clear();
  auto stopped = self->request(super, caf::infinite, stop_node{});
  sched.run();
  stopped.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
  CHECK(s.seen == std::vector<std::string>{"drain inference", "stop trainer", "drain checkpointer", "leave",
                                           "close ledger"});
  CHECK(s.states.back() == node_state::draining);
  CHECK(counters->actor_restarts.load() == 0);
}

TEST_CASE_FIXTURE(fixture, "a node without a model stops too") {
  CHECK(start(base()) == errc::ok);
  auto stopped = self->request(super, caf::infinite, stop_node{});
  sched.run();
  stopped.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
  CHECK(s.seen == std::vector<std::string>{"leave", "close ledger"});
}

TEST_CASE_FIXTURE(fixture, "a stop leaves no front behind, which would keep the process") {
  const size_t before = sys.registry().running();
  const node_actors others = make_fronts(sys);
  caf::anon_send(sys.spawn(supervisor, others, time_source_ptr{clock}, counters), stop_node{});
  CHECK(sys.registry().running() > before);
  sched.run();
  CHECK(sys.registry().running() == before);
}

TEST_CASE_FIXTURE(fixture,
                  "a stop ends within its time though nobody answers, and the ledger is asked last") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  s.seen.clear();
  s.deaf = true;
  auto stopped = self->request(super, caf::infinite, stop_node{});
  sched.run();
  int seconds = 0;
  for (; s.unanswered.size() < 5 && seconds < 100; ++seconds) {
    clock->advance_s(1);
    sched.advance_time(std::chrono::seconds(1));
    sched.run();
    if (seconds + 1 == 10) // what runs has 10 s to finish
      CHECK(s.seen == std::vector<std::string>{"drain inference"});
  }
  CHECK(s.seen == std::vector<std::string>{"drain inference", "stop trainer", "drain checkpointer", "leave",
                                           "close ledger"});
  CHECK(seconds <= 26);
  for (; seconds < 26; ++seconds) {
    clock->advance_s(1);
    sched.advance_time(std::chrono::seconds(1));
    sched.run();
  }
  stopped.receive([] {}, [&](const caf::error& e) { FAIL(sys.render(e)); });
}

TEST_CASE_FIXTURE(fixture, "a stop that somebody does not end for says who, once its time is over") {
  CHECK(start(base()) == errc::ok);
  CHECK(start(model()) == errc::ok);
  s.stays = true;
  auto stopped = self->request(super, caf::infinite, stop_node{});
  for (int seconds = 0; seconds < 27; ++seconds) {
    sched.run();
    clock->advance_s(1);
    sched.advance_time(std::chrono::seconds(1));
  }
  sched.run();
  stopped.receive([] { FAIL("it has not ended"); },
                  [&](const caf::error& e) {
                    CHECK(code_of(e) == errc::timeout);
                    CHECK(problem_of(e).message == "checkpointer did not end in time");
                  });
}
