#include "tests/actors/layer_worker/worker_fixture.hpp"

#include <cstring>
#include <map>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

using weights = std::map<std::string, std::vector<float>>;

weights read_all(worker_fixture& f, const layer_worker_actor& worker) {
  weights all;
  auto view = ask<snapshot_opened>(f, worker, open_snapshot{true});
  REQUIRE(view);
  for (const auto& entry : view->tensors) {
    auto tensor = ask<tensor_handle>(f, worker, read_snapshot{view->snapshot_id, entry.name});
    REQUIRE(tensor);
    const auto* first = tensor->view.as<const float>();
    all[entry.name].assign(first, first + tensor->view.elements());
  }
  return all;
}

void write_all(worker_fixture& f, const layer_worker_actor& worker, weights& all, uint64_t t) {
  auto view = ask<snapshot_opened>(f, worker, open_snapshot{true});
  REQUIRE(view);
  REQUIRE(ask<caf::unit_t>(f, worker, close_snapshot{view->snapshot_id}));
  for (const auto& entry : view->tensors) {
    auto& values = all.at(entry.name);
    tensor_handle handle;
    handle.view =
        entry.shape.size() == 1
            ? kernels::make_tensor(values.data(), kernels::dtype::f32, {entry.shape[0]})
            : kernels::make_tensor(values.data(), kernels::dtype::f32, {entry.shape[0], entry.shape[1]});
    REQUIRE(ask<caf::unit_t>(f, worker, write_tensor{entry.name, handle}));
  }
  REQUIRE(ask<caf::unit_t>(f, worker, finish_load{t}));
}

void step(worker_fixture& f, const layer_worker_actor& worker, uint64_t number) {
  REQUIRE(ask<forward_reply>(f, worker, f.train(number)));
  REQUIRE(ask<backward_reply>(f, worker, f.backward(backward_action::commit, number)));
}

} // namespace

TEST_CASE_FIXTURE(worker_fixture, "weights and moments carried to another worker train on bit for bit") {
  bind();
  for (uint64_t n = 1; n <= 3; ++n)
    step(*this, worker, n);
  auto all = read_all(*this, worker);
  CHECK(all.contains("embed.weight"));
  CHECK(all.contains("adam.v/layers.1.ffn.down.weight"));
  auto other = make();
  write_all(*this, other, all, 3);
  auto r = forward(forward_mode::bind);
  r.step = 3;
  REQUIRE(ask<forward_reply>(*this, other, r));
  for (uint64_t n = 4; n <= 6; ++n) {
    auto here = ask<forward_reply>(*this, worker, train(n));
    auto there = ask<forward_reply>(*this, other, train(n));
    CHECK(here->loss == there->loss);
    REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, n)));
    REQUIRE(ask<backward_reply>(*this, other, backward(backward_action::commit, n)));
  }
  CHECK(read_all(*this, worker) == read_all(*this, other));
}

TEST_CASE_FIXTURE(worker_fixture, "the same seed gives the same weights") {
  auto other = make();
  CHECK(read_all(*this, worker) == read_all(*this, other));
}

TEST_CASE_FIXTURE(worker_fixture, "a COMMIT waits while a snapshot is open; forward and serving go on") {
  refresh();
  bind();
  step(*this, worker, 1);
  const auto before = read_all(*this, worker);
  auto view = ask<snapshot_opened>(*this, worker, open_snapshot{true});
  REQUIRE(view);
  CHECK(ask<snapshot_opened>(*this, worker, open_snapshot{}).code() == errc::overloaded);
  REQUIRE(ask<forward_reply>(*this, worker, train(2)));
  auto commit = ask_later<backward_reply>(*this, worker, backward(backward_action::commit, 2));
  sched.run();
  CHECK(self->mailbox().empty());
  CHECK(ask<forward_reply>(*this, worker, prompt("a", {1, 30})));
  CHECK(ask<caf::unit_t>(*this, worker, write_tensor{"norm.weight", {}}).reason() == "step_under_way");
  weights seen;
  for (const auto& entry : view->tensors) {
    auto tensor = ask<tensor_handle>(*this, worker, read_snapshot{view->snapshot_id, entry.name});
    REQUIRE(tensor);
    seen[entry.name].assign(tensor->view.as<const float>(),
                            tensor->view.as<const float>() + tensor->view.elements());
  }
  CHECK(seen == before);
  CHECK(commit.receive()); // the last tensor closed the snapshot
  CHECK(ask<tensor_handle>(*this, worker, read_snapshot{view->snapshot_id, "norm.weight"}).code() ==
        errc::not_found);
}

TEST_CASE_FIXTURE(worker_fixture, "a snapshot that is closed early or abandoned lets the COMMIT go on") {
  bind();
  auto view = ask<snapshot_opened>(*this, worker, open_snapshot{false});
  REQUIRE(view);
  const size_t weights_only = view->tensors.size();
  REQUIRE(ask<forward_reply>(*this, worker, train(1)));
  auto commit = ask_later<backward_reply>(*this, worker, backward(backward_action::commit, 1));
  sched.run();
  CHECK(self->mailbox().empty());
  REQUIRE(ask<caf::unit_t>(*this, worker, close_snapshot{view->snapshot_id}));
  CHECK(commit.receive());
  auto whole = ask<snapshot_opened>(*this, worker, open_snapshot{});
  REQUIRE(whole);
  CHECK(whole->tensors.size() == 3 * weights_only);
  REQUIRE(ask<forward_reply>(*this, worker, train(2)));
  auto second = ask_later<backward_reply>(*this, worker, backward(backward_action::commit, 2));
  sched.run();
  CHECK(self->mailbox().empty());
  for (int i = 0; i < 3; ++i) { // the driver is heard meanwhile, the reader of the snapshot is not
    clock->advance_s(40);
    (void)ask<backward_reply>(*this, worker, backward(backward_action::discard, 99));
  }
  sched.advance_time(std::chrono::seconds(1));
  sched.run();
  CHECK(second.receive());
}

TEST_CASE_FIXTURE(worker_fixture,
                  "a serving copy asked for between two steps is of the weights between them") {
  bind();
  step(*this, worker, 1);
  refresh(0, 1);
  auto expected = ask<std::string>(*this, worker, serving_hash{});
  auto other = make();
  worker = other;
  bind();
  step(*this, worker, 1);
  // The copy is asked for, and the next step follows at once.
  auto copied = ask_later<serving_info>(*this, worker, refresh_serving{0, 1});
  auto training = ask_later<forward_reply>(*this, worker, train(2));
  sched.run();
  CHECK(copied.receive());
  CHECK(training.receive());
  REQUIRE(ask<backward_reply>(*this, worker, backward(backward_action::commit, 2)));
  CHECK(*ask<std::string>(*this, worker, serving_hash{}).value == *expected.value);
}

TEST_CASE_FIXTURE(worker_fixture, "weights that were loaded only in part are neither trained nor served") {
  bind();
  std::vector<float> values(32, 1.0F);
  tensor_handle handle;
  handle.view = kernels::make_tensor(values.data(), kernels::dtype::f32, {32});
  REQUIRE(ask<caf::unit_t>(*this, worker, write_tensor{"norm.weight", handle}));
  CHECK(ask<forward_reply>(*this, worker, train(1)).code() == errc::not_ready);
  CHECK(ask<serving_info>(*this, worker, refresh_serving{}).code() == errc::not_ready);
}

TEST_CASE_FIXTURE(worker_fixture, "wrong tensors are refused, and a plan of the memory is given") {
  std::vector<float> values(10);
  tensor_handle handle;
  handle.view = kernels::make_tensor(values.data(), kernels::dtype::f32, {10});
  CHECK(ask<caf::unit_t>(*this, worker, write_tensor{"norm.weight", handle}).code() == errc::invalid_request);
  CHECK(ask<caf::unit_t>(*this, worker, write_tensor{"nothing", handle}).code() == errc::not_found);
  CHECK(ask<caf::unit_t>(*this, worker, write_tensor{"norm.weight", {}}).code() == errc::invalid_request);
  CHECK(ask<tensor_handle>(*this, worker, read_snapshot{5, "norm.weight"}).code() == errc::not_found);
  auto plan = ask<memory_plan_ptr>(*this, worker, plan_atom_v);
  REQUIRE(plan);
  uint64_t sum = 0;
  for (const auto& [what, bytes] : (*plan)->bytes)
    sum += bytes;
  CHECK(sum == (*plan)->total);
  CHECK((*plan)->total > 0);
  CHECK(ask<actor_status>(*this, worker, status_atom_v)->name == "layer_worker");
}

TEST_CASE("a worker that only serves lets go of its f32 weights when told, and loads others later") {
  worker_fixture f(false);
  auto how = tiny_options(tiny_architecture());
  how.train = false;
  f.worker = f.make(tiny_stage(tiny_architecture(), how));
  const auto held = [&](const std::string& what) -> uint64_t {
    auto plan = ask<memory_plan_ptr>(f, f.worker, plan_atom_v);
    REQUIRE(plan);
    for (const auto& [purpose, bytes] : (*plan)->bytes)
      if (purpose == what)
        return bytes;
    return 1;
  };
  CHECK(held("master") > 0);
  auto weights_of_seed = read_all(f, f.worker);
  const auto lean = [&] {
    caf::anon_send(f.worker, lean_atom_v);
    f.sched.run();
  };
  lean(); // there is nothing to serve from yet
  CHECK(held("master") > 0);
  f.refresh(0, 5);
  CHECK(held("master") > 0);
  lean();
  CHECK(held("master") == 0);
  CHECK(held("gradients") + held("moments") + held("activations") + held("weights") == 0);
  CHECK(held("serving") > 0);
  auto first = ask<forward_reply>(f, f.worker, f.prompt("a", {1, 30, 31}));
  REQUIRE(first);
  auto again = ask<serving_info>(f, f.worker, refresh_serving{0, 5});
  REQUIRE(again);
  CHECK(again->copy_id == first->rows.front().copy_id);
  auto view = ask<snapshot_opened>(f, f.worker, open_snapshot{});
  REQUIRE(view);
  CHECK(ask<tensor_handle>(f, f.worker, read_snapshot{view->snapshot_id, "norm.weight"}).reason() ==
        "serves_only");
  REQUIRE(ask<caf::unit_t>(f, f.worker, close_snapshot{view->snapshot_id}));
  for (auto& [name, values] : weights_of_seed)
    for (auto& value : values)
      value *= 1.5F;
  write_all(f, f.worker, weights_of_seed, 0);
  f.refresh(0, 6);
  lean();
  CHECK(held("master") == 0);
  auto other = ask<forward_reply>(f, f.worker, f.prompt("b", {1, 30, 31}));
  REQUIRE(other);
  CHECK(other->rows.front().copy_id == again->copy_id + 1);
  CHECK(other->logprobs != first->logprobs);
}
