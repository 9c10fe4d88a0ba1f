#include "actors/checkpointer/checkpointer.hpp"
#include "tests/actors/checkpointer/checkpoint_support.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/small_disk.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct fixture : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                               caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_checkpointer,
                               caf::id_block::neuroshard_gradient_exchanger> {
  checkpoint_place place;
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  worker_script_ptr script = std::make_shared<worker_script>();
  outer_tensors outer; ///< what the outer loop has
  std::optional<outer_tensors> outer_restored;
  bool has_outer = false;
  layer_worker_actor worker = keep(sys.spawn(scripted_worker, script));

  fixture() { script->tensors = tiny_tensors(1); }
  checkpointer_options options() {
    checkpointer_options o;
    o.folder = place.folder;
    o.wallet_id = "0123456789abcdef";
    o.software = "test";
    o.architecture = tiny_architecture();
    o.tokenizer_path = place.tokenizer_path;
    o.tokenizer_hash = kernels::to_hex(place.tokens.hash());
    o.max_storage_mb = 1000;
    if (has_outer)
      o.outer = keep(sys.spawn([this](outer_state_actor::pointer) -> outer_state_actor::behavior_type {
        return {[this](const read_outer_state&) { return outer; },
                [this](const restore_outer_state& what) -> caf::result<void> {
                  outer_restored = outer_tensors{what.tensors};
                  return caf::unit;
                }};
      }));
    return o;
  }
  checkpointer_actor make() {
    return keep(sys.spawn(checkpointer, options(), worker, time_source_ptr{clock}, counters));
  }

  /// The outcome that came to the test as a message of its own; nothing when another, or none, has come.
  template <class Outcome>
  std::optional<Outcome> outcome() {
    std::optional<Outcome> got;
    if (self->mailbox().empty())
      return got;
    self->receive([&](const checkpoint_saved& s) { keep_if(got, s); },
                  [&](const checkpoint_failed& f) { keep_if(got, f); });
    return got;
  }
  std::optional<checkpoint_saved> saved() { return outcome<checkpoint_saved>(); }
  std::optional<checkpoint_failed> failed() { return outcome<checkpoint_failed>(); }

private:
  template <class Outcome, class Came>
  static void keep_if(std::optional<Outcome>& to, const Came& came) {
    if constexpr (std::is_same_v<Outcome, Came>)
      to = came;
  }
};

} // namespace

TEST_CASE_FIXTURE(fixture, "a saved checkpoint is restored into the worker with its state") {
  script->optimizer_step = 77;
  auto actor = make();
  auto begun = ask<save_begun>(*this, actor, save_checkpoint{some_state(200), "step"});
  REQUIRE(begun);
  CHECK(begun->started);
  const auto written = saved();
  REQUIRE(written);
  CHECK(written->inner_step == 200);
  CHECK(written->model_hash.size() == 64);
  CHECK(counters->checkpoints_saved == 1);
  CHECK_FALSE(script->snapshot_open);
  script->tensors = tiny_tensors(9);
  script->optimizer_step = 0;
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  CHECK(found->found);
  CHECK(found->id == written->id);
  CHECK(found->model_hash == written->model_hash);
  CHECK(found->state.optimizer_step == 77);
  CHECK(found->state.tokens_trained == some_state(200).tokens_trained);
  CHECK(script->optimizer_step == 77);
  CHECK(script->loaded);
  const auto expected = tiny_tensors(1);
  for (size_t i = 0; i < expected.size(); ++i)
    CHECK(script->tensors[i].second.values == expected[i].second.values);
}

TEST_CASE_FIXTURE(fixture, "what the outer loop has is in a checkpoint and comes back with it") {
  has_outer = true;
  const auto weights = tiny_tensors(5);
  const auto add = [&](const std::string& prefix, size_t count) {
    for (size_t i = 0; i < count; ++i)
      outer.tensors.push_back({prefix + weights[i].first, handle_of(weights[i].second)});
  };
  const size_t all = weights.size() / 3; // the others are moments
  add("diloco.v/", 2);
  add("diloco.r/", 1);
  outer.tensors.push_back({"diloco.v/layers.99.attn_norm.weight", outer.tensors[0].value}); // held no more
  auto state = some_state(250);
  bool complete = true;
  SUBCASE("in the middle of a round with the weights that it began with") {
    add("diloco.w0/", all);
  }
  SUBCASE("but not where those of a unit are missing") {
    add("diloco.w0/", all - 1);
    complete = false;
  }
  SUBCASE("nor at the begin of a round") {
    add("diloco.w0/", all);
    state.round_first_step = state.inner_step;
    complete = false;
  }
  const auto saver = make();
  REQUIRE(ask<save_begun>(*this, saver, save_checkpoint{state, "step"}));
  REQUIRE(saved());
  const auto found = ask<restored>(*this, make(), restore_latest{});
  REQUIRE(found);
  CHECK(found->found);
  CHECK(found->has_round_base == complete);
  REQUIRE(outer_restored);
  REQUIRE(outer_restored->tensors.size() == 3 + (complete ? all : 0));
  for (const auto& [tensor, value] : outer_restored->tensors) {
    const auto* from = script->find(tensor.substr(tensor.find('/') + 1));
    REQUIRE(from);
    CHECK(value.view.bytes() == from->values.size() * sizeof(float));
    CHECK(*value.view.as<const float>() == doctest::Approx(5));
  }
}

TEST_CASE_FIXTURE(fixture, "a checkpoint of before there was an outer loop clears its state") {
  place.write(200, 2);
  has_outer = true;
  const auto found = ask<restored>(*this, make(), restore_latest{});
  REQUIRE(found);
  CHECK(found->found);
  CHECK_FALSE(found->has_round_base);
  REQUIRE(outer_restored);
  CHECK(outer_restored->tensors.empty());
}

TEST_CASE_FIXTURE(fixture,
                  "what was written since the weights of others were taken is newer than higher steps") {
  const auto saver = make();
  for (const auto& [step, taken] : {std::pair<uint64_t, uint64_t>{300, 0}, {100, 1}, {120, 1}}) {
    auto state = some_state(step);
    state.taken_over = taken;
    REQUIRE(ask<save_begun>(*this, saver, save_checkpoint{state, "outer"}));
    REQUIRE(saved());
  }
  const auto listed = list_folder(place.folder);
  REQUIRE(listed.size() == 3);
  CHECK(listed[0].inner_step == 120);
  CHECK(listed[1].inner_step == 100);
  CHECK(ask<restored>(*this, make(), restore_latest{})->state.inner_step == 120);
}

TEST_CASE_FIXTURE(fixture, "without a checkpoint nothing is found and nothing touched") {
  auto actor = make();
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  CHECK_FALSE(found->found);
  CHECK_FALSE(script->loaded);
}

TEST_CASE_FIXTURE(fixture, "a damaged checkpoint is set aside by name and the one before it is used") {
  const auto one = place.write(1, 1);
  const auto two = place.write(2, 2);
  const auto three = place.write(3, 3);
  flip_byte(fs::path(place.folder) / three / "tensors.bin", 5000);
  fs::remove(fs::path(place.folder) / two / "optimizer.bin");
  auto actor = make();
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  CHECK(found->id == one);
  CHECK(found->set_aside == std::vector<std::string>{three + ".damaged", two + ".damaged"});
  CHECK(fs::exists(place.folder + "/" + three + ".damaged/tensors.bin"));
  CHECK_FALSE(fs::exists(place.folder + "/" + three));
  CHECK(script->tensors.front().second.values == tiny_tensors(1).front().second.values);
}

TEST_CASE_FIXTURE(fixture, "leftovers of a killed process are removed at the start") {
  fs::create_directories(place.folder + "/.tmp-5-1");
  set_file_text(place.folder + "/.tmp-5-1/tensors.bin", "half a tensor");
  auto actor = make();
  CHECK(ask<checkpoint_list>(*this, actor, list_atom_v)->empty());
  CHECK_FALSE(fs::exists(place.folder + "/.tmp-5-1"));
}

TEST_CASE_FIXTURE(fixture, "a checkpoint of another architecture or tokenizer is left where it is") {
  const auto id = place.write(1, 1);
  auto other = options();
  other.architecture.num_layers = 4;
  auto actor = keep(sys.spawn(checkpointer, other, worker, time_source_ptr{clock}, counters));
  CHECK_FALSE(ask<restored>(*this, actor, restore_latest{})->found);
  other = options();
  other.tokenizer_hash = std::string(64, '0');
  actor = keep(sys.spawn(checkpointer, other, worker, time_source_ptr{clock}, counters));
  CHECK_FALSE(ask<restored>(*this, actor, restore_latest{})->found);
  CHECK(fs::exists(place.folder + "/" + id));
  CHECK_FALSE(script->loaded);
}

TEST_CASE_FIXTURE(
    fixture, "a place that cannot be written fails the checkpoint, degrades health and frees the snapshot") {
  set_file_text(place.folder, "a file where the folder should be");
  auto actor = make();
  auto begun = ask<save_begun>(*this, actor, save_checkpoint{some_state(1), "step"});
  REQUIRE(begun);
  const auto outcome = failed();
  REQUIRE(outcome);
  CHECK(outcome->inner_step == 1);
  CHECK_FALSE(outcome->message.empty());
  CHECK_FALSE(script->snapshot_open);
  CHECK(ask<actor_status>(*this, actor, status_atom_v)->state == actor_status::health::degraded);
  fs::remove(place.folder);
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(2), "step"}));
  CHECK(saved());
  CHECK(ask<actor_status>(*this, actor, status_atom_v)->state == actor_status::health::ok);
}

TEST_CASE_FIXTURE(fixture,
                  "while one is written an ordinary request is dropped, one that must not be waits") {
  auto actor = make();
  auto first = ask_later<save_begun>(*this, actor, save_checkpoint{some_state(1), "step"});
  auto second = ask_later<save_begun>(*this, actor, save_checkpoint{some_state(2), "time"});
  auto third = ask_later<save_begun>(*this, actor, save_checkpoint{some_state(3), "outer"});
  auto drained = ask_later<caf::unit_t>(*this, actor, drain_atom_v);
  sched.run();
  CHECK(first.receive()->started);
  CHECK_FALSE(second.receive()->started);
  CHECK(third.receive()->started);
  CHECK(drained.receive());
  CHECK(saved()->inner_step == 1);
  CHECK(saved()->inner_step == 3);
  auto listed = ask<checkpoint_list>(*this, actor, list_atom_v);
  REQUIRE(listed);
  REQUIRE(listed->size() == 2);
  CHECK(listed->front().inner_step == 3);
}

TEST_CASE_FIXTURE(fixture, "old checkpoints are pruned as new ones come") {
  auto actor = make();
  for (uint64_t step = 101; step < 109; ++step) {
    REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(step), "step"}));
    CHECK(saved());
    clock->advance_s(60);
  }
  const auto kept = list_folder(place.folder);
  REQUIRE(kept.size() >= 5);
  CHECK(kept.size() <= 6); // the clock may have passed a full hour on the way
  CHECK(kept.front().inner_step == 108);
}

TEST_CASE_FIXTURE(fixture, "later checkpoints of another tokenizer do not push out those of this one") {
  for (uint64_t step = 200; step < 206; ++step)
    place.write(step, 1);
  auto how = options();
  how.tokenizer_hash = std::string(64, '0');
  auto actor = keep(sys.spawn(checkpointer, how, worker, time_source_ptr{clock}, counters));
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(7), "step"}));
  CHECK(saved());
  const auto kept = list_folder(place.folder);
  REQUIRE(kept.size() == 7);
  CHECK(kept.back().inner_step == 7);
}

TEST_CASE_FIXTURE(fixture, "a checkpoint that is asked for while one is being written is loaded after it") {
  auto actor = make();
  script->before_read = [&, asked_for = false](const read_snapshot&) mutable {
    if (!std::exchange(asked_for, true))
      caf::anon_send(actor, restore_latest{}); // whose answer nobody waits for
  };
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(200), "step"}));
  sched.run();
  CHECK(saved());
  CHECK(script->loaded);
  CHECK(ask<restored>(*this, actor, restore_latest{})->found);
}

namespace {

/// A stop ten steps after the end of a round whose own checkpoint is still being written.
training_state after_pending_round() {
  auto state = some_state(210);
  const std::string before(64, 'a');
  state.outer_model_hash = before;
  state.outer_hash_of = 200;
  state.unclaimed = {{before, std::nullopt, 100, 200, 1000}, {before, 200, 200, 210, 100}};
  return state;
}

} // namespace

TEST_CASE_FIXTURE(fixture,
                  "work after a round whose checkpoint was still being written is kept under its hash") {
  auto actor = make();
  auto outer = ask_later<save_begun>(*this, actor, save_checkpoint{some_state(200), "outer"});
  auto stop = ask_later<save_begun>(*this, actor, save_checkpoint{after_pending_round(), "stop"});
  sched.run();
  CHECK(outer.receive());
  CHECK(stop.receive());
  const auto of_round = saved();
  REQUIRE(of_round);
  REQUIRE(of_round->inner_step == 200);
  CHECK(saved());
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  REQUIRE(found->state.inner_step == 210);
  CHECK(found->state.outer_model_hash == of_round->model_hash);
  REQUIRE(found->state.unclaimed.size() == 2);
  CHECK(found->state.unclaimed[0].model_hash_start == std::string(64, 'a'));
  CHECK(found->state.unclaimed[0].step_end == 200);
  CHECK(found->state.unclaimed[1].model_hash_start == of_round->model_hash);
  CHECK(found->state.unclaimed[1].step_begin == 200);
  CHECK(found->state.unclaimed[1].step_end == 210);
  CHECK(found->state.unclaimed[1].label_tokens == 100);
}

TEST_CASE_FIXTURE(fixture, "when that checkpoint failed, the work stays under the hash before") {
  auto actor = make();
  script->before_read = [&, removed = false](const read_snapshot&) mutable {
    if (!std::exchange(removed, true))
      fs::remove_all(place.folder);
  };
  auto outer = ask_later<save_begun>(*this, actor, save_checkpoint{some_state(200), "outer"});
  auto stop = ask_later<save_begun>(*this, actor, save_checkpoint{after_pending_round(), "stop"});
  sched.run();
  CHECK(outer.receive());
  CHECK(stop.receive());
  CHECK(failed());
  CHECK(saved());
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  REQUIRE(found->state.inner_step == 210);
  CHECK(found->state.outer_model_hash == std::string(64, 'a'));
  REQUIRE(found->state.unclaimed.size() == 2);
  CHECK(found->state.unclaimed[1].model_hash_start == std::string(64, 'a'));
}

TEST_CASE_FIXTURE(fixture, "a full disk costs the checkpoint that met it and nothing that is there") {
  const small_disk disk(place.root.path() + "/disk", 700 << 10); // one checkpoint has about 460 KB
  if (disk.missing())
    return;
  place.folder = place.root.path() + "/disk/checkpoints";
  auto actor = make();
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(1), "step"}));
  const auto first = saved();
  REQUIRE(first);
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(2), "step"}));
  const auto outcome = failed();
  REQUIRE(outcome);
  CHECK(outcome->inner_step == 2);
  CHECK(outcome->message.find("No space left on device") != std::string::npos);
  CHECK_FALSE(script->snapshot_open); // training goes on
  const auto status = ask<actor_status>(*this, actor, status_atom_v);
  CHECK(status.value->state == actor_status::health::degraded);
  CHECK(status.value->message == outcome->message);
  // What was begun has given its space back, and the one before is whole.
  size_t entries = 0;
  for (const auto& entry : fs::directory_iterator(place.folder))
    entries += entry.exists() ? 1 : 0;
  CHECK(entries == 1);
  script->tensors = tiny_tensors(9);
  auto found = ask<restored>(*this, actor, restore_latest{});
  REQUIRE(found);
  CHECK(found->id == first->id);
  CHECK(script->tensors.front().second.values == tiny_tensors(1).front().second.values);
}

TEST_CASE_FIXTURE(fixture, "after a full disk has room again the next checkpoint is written") {
  small_disk disk(place.root.path() + "/disk", 100 << 10);
  if (disk.missing())
    return;
  place.folder = place.root.path() + "/disk/checkpoints";
  auto actor = make();
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(1), "step"}));
  CHECK(failed());
  disk.resize(2 << 20);
  REQUIRE(ask<save_begun>(*this, actor, save_checkpoint{some_state(2), "step"}));
  CHECK(saved());
  CHECK(ask<actor_status>(*this, actor, status_atom_v)->state == actor_status::health::ok);
}
