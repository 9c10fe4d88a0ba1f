#include "actors/telemetry/telemetry.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

#include <chrono>

using namespace neuroshard;

namespace {

struct world {
  training_progress progress;
  peer_list peers;
  std::string hash = std::string(64, 'a');
  actor_status::health storage = actor_status::health::ok;
};

caf::behavior scripted_trainer(caf::event_based_actor*, world* w) {
  return {[w](progress_atom) -> training_progress_ptr {
    return std::make_shared<const training_progress>(w->progress);
  }};
}
caf::behavior scripted_peers(caf::event_based_actor*, world* w) {
  return {[w](peers_atom) -> peer_list_ptr { return std::make_shared<const peer_list>(w->peers); }};
}
caf::behavior scripted_worker(caf::event_based_actor*, world* w) {
  return {[w](const serving_hash&) { return w->hash; }};
}
caf::behavior scripted_storage(caf::event_based_actor*, world* w) {
  return {[w](status_atom) { return actor_status{"checkpointer", w->storage, "", {}}; }};
}

struct fixture
    : test::deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                          caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_checkpointer,
                          caf::id_block::neuroshard_trainer, caf::id_block::neuroshard_peer_manager,
                          caf::id_block::neuroshard_telemetry> {
  world w;
  std::shared_ptr<test::manual_clock> clock = std::make_shared<test::manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  uint64_t free_bytes = 10ULL << 30;
  snapshot_board_ptr board = std::make_shared<snapshot_board>([] {
    node_snapshot first;
    first.training = std::make_shared<const training_progress>();
    first.peers = std::make_shared<const peer_list>();
    first.layers = {{0, "embedding", 1, "loading"}, {0, "transformer", 1, "loading"}};
    return first;
  }());
  telemetry_actor actor = keep(sys.spawn(
      telemetry, telemetry_sources{board,
                                   counters,
                                   clock,
                                   caf::actor_cast<trainer_actor>(keep(sys.spawn(scripted_trainer, &w))),
                                   caf::actor_cast<peer_manager_actor>(keep(sys.spawn(scripted_peers, &w))),
                                   caf::actor_cast<layer_worker_actor>(keep(sys.spawn(scripted_worker, &w))),
                                   {{"storage", caf::actor{keep(sys.spawn(scripted_storage, &w))}}},
                                   {},
                                   [] {
                                     return rewards_summary{{1}, {2}, {3}};
                                   },
                                   [this] { return free_bytes; }}));

  /// Two ticks: answers that arrive after the first one's publication show in the second's.
  node_snapshot_ptr after_ticks() {
    sched.run();
    for (int i = 0; i < 2; ++i) {
      clock->advance_s(1);
      sched.advance_time(std::chrono::seconds(1));
      sched.run();
    }
    return board->read();
  }
  void tell(state_changed what) {
    caf::anon_send(actor, what);
    sched.run();
  }
};

} // namespace

TEST_CASE_FIXTURE(fixture, "telemetry publishes what the others answer") {
  w.progress.inner_step = 7;
  w.progress.outer_step = 2;
  counters->inference_requests = 5;
  counters->latency_us[0] = 2000;
  counters->latency_count = 1;
  const auto now = after_ticks();
  CHECK(now->steps_total == 7);
  CHECK(now->model_version == 2);
  CHECK(now->serving_hash == w.hash);
  CHECK(now->requests_total == 5);
  CHECK(now->p99_latency_ms == doctest::Approx(2));
  CHECK(now->rewards.earned_total == neuro_amount{2});
  CHECK(now->uptime_s == 2);
  CHECK(now->state == node_state::starting);
}

TEST_CASE_FIXTURE(fixture, "the state is training or syncing exactly while the trainer is") {
  tell({node_state::running});
  CHECK(board->read()->state == node_state::running);
  w.progress.running = true;
  CHECK(after_ticks()->state == node_state::training);
  w.progress.running = false;
  CHECK(after_ticks()->state == node_state::running);
  w.progress.syncing = true;
  CHECK(after_ticks()->state == node_state::syncing);
  w.progress.syncing = false;
  CHECK(after_ticks()->state == node_state::running);
  tell({node_state::draining});
  w.progress.running = w.progress.syncing = true;
  CHECK(after_ticks()->state == node_state::draining);
}

TEST_CASE_FIXTURE(fixture, "a node that comes up shows at once where training stands") {
  w.progress.inner_step = 70;
  tell({node_state::running});
  CHECK(board->read()->training->inner_step == 70);
}

TEST_CASE_FIXTURE(fixture, "layers are active once the model runs, and stay so while the node drains") {
  CHECK(after_ticks()->layers[1].status == "loading");
  tell({node_state::running});
  CHECK(board->read()->layers[0].status == "active");
  CHECK(board->read()->layers[1].status == "active");
  tell({node_state::draining});
  CHECK(board->read()->layers[1].status == "active");
  tell({node_state::error});
  CHECK(board->read()->layers[1].status == "error");
}

TEST_CASE_FIXTURE(fixture, "health is the worst of what is known of a part") {
  tell({node_state::running});
  CHECK(after_ticks()->health_storage == "ok");
  CHECK(board->read()->health_peers == "degraded");
  CHECK(board->read()->healthy());
  w.storage = actor_status::health::degraded;
  CHECK(after_ticks()->health_storage == "degraded");
  free_bytes = 1;
  CHECK(after_ticks()->health_storage == "error");
  CHECK_FALSE(board->read()->healthy());
  free_bytes = 10ULL << 30;
  w.storage = actor_status::health::ok;
  CHECK(after_ticks()->health_storage == "ok");
  tell({node_state::error});
  CHECK(board->read()->health_model == "error");
}

TEST_CASE_FIXTURE(fixture, "a peer that is online makes the peers check ok and counts as a connection") {
  w.peers.resize(2);
  w.peers[0].state = peer_state::online;
  const auto now = after_ticks();
  CHECK(now->health_peers == "ok");
  CHECK(now->active_connections == 1);
}
