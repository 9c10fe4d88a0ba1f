#include "actors/supervisor/supervisor.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;

namespace {

/// What the scripted actors were told, in order.
struct script {
  std::vector<std::string> seen;
  bool restore_fails = false;
  int spawned_workers = 0;
  std::vector<node_state> states;
};

caf::behavior scripted_telemetry(caf::event_based_actor*, script* s) {
  return {[s](const state_changed& c) { s->states.push_back(c.state); }, [](const health_changed&) {}};
}
caf::behavior scripted_worker(caf::event_based_actor* self, script* s) {
  ++s->spawned_workers;
  return {[s](const refresh_serving& r) -> caf::result<serving_info> {
            s->seen.push_back("refresh " + std::to_string(r.inner_step));
            return serving_info{1, r.model_version, r.inner_step};
          },
          [self](slice_atom) { self->quit(caf::exit_reason::unhandled_exception); }};
}
caf::behavior scripted_checkpointer(caf::event_based_actor*, script* s) {
  return {[s](const restore_latest&) -> caf::result<restored> {
            s->seen.push_back("restore");
            if (s->restore_fails)
              return refuse(errc::data_loss, "every checkpoint is damaged");
            restored r;
            r.found = true;
            r.id = "000000000042-0123456789abcdef";
            r.state.inner_step = 42;
            return r;
          },
          [s](drain_atom) { s->seen.push_back("drain checkpointer"); }};
}
caf::behavior scripted_trainer(caf::event_based_actor*, script* s) {
  return {[s](start_atom, const restored& r) {
            s->seen.push_back("start " + std::to_string(r.state.inner_step));
          },
          [s](const stop_training&) { s->seen.push_back("stop trainer"); }};
}
caf::behavior scripted_scheduler(caf::event_based_actor*, script* s) {
  return {[s](drain_atom) { s->seen.push_back("drain inference"); }};
}
caf::behavior scripted_peers(caf::event_based_actor*, script* s) {
  return {[s](leave_atom) { s->seen.push_back("leave"); }};
}
caf::behavior scripted_ledger(caf::event_based_actor*, script* s) {
  return {[s](drain_atom) { s->seen.push_back("close ledger"); }};
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

  ~fixture() {
    for (auto& handle :
         {caf::actor_cast<caf::actor>(fronts.ledger), caf::actor_cast<caf::actor>(fronts.limiter),
          caf::actor_cast<caf::actor>(fronts.telemetry), caf::actor_cast<caf::actor>(fronts.peers),
          caf::actor_cast<caf::actor>(fronts.worker), caf::actor_cast<caf::actor>(fronts.checkpointer),
          caf::actor_cast<caf::actor>(fronts.trainer), caf::actor_cast<caf::actor>(fronts.scheduler)})
      caf::anon_send_exit(handle, caf::exit_reason::kill);
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
