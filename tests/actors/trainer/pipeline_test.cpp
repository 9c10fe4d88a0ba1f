#include "tests/actors/trainer/node_fixture.hpp"

#include <algorithm>
#include <set>

namespace neuroshard::test {

namespace {

uint64_t optimizer_steps(node_fixture& node, const layer_worker_actor& of) {
  auto view = ask<snapshot_opened>(node, of, open_snapshot{true});
  REQUIRE(view);
  REQUIRE(ask<caf::unit_t>(node, of, close_snapshot{view->snapshot_id}));
  return view->optimizer_step;
}

void in_two_stages(node_fixture& node) {
  node.options.diloco_steps = 100;
  node.options.enabled = false;
  node.stages = 2;
}

void pass_seconds(node_fixture& node, int seconds) {
  for (int second = 0; second < seconds; ++second) {
    node.clock->advance_s(1);
    node.sched.advance_time(std::chrono::seconds(1));
    node.sched.run();
  }
}

} // namespace

TEST_CASE("a pipeline counts the micro-batches that are under way, and adds losses in their order") {
  pipeline_step step(2, 4);
  CHECK(step.send_next() == 0u);
  CHECK(step.send_next() == 1u);
  CHECK_FALSE(step.send_next());
  step.forwarded(1, 0.1, 3);
  CHECK_FALSE(step.send_next()); // forward sent, backward not yet answered
  step.forwarded(0, 0.7, 5);
  step.finished();
  CHECK(step.send_next() == 2u);
  step.finished();
  CHECK(step.send_next() == 3u);
  CHECK_FALSE(step.send_next());
  step.forwarded(2, 0.2, 7);
  step.forwarded(3, 0.3, 1);
  step.finished();
  step.finished();
  CHECK(step.complete());
  CHECK(step.loss_sum() == 0.7 * 5 + 0.1 * 3 + 0.2 * 7 + 0.3 * 1);
  CHECK_FALSE(step.ready());
  step.reported({{"a", {0, 0, 0, true, 2.0, 0}}, {"b", {}}});
  CHECK_FALSE(step.ready());
  step.reported({{"b", {0, 0, 0, true, 3.0, 0}}});
  CHECK(step.ready());
  CHECK(step.gradient_norm_sq() == 5.0);
}

TEST_CASE("one stage is a pipeline whose micro-batches are finished by going forward") {
  pipeline_step step(1, 2);
  CHECK(step.send_next() == 0u);
  CHECK_FALSE(step.send_next());
  step.forwarded(0, 1, 1);
  CHECK(step.send_next() == 1u);
  step.forwarded(1, 1, 1);
  CHECK(step.complete());
}

TEST_CASE("training through two stages takes the same steps on both, and begins as one node does") {
  node_fixture alone;
  alone.options.diloco_steps = 100;
  alone.options.enabled = false;
  alone.spawn();
  alone.start();
  alone.run_to(20);

  node_fixture node;
  in_two_stages(node);
  node.spawn();
  node.start();
  node.run_to(20);
  CHECK(node.losses.at(1) == alone.losses.at(1));
  // Later weights differ by the clip rule alone: each stage clips its own gradient.
  CHECK(node.losses.at(20) == doctest::Approx(alone.losses.at(20)).epsilon(0.05));
  CHECK(node.losses.at(20) < node.losses.at(1) - 0.5);
  CHECK(optimizer_steps(node, node.worker) == 20);
  CHECK(optimizer_steps(node, node.others[0]) == 20);
}

TEST_CASE("a step that a stage loses is done again everywhere with the same batch") {
  node_fixture node;
  in_two_stages(node);
  const auto reference = [] {
    node_fixture undisturbed;
    undisturbed.options.diloco_steps = 100;
    undisturbed.options.enabled = false;
    undisturbed.stages = 2;
    undisturbed.spawn();
    undisturbed.start();
    undisturbed.run_to(8);
    return undisturbed.losses;
  }();
  int forwards = 0, backwards = 0;
  SUBCASE("a forward is lost") {
    node.network->on_forward = [&](const std::string&, routed_forward& call) {
      return call.work.mode != forward_mode::train || ++forwards != 8;
    };
  }
  SUBCASE("a gradient is lost") {
    node.network->on_backward = [&](const std::string&, routed_backward& call) {
      return call.work.action != backward_action::gradient || ++backwards != 7;
    };
  }
  node.spawn();
  node.start();
  node.pause_at = 8;
  caf::anon_send(node.loop, set_training{true});
  node.sched.run();
  // The stage was given up; a moment later it is bound again.
  pass_seconds(node, 10);
  CHECK(node.progress()->inner_step == 8);
  CHECK(node.losses == reference);
  CHECK(optimizer_steps(node, node.worker) == 8);
  CHECK(optimizer_steps(node, node.others[0]) == 8);
}

TEST_CASE("training waits while nobody holds the other layers, says so, and goes on when somebody does") {
  node_fixture node;
  in_two_stages(node);
  node.spawn();
  node.network->down.insert(work_network::address_of(1));
  node.start();
  node.pause_at = 3;
  caf::anon_send(node.loop, set_training{true});
  node.sched.run();
  CHECK(node.progress()->inner_step == 0);
  const auto status = ask<actor_status>(node, node.loop, status_atom_v);
  REQUIRE(status);
  CHECK(status->state == actor_status::health::degraded);
  CHECK(node.progress()->error == "Nobody holds layer 1.");
  node.network->down.clear();
  pass_seconds(node, 5);
  CHECK(node.progress()->inner_step == 3);
  CHECK(node.progress()->error.empty());
}

TEST_CASE("a stage is released when training stops, and binds to whoever comes next") {
  node_fixture node;
  in_two_stages(node);
  node.spawn();
  node.start();
  node.run_to(4);
  REQUIRE(ask<caf::unit_t>(node, node.loop, stop_training{}));
  const auto status = ask<actor_status>(node, node.others[0], status_atom_v);
  REQUIRE(status);
  CHECK(std::find(status->values.begin(), status->values.end(),
                  std::pair<std::string, std::string>("bound", "0")) != status->values.end());
}

} // namespace neuroshard::test
