// The weights of others: whether this node needs them, and how they come into its worker
// (spec/training.md section 4, "Resync").
#include "actors/checkpointer/transfer_manifest.hpp"
#include "actors/common/log.hpp"
#include "actors/trainer/trainer.hpp"

#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr int64_t look_every_us = 1'000'000;
constexpr auto step_timeout = std::chrono::seconds(120);
constexpr auto load_timeout = std::chrono::seconds(3'600); ///< one tensor after the other, each with its own
constexpr uint32_t write_tries_max = 120;                  ///< of a tick each

} // namespace

own_weights trainer_state::held_now() const {
  own_weights own;
  own.node_id = options.node_id;
  own.architecture_id = options.architecture_id;
  own.version = state.outer_step;
  own.units = options.units;
  own.known = parts.resync.announced(state.outer_step);
  own.base_lost = apart;
  return own;
}

/// Looks once a second. True while the weights of others are to be taken, or waited for.
bool trainer_state::is_behind() {
  const int64_t now_us = parts.time->steady_us();
  if (!parts.resync.fetcher || (looked_us && now_us - *looked_us < look_every_us))
    return watch.syncing();
  looked_us = now_us;
  const bool before = watch.syncing();
  watch.look(held_now(), *parts.resync.peers(), now_us);
  if (!before && watch.syncing()) {
    log::info(name, "syncing step={} outer={} why=\"other weights stand\"", state.inner_step,
              state.outer_step);
    publish();
  } else if (before && !watch.syncing()) {
    log::info(name, "not-syncing step={} outer={} why=\"nobody holds other weights any more\"",
              state.inner_step, state.outer_step);
    error.clear();
    drop_taken();
    publish();
  }
  return watch.syncing();
}

/// A duty: true when something has been sent off.
bool trainer_state::catch_up() {
  if (!is_behind()) {
    if (!left_behind)
      return false;
    go_on_after(*std::exchange(left_behind, std::nullopt));
    return true;
  }
  if (taken_from_others) { // it is all here; the worker was busy
    now = phase::waiting;
    write_next_part();
    return true;
  }
  auto what = watch.take(parts.time->steady_us());
  if (!what)
    return false;
  release_stages();
  route.hops.clear();
  const bool changed = state.inner_step != checkpoint_step || checkpoint_missing;
  if (changed && !std::exchange(own_state_saved, true)) {
    save("resync");
    return true;
  }
  begin_taking(std::move(*what));
  return true;
}

void trainer_state::begin_taking(standing_weights what) {
  now = phase::waiting;
  taken_from_others.emplace().what = std::move(what);
  publish();
  fetch_next_part();
}

void trainer_state::fetch_next_part() {
  auto& taking = *taken_from_others;
  if (taking.got.size() == taking.what.parts.size()) {
    for (const auto& part : taking.got)
      for (const auto& tensor : part.tensors)
        if (tensor.name.starts_with(velocity_prefix))
          taking.unread.emplace_back(part.fetch_id, tensor.name);
    return read_next_velocity();
  }
  const auto& part = taking.what.parts[taking.got.size()];
  // The fetcher bounds how long each candidate may be silent.
  self->request(parts.resync.fetcher, caf::infinite,
                fetch_units{part.candidates, taking.what.version, part.units, true, false})
      .then(
          [me = self](fetched_units& got) {
            me->state.taken_from_others->got.push_back(std::move(got));
            me->state.fetch_next_part();
          },
          [me = self](const caf::error& e) { me->state.taking_failed(e, true); });
}

void trainer_state::read_next_velocity() {
  auto& taking = *taken_from_others;
  if (taking.unread.empty())
    return settle_before_write();
  const auto& [fetch_id, tensor] = taking.unread.back();
  self->request(parts.resync.fetcher, step_timeout, read_fetched{fetch_id, tensor})
      .then(
          [me = self](tensor_handle& value) {
            auto& taking = *me->state.taken_from_others;
            taking.velocity.push_back({std::move(taking.unread.back().second), std::move(value)});
            taking.unread.pop_back();
            me->state.read_next_velocity();
          },
          [me = self](const caf::error& e) { me->state.taking_failed(e, false); });
}

/// No checkpoint is being written any more, the count of Adam's steps is known, and the outer loop has
/// forgotten its round: then the weights may change.
void trainer_state::settle_before_write() {
  const auto failed = [me = self](const caf::error& e) { me->state.taking_failed(e, false); };
  const auto restore = [me = self, failed] {
    auto& trainer = me->state;
    if (!trainer.parts.outer)
      return trainer.write_next_part();
    me->request(trainer.parts.outer, step_timeout,
                restore_outer_state{std::move(trainer.taken_from_others->velocity)})
        .then([me] { me->state.write_next_part(); }, failed);
  };
  const auto count_steps = [me = self, failed, restore] {
    me->request(me->state.parts.worker, step_timeout, open_snapshot{true})
        .then(
            [me, restore, failed](const snapshot_opened& view) {
              me->state.taken_from_others->optimizer_step = view.optimizer_step;
              me->request(me->state.parts.worker, step_timeout, close_snapshot{view.snapshot_id})
                  .then(restore, failed);
            },
            failed);
  };
  round_begun = false;
  self->request(parts.checkpointer, load_timeout, drain_atom_v).then(count_steps, failed);
}

void trainer_state::write_next_part() {
  auto& taking = *taken_from_others;
  if (taking.written == taking.got.size())
    return weights_taken();
  self->request(parts.resync.fetcher, load_timeout,
                write_fetched{taking.got[taking.written].fetch_id, parts.worker, taking.optimizer_step})
      .then(
          [me = self] {
            ++me->state.taken_from_others->written;
            me->state.write_next_part();
          },
          [me = self](const caf::error& e) { me->state.write_failed(e); });
}

void trainer_state::write_failed(const caf::error& why) {
  auto& taking = *taken_from_others;
  // A driver that is bound here is in a step; nothing was written yet. Once something is, it gets no further.
  if (problem_of(why).reason == "step_under_way" && taking.written == 0 && ++taking.tries < write_tries_max) {
    now = phase::paused;
    waits_for_weights = true;
    return publish();
  }
  log::error(name, "weights-not-written why=\"{}\"", problem_of(why).message);
  // What the worker holds may be a mixture now.
  self->request(parts.checkpointer, load_timeout, restore_latest{})
      .then(
          [me = self, why](const restored& own) {
            if (!own.found)
              return me->state.fail("the weights of others were written in part, and there is no checkpoint");
            me->state.adopt(own);
            me->state.taking_failed(why, false);
          },
          [me = self](const caf::error& e) { me->state.fail(problem_of(e).message); });
}

/// The counters are those of the checkpoint; what this node alone knows stays: its place in the data, Adam's
/// steps, work that is not proven yet.
void trainer_state::weights_taken() {
  const auto& taking = *taken_from_others;
  const auto& theirs = taking.got.front().state;
  std::vector<unit_state> units;
  uint64_t bytes = 0;
  for (const auto& part : taking.what.parts)
    units.insert(units.end(), part.units.begin(), part.units.end());
  for (const auto& part : taking.got)
    bytes += part.bytes;
  state.outer_step = taking.what.version;
  state.inner_step = state.round_first_step = theirs.inner_step;
  state.tokens_trained = theirs.tokens_trained;
  state.validation_loss = theirs.validation_loss;
  state.inner_steps = 0;
  state.optimizer_step = taking.optimizer_step;
  ++state.taken_over;
  if (!metrics.ema() && theirs.loss > 0) {
    training_state known;
    known.loss = theirs.loss;
    metrics.restore(known);
    last_loss = metrics.ema();
  }
  // Steps that will be counted again were taken on weights that do not stand.
  unproven.begin(state.inner_step, {}, unproven.open(state.inner_step));
  state.outer_model_hash.clear(); // until the checkpoint of it is on disk
  log::info(name, "weights-taken outer={} step={} units={} bytes={} from={}", state.outer_step,
            state.inner_step, units.size(), bytes, taking.got.front().from);
  parts.resync.announce(std::move(units), state.outer_step);
  drop_taken();
  watch.taken();
  left_behind.reset();
  round_over = 0;
  own_state_saved = false;
  apart = base_restored = first_checkpoint_due = false;
  failures_of_step = nonfinite_in_row = 0;
  failed_nodes.clear();
  error.clear();
  outer_checkpoint_due = true;
  validation_due = has_heldout();
  publish();
  refresh(true, false);
}

/// `of_nodes`: those who were asked could not give it.
void trainer_state::taking_failed(const caf::error& why, bool of_nodes) {
  std::vector<std::string> nodes;
  if (of_nodes) {
    const auto& taking = *taken_from_others;
    for (const auto& candidate : taking.what.parts[taking.got.size()].candidates)
      nodes.push_back(candidate.node_id);
  }
  drop_taken();
  const bool again = watch.failed(nodes, parts.time->steady_us());
  auto text = "the weights that stand could not be had: " + problem_of(why).message;
  if (again && error.empty())
    log::warn(name, "weights-not-had step={} why=\"{}\"", state.inner_step, text);
  if (again) {
    error = std::move(text);
  } else {
    log::warn(name, "weights-given-up step={} why=\"{}\"", state.inner_step, text);
    error.clear();
  }
  own_state_saved = again;
  now = phase::boundary;
  boundary();
}

void trainer_state::drop_taken() {
  if (!taken_from_others)
    return;
  for (const auto& part : taken_from_others->got)
    self->send(parts.resync.fetcher, drop_fetched{part.fetch_id});
  taken_from_others.reset();
}

} // namespace neuroshard
