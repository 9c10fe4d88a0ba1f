#include "actors/checkpointer/host_tensor.hpp"
#include "tests/actors/trainer/node_fixture.hpp"

namespace neuroshard::test {

namespace {

constexpr float their_norm = 0.625F; ///< of every element of norm.weight

kernels::digest some_hash(const std::string& what) {
  return kernels::sha256::of(what);
}

/// A node among others whose records a test writes, and who give what they announce or do not.
struct resync_fixture : node_fixture {
  std::shared_ptr<peer_list> others = std::make_shared<peer_list>();
  std::vector<unit_state> announced;
  uint64_t announced_version = 0;
  std::vector<fetch_units> fetches;
  std::vector<uint64_t> dropped;
  std::vector<begin_round> begun;
  std::vector<restore_outer_state> restores;
  std::vector<uint64_t> finished_rounds;
  round_end_kind ends_with = round_end_kind::alone;
  training_state counters_of_others;
  bool gives = true;
  /// Of a fetch that does not end, until something is dropped.
  std::optional<caf::typed_response_promise<fetched_units>> held_back;
  bool holds_back = false;
  bool saw_syncing = false;
  bool ran_while_syncing = false;

  resync_fixture() {
    options.enabled = false;
    options.diloco_steps = 6;
    options.units = {"embed", "layer.0", "layer.1", "head"};
    shared = true;
    outer = keep(sys.spawn([this](outer_loop_actor::pointer) -> outer_loop_actor::behavior_type {
      return {[this](const begin_round& round) -> caf::result<void> {
                begun.push_back(round);
                return caf::unit;
              },
              [this](const finish_round& share) {
                finished_rounds.push_back(share.round);
                return round_outcome{share.round, ends_with, false, 2, 0};
              },
              [this](const restore_outer_state& what) -> caf::result<void> {
                restores.push_back(what);
                return caf::unit;
              }};
    }));
    resync.peers = [this] { return others; };
    resync.announced = [this](uint64_t version) {
      return version == announced_version ? announced : std::vector<unit_state>{};
    };
    resync.announce = [this](std::vector<unit_state> units, uint64_t version) {
      announced = std::move(units);
      announced_version = version;
    };
    resync.fetcher = keep(sys.spawn([this](unit_fetcher_actor::pointer me) { return giver(me); }));
    watch = [this](const training_progress& p) {
      saw_syncing = saw_syncing || p.syncing;
      ran_while_syncing = ran_while_syncing || (p.syncing && p.running);
    };
  }

  unit_fetcher_actor::behavior_type giver(unit_fetcher_actor::pointer me) {
    return {[this, me](const fetch_units& what) -> caf::result<fetched_units> {
              fetches.push_back(what);
              if (holds_back)
                return held_back.emplace(me->make_response_promise<fetched_units>());
              if (!gives)
                return refuse(errc::not_found, "No candidate gave what is wanted.");
              return given(what);
            },
            [](const read_fetched& what) -> caf::result<tensor_handle> {
              auto made = make_host_tensor(kernels::dtype::f32, {1}, sizeof(float));
              *made.view.as<float>() = static_cast<float>(what.name.size());
              return made;
            },
            [this, me](const write_fetched& what) -> caf::result<void> {
              auto promise = me->make_response_promise<caf::unit_t>();
              const auto failed = [promise](caf::error& e) mutable { promise.deliver(std::move(e)); };
              const auto width = tiny_architecture().hidden_dim;
              auto norm = make_host_tensor(kernels::dtype::f32, {width},
                                           static_cast<uint64_t>(width) * sizeof(float));
              std::fill_n(norm.view.as<float>(), width, their_norm);
              me->request(what.to, caf::infinite, write_tensor{"norm.weight", norm})
                  .then(
                      [me, what, promise, failed]() mutable {
                        me->request(what.to, caf::infinite, finish_load{what.optimizer_step})
                            .then([promise]() mutable { promise.deliver(caf::unit); }, failed);
                      },
                      failed);
              return promise;
            },
            [this](const drop_fetched& what) {
              dropped.push_back(what.fetch_id);
              if (auto waits = std::exchange(held_back, std::nullopt))
                waits->deliver(refuse(errc::draining, "The node is stopping."));
            }};
  }
  fetched_units given(const fetch_units& what) {
    fetched_units got;
    got.fetch_id = 7;
    got.version = what.version;
    got.from = what.candidates.front().node_id;
    got.bytes = 1;
    got.state = counters_of_others;
    got.tensors = {{"norm.weight", kernels::dtype::f32, {1}, 4},
                   {"diloco.v/norm.weight", kernels::dtype::f32, {1}, 4}};
    return got;
  }
  /// Another node with all units at an outer step, as its record tells it.
  void other(char id, uint64_t version, const std::string& line = "theirs") {
    peer_info node;
    node.state = peer_state::online;
    node.node.node_id = std::string(32, id);
    node.node.host = "10.0.0.1";
    node.node.grpc_port = 9'000;
    node.node.architecture_id = options.architecture_id;
    node.node.model_version = version;
    for (const auto& unit : options.units)
      node.node.units.push_back({unit, some_hash(unit + line + std::to_string(version)), std::nullopt});
    auto next = std::make_shared<peer_list>(*others);
    std::erase_if(*next, [&](const peer_info& one) { return one.node.node_id == node.node.node_id; });
    next->push_back(std::move(node));
    others = std::move(next);
  }
  void others_at(uint64_t version, const std::string& line = "theirs") {
    other('a', version, line);
    other('b', version, line);
    counters_of_others = {};
    counters_of_others.outer_step = version;
    counters_of_others.inner_step = counters_of_others.round_first_step = version * options.diloco_steps;
    counters_of_others.tokens_trained = 1'000 * version;
    counters_of_others.loss = 2.5;
  }
  void pass_s(int seconds) {
    for (int i = 0; i < 2 * seconds; ++i) {
      clock->advance_us(500'000);
      sched.advance_time(std::chrono::milliseconds(500));
      sched.run();
    }
  }
  bool has_their_weights() {
    auto view = ask<snapshot_opened>(*this, worker, open_snapshot{false});
    REQUIRE(view);
    auto norm = ask<tensor_handle>(*this, worker, read_snapshot{view->snapshot_id, "norm.weight"});
    REQUIRE(ask<caf::unit_t>(*this, worker, close_snapshot{view->snapshot_id}));
    REQUIRE(norm);
    return *norm->view.as<const float>() == their_norm;
  }
};

} // namespace

TEST_CASE_FIXTURE(resync_fixture, "a node that comes to others who have trained begins with their weights") {
  others_at(4);
  spawn();
  start();
  sched.run();
  REQUIRE(fetches.size() == 1);
  CHECK(fetches[0].version == 4);
  CHECK(fetches[0].include_velocity);
  CHECK(fetches[0].candidates.size() == 2);
  CHECK(fetches[0].expected.size() == 4);
  CHECK(has_their_weights());
  const auto now = progress();
  CHECK(now->outer_step == 4);
  CHECK(now->inner_step == 24);
  CHECK(now->tokens_trained == 4'000);
  CHECK(now->loss_ema == 2.5);
  CHECK_FALSE(now->syncing);
  CHECK(saw_syncing);
  CHECK_FALSE(ran_while_syncing);
  // The outer loop has the velocity, and no residual; what was announced stands.
  REQUIRE(restores.size() == 1);
  REQUIRE(restores[0].tensors.size() == 1);
  CHECK(restores[0].tensors[0].name == "diloco.v/norm.weight");
  CHECK(announced_version == 4);
  CHECK(announced.size() == 4);
  for (const auto& unit : others->front().node.units)
    CHECK(std::find(announced.begin(), announced.end(), unit) != announced.end());
  CHECK(begun.back().base == 4);
  CHECK(dropped == std::vector<uint64_t>{7});
  const auto copy = ask<serving_info>(*this, worker, session_copy{});
  REQUIRE(copy);
  CHECK(copy->model_version == 4);
  SUBCASE("and steps count on as theirs") {
    run_to(27);
    CHECK(progress()->steps_in_round == 3);
    CHECK(fetches.size() == 1);
  }
  SUBCASE("and goes on from there when it is started again") {
    kill();
    spawn();
    const auto found = start();
    CHECK(found.state.outer_step == 4);
    CHECK(found.state.inner_step == 24);
    CHECK(found.state.taken_over == 1);
    sched.run();
    CHECK(fetches.size() == 1);
    CHECK(has_their_weights());
  }
}

TEST_CASE_FIXTURE(resync_fixture, "a stage without steps of its own takes them too") {
  options.drives = false;
  others_at(4);
  spawn();
  start();
  sched.run();
  CHECK(has_their_weights());
  CHECK(progress()->outer_step == 4);
  CHECK(begun.back().base == 4);
}

TEST_CASE_FIXTURE(resync_fixture, "who sees others only later drops its steps for their weights") {
  spawn();
  start();
  run_to(3);
  CHECK(fetches.empty());
  others_at(2);
  pass_s(2);
  CHECK(progress()->outer_step == 2);
  CHECK(progress()->inner_step == 12);
  // What it had is in a checkpoint, but what it has now is newer.
  const auto stored = list_folder(root.path() + "/checkpoints");
  REQUIRE(stored.size() >= 2);
  CHECK(stored[0].inner_step == 12);
  CHECK(std::any_of(stored.begin(), stored.end(), [](const auto& one) { return one.inner_step == 3; }));
}

TEST_CASE_FIXTURE(resync_fixture,
                  "a node that is told to resync when nobody is there goes on with its own weights") {
  ends_with = round_end_kind::resync;
  spawn();
  start();
  pause_at = 8;
  caf::anon_send(loop, set_training{true});
  sched.run();
  CHECK(fetches.empty());
  CHECK(progress()->outer_step == 1);
  CHECK(progress()->inner_step == 8);
  CHECK(progress()->syncs_failed == 1);
}

TEST_CASE_FIXTURE(resync_fixture,
                  "a node that was in step and is told to resync waits for the records it needs") {
  others_at(2);
  spawn();
  start();
  sched.run();
  REQUIRE(progress()->outer_step == 2);
  fetches.clear();
  ends_with = round_end_kind::resync;
  pause_at = 100;
  caf::anon_send(loop, set_training{true});
  sched.run(); // to the end of its round
  CHECK(finished_rounds == std::vector<uint64_t>{3});
  CHECK(progress()->inner_step == 18);
  CHECK(progress()->syncing);
  CHECK_FALSE(progress()->running);
  CHECK(fetches.empty());
  ends_with = round_end_kind::updated;
  pause_at.reset();
  caf::anon_send(loop, set_training{false});
  others_at(3, "later");
  pass_s(2);
  REQUIRE(fetches.size() == 1);
  CHECK(progress()->outer_step == 3);
  CHECK(progress()->inner_step == 18);
  CHECK_FALSE(progress()->syncing);
  CHECK(progress()->syncs_failed == 1);
}

TEST_CASE_FIXTURE(resync_fixture,
                  "what nobody gives is waited for with growing pauses, then training goes on") {
  gives = false;
  others_at(9);
  spawn();
  start();
  sched.run();
  CHECK(fetches.size() == 1);
  CHECK(progress()->syncing);
  CHECK(progress()->error.find("No candidate gave") != std::string::npos);
  caf::anon_send(loop, set_training{true});
  sched.run();
  CHECK(progress()->inner_step == 0);
  SUBCASE("until it comes") {
    gives = true;
    pause_at = 54; // which is theirs
    pass_s(2);
    CHECK(has_their_weights());
    CHECK(progress()->inner_step == 54);
    CHECK(progress()->error.empty());
  }
  SUBCASE("or is given up") {
    pause_at = 2;
    pass_s(33);
    CHECK(fetches.size() == resync_watch::tries_max);
    CHECK(progress()->inner_step == 2);
    CHECK(progress()->error.empty());
    CHECK_FALSE(progress()->syncing);
    CHECK_FALSE(has_their_weights());
  }
  SUBCASE("or nobody announces it any more") {
    others = std::make_shared<peer_list>();
    pause_at = 2;
    pass_s(2);
    CHECK(progress()->inner_step == 2);
    CHECK(progress()->error.empty());
  }
}

TEST_CASE_FIXTURE(resync_fixture, "a stop does not wait for weights that are on their way") {
  holds_back = true;
  others_at(4);
  spawn();
  start();
  sched.run();
  REQUIRE(held_back);
  auto stopping = ask_later<caf::unit_t>(*this, loop, stop_training{});
  sched.run();
  caf::anon_send(resync.fetcher, drop_fetched{0}); // the fetcher is told to stop too
  sched.run();
  CHECK(stopping.receive());
  CHECK(progress()->outer_step == 0);
}

TEST_CASE_FIXTURE(resync_fixture, "weights are not written into a step of a driver that is bound here") {
  options.drives = false;
  spawn();
  start();
  sched.run();
  forward_request bind;
  bind.header = {"request-of-binding", "a-driver", 0, options.architecture_id, 0};
  bind.mode = forward_mode::bind;
  bind.layer_end = 2;
  REQUIRE(ask<forward_reply>(*this, worker, bind));
  auto train = bind;
  train.header.request_id = "request-of-training";
  train.mode = forward_mode::train;
  train.apply_head = train.omit_tensors = true;
  train.step = 1;
  const auto drawn = draw_batch(*data, {}, 1, 1, 16, 1);
  REQUIRE(drawn.ok());
  train.token_ids = integers(drawn->parts[0].ids, 1, 16);
  train.labels = integers(drawn->parts[0].labels, 1, 16);
  REQUIRE(ask<forward_reply>(*this, worker, train)); // and another micro-batch is to come
  others_at(4);
  pass_s(3);
  CHECK(fetches.size() == 1);
  CHECK_FALSE(has_their_weights());
  CHECK(progress()->syncing);
  backward_request release;
  release.header.session_id = "a-driver";
  release.action = backward_action::release;
  REQUIRE(ask<backward_reply>(*this, worker, release));
  pass_s(2);
  CHECK(has_their_weights());
  CHECK(fetches.size() == 1);
  CHECK(progress()->outer_step == 4);
}

TEST_CASE_FIXTURE(resync_fixture,
                  "work on weights that do not stand is not proven under the numbers done again") {
  spawn();
  start();
  run_to(3);
  CHECK(ask<offered_work>(*this, loop, take_work{1'000'000, 1'000})->step_end == 3);
  SUBCASE("steps below those of the others stay") {
    others_at(2);
    pass_s(2);
    CHECK(ask<offered_work>(*this, loop, take_work{1'000'000, 1'000})->step_end == 3);
  }
  SUBCASE("those above are dropped") {
    others_at(2);
    counters_of_others.inner_step = counters_of_others.round_first_step = 1;
    pass_s(2);
    CHECK(progress()->inner_step == 1);
    const auto offered = ask<offered_work>(*this, loop, take_work{1'000'000, 1'000});
    CHECK(offered->step_begin == offered->step_end);
  }
}

} // namespace neuroshard::test
