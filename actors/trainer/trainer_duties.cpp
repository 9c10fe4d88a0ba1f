// What is due between two steps: patches, route and binding, the end of a round, validation, checkpoints,
// serving copies.
#include "actors/common/log.hpp"
#include "actors/identity/keys.hpp"
#include "actors/relay/route_hops.hpp"
#include "actors/trainer/trainer.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace neuroshard {

namespace {

constexpr auto short_timeout = std::chrono::seconds(30);
constexpr auto long_timeout = std::chrono::seconds(600);
constexpr uint32_t reloads_max = 3;
constexpr int64_t score_budget_us = 120'000'000;

} // namespace

/// The one way on: every duty ends in here again, until none is left and the next step begins.
void trainer_state::boundary() {
  if (now != phase::boundary)
    return;
  if (do_next_duty())
    return;
  if (!stop_promises.empty())
    return stop_at_boundary();
  waits_for_weights = watch.syncing();
  if (waits_for_weights) {
    now = phase::paused;
    metrics.pause();
    return publish();
  }
  if (options.enabled && options.drives && !parts.data) {
    error = "there is nothing to train on: data.corpus and data.shards are empty";
    log::warn(name, "idle why=\"{}\"", error);
  }
  if (!options.enabled || !options.drives || !parts.data) {
    now = phase::paused;
    metrics.pause();
    return publish();
  }
  if (wait_for_data())
    return;
  if (waits_for_route) {
    now = phase::paused;
    metrics.pause();
    return publish();
  }
  begin_step();
}

/// A shard of a mirror may not be here yet: then training pauses, and looks again every second.
bool trainer_state::wait_for_data() {
  cursor = parts.data->settle(cursor);
  const auto readable = parts.data->ready(cursor);
  if (readable.ok()) {
    if (waits_for_data)
      error.clear();
    waits_for_data = false;
    return false;
  }
  if (!waits_for_data || error != readable.message())
    log::info(name, "waits why=\"{}\"", readable.message());
  waits_for_data = true;
  error = readable.message();
  now = phase::paused;
  metrics.pause();
  publish();
  return true;
}

/// A duty has been sent off; `boundary` goes on when its answer is there.
void trainer_state::wait_for_next() {
  if (now == phase::waiting)
    now = phase::boundary;
  boundary();
}

bool trainer_state::do_next_duty() {
  const int64_t now_us = parts.time->steady_us();
  const bool stopping = !stop_promises.empty();
  apply_patch();
  if (rate_changed) {
    rate_changed = false;
    now = phase::waiting;
    self->request(parts.worker, short_timeout, options.optimizer)
        .then([me = self] { me->state.wait_for_next(); },
              [me = self](const caf::error& e) { me->state.fail(problem_of(e).message); });
    return true;
  }
  if (first_checkpoint_due) {
    first_checkpoint_due = false;
    save("first");
    return true;
  }
  if (stopping)
    return false;
  if (catch_up())
    return true;
  if (watch.syncing())
    return false;
  if (round_is_over()) {
    if (parts.outer && !round_begun && !apart) { // it ends before it began here
      begin_round_at_base();
      return true;
    }
    end_round();
    return true;
  }
  if (outer_checkpoint_due) {
    outer_checkpoint_due = false;
    save("outer");
    return true;
  }
  // A driver's round begins when its steps do, so that who holds what is settled by then.
  const bool steps = options.enabled && options.drives && parts.data;
  if (!round_begun && parts.outer && !steps) {
    begin_round_at_base();
    return true;
  }
  // What is held out of a mirror may come later; then it is measured at once.
  if (validation_due && options.drives && has_heldout() && route.hops.empty() && !waits_for_route) {
    find_route();
    return true;
  }
  if (validation_due && has_heldout() && !route.hops.empty()) {
    validation_due = false;
    refresh(true, true);
    return true;
  }
  if (time_checkpoint_due()) {
    save("time");
    return true;
  }
  if (!options.enabled || !options.drives || !parts.data) {
    if (state.inner_step == refreshed_step || !serves_inner_weights())
      return false;
    refresh(true, false); // who pauses the training is answered by what it has come to
    return true;
  }
  if (state.inner_step >= checkpoint_step + options.checkpoint_every_steps) {
    save("step");
    return true;
  }
  if (serves_inner_weights() && state.inner_step != refreshed_step &&
      now_us - refreshed_us >= int64_t{options.refresh_s} * 1'000'000)
    refresh(false, false); // ordered before the next micro-batch by the worker; nobody waits
  if (route.hops.empty()) {
    if (waits_for_route && now_us < route_again_us)
      return false;
    find_route();
    return true;
  }
  if (!round_begun && parts.outer) {
    begin_round_at_base();
    return true;
  }
  if (!bound) {
    bind();
    return true;
  }
  return false;
}

bool trainer_state::time_checkpoint_due() const {
  return (state.inner_step != checkpoint_step || checkpoint_missing) &&
         parts.time->steady_us() - checkpoint_us >= int64_t{options.checkpoint_every_s} * 1'000'000;
}

void trainer_state::apply_patch() {
  if (patch.learning_rate && *patch.learning_rate != options.optimizer.learning_rate) {
    options.optimizer.learning_rate = *patch.learning_rate;
    rate_changed = true;
  }
  if (patch.batch_size) {
    options.batch_size = *patch.batch_size;
    state.batch_size = *patch.batch_size;
    state.batch_configured = *patch.batch_size;
  }
  // A new length of rounds holds from the next round on; a round that has not begun takes it at once.
  if (patch.diloco_steps && state.inner_step == state.round_first_step)
    options.diloco_steps = *std::exchange(patch.diloco_steps, std::nullopt);
  patch.learning_rate.reset();
  patch.batch_size.reset();
}

bool trainer_state::round_is_over() const {
  return round_over > state.outer_step ||
         (options.drives && state.inner_step - state.round_first_step >= options.diloco_steps);
}

/// Alone a round ends with the weights it has: bookkeeping, a checkpoint, a serving copy of the new version,
/// the held-out loss.
void trainer_state::end_round() {
  if (parts.outer && !apart)
    return leave_round();
  if (!serves_inner_weights() || !options.drives) // steps count on as they do for the others
    state.inner_step = state.round_first_step + options.diloco_steps;
  round_begun = false;
  apart = false;
  ++state.outer_step;
  state.round_first_step = state.inner_step;
  state.inner_steps = 0;
  if (patch.diloco_steps)
    options.diloco_steps = *std::exchange(patch.diloco_steps, std::nullopt);
  release_stages();       // the next round is bound anew, at its version
  validation_due = false; // measured now, so that the checkpoint of the outer step tells it
  outer_checkpoint_due = true;
  log::info(name, "outer-step outer={} step={} loss={:.4f}", state.outer_step, state.inner_step,
            metrics.ema().value_or(0));
  if (parts.keeper) // a proof that ends here can be followed by one that begins with known weights
    caf::anon_send(caf::actor_cast<caf::actor>(parts.keeper), round_ended_atom_v);
  refresh(true, has_heldout() && !route.hops.empty());
}

// ------------------------------------------------------------------------------------------- checkpoints

void trainer_state::save(const std::string& reason) {
  now = phase::waiting;
  const uint64_t at = state.inner_step;
  checkpoint_step = at;
  checkpoint_us = parts.time->steady_us();
  checkpoint_missing = false;
  const bool ends_round = at == state.round_first_step;
  if (ends_round) {
    outer_saves.push_back(at);
    unproven.round_ended(at);
  }
  auto what = snapshot_state();
  what.unclaimed = unproven.open(at);
  what.outer_hash_of = unproven.outer_under_way();
  if (what.outer_hash_of == at) // a checkpoint cannot hold its own hash; a start from it knows it
    what.outer_hash_of.reset();
  const bool stopping = reason == "stop";
  // The answer comes as soon as the view of the weights is open; the writing goes on beside the next steps.
  self->request(parts.checkpointer, long_timeout, save_checkpoint{std::move(what), reason})
      .then(
          [me = self, stopping, at](const save_begun& begun) {
            if (stopping && begun.started)
              return; // the outcome is waited for
            if (!begun.started)
              me->state.not_saved(at);
            if (stopping)
              return me->state.stopped();
            me->state.wait_for_next();
          },
          [me = self, stopping, at](const caf::error& e) {
            log::warn(name, "checkpoint-not-begun why={}", problem_of(e).message);
            me->state.not_saved(at);
            if (stopping)
              return me->state.stopped();
            me->state.wait_for_next();
          });
}

/// The checkpoint of this step was not begun.
void trainer_state::not_saved(uint64_t inner_step) {
  checkpoint_missing = true;
  if (std::erase(outer_saves, inner_step) > 0)
    unproven.outer_saved(inner_step, {});
  commit_first_steps();
}

/// The outcome of a checkpoint; `saved` is null when it failed.
void trainer_state::save_ended(uint64_t inner_step, const checkpoint_saved* saved) {
  const auto at = std::find(outer_saves.begin(), outer_saves.end(), inner_step);
  const bool of_outer = at != outer_saves.end();
  if (of_outer) {
    outer_saves.erase(at);
    unproven.outer_saved(inner_step, saved != nullptr ? saved->model_hash : std::string());
    commit_first_steps();
  }
  if (saved != nullptr && of_outer) {
    state.outer_model_hash = saved->model_hash;
    note(state.outer_model_hash, inner_step);
    publish(); // a paused node has no step that would tell
  }
  if (saved != nullptr)
    be_lean();
  if (stop_saving && inner_step == state.inner_step)
    stopped();
}

/// Nothing will change the weights that are on disk: the worker need not keep what only training and saving
/// use.
void trainer_state::be_lean() {
  if (options.serves_only)
    caf::anon_send(caf::actor_cast<caf::actor>(parts.worker), lean_atom_v);
}

/// Tells the ledger of a checkpoint on disk whose hash work will be proven with.
void trainer_state::note(const std::string& model_hash, uint64_t inner_step) {
  const auto digest = digest_from_hex(model_hash); // the text may come from a file
  if (!parts.ledger || !digest)
    return;
  self->request(parts.ledger, short_timeout, note_checkpoint{options.architecture_id, *digest, inner_step})
      .then(
          [](const checkpoint_noted&) {},
          [](const caf::error& e) { log::warn(name, "checkpoint-not-noted why={}", problem_of(e).message); });
}

/// Ten steps in a row were not finite: the weights of the last checkpoint are taken again.
void trainer_state::reload() {
  nonfinite_in_row = 0;
  if (++reloads > reloads_max)
    return fail("the loss stays non-finite also after the last checkpoint was loaded again; lower "
                "training.learning_rate");
  log::warn(name, "reload step={}", state.inner_step);
  now = phase::waiting;
  self->request(parts.checkpointer, long_timeout, restore_latest{})
      .then(
          [me = self](const restored& from) {
            if (!from.found)
              return me->state.fail("the loss is not finite, and there is no checkpoint to go back to");
            me->state.adopt(from);
            me->state.bound = false;
            me->state.wait_for_next();
          },
          [me = self](const caf::error& e) { me->state.fail(problem_of(e).message); });
}

// ---------------------------------------------------------------------------- serving copy, held-out loss

void trainer_state::refresh(bool wait, bool then_score) {
  refreshed_step = state.inner_step;
  refreshed_us = parts.time->steady_us();
  if (wait)
    now = phase::waiting;
  self->request(parts.worker, long_timeout, refresh_serving{state.outer_step, state.inner_step})
      .then(
          [me = self, wait, then_score](const serving_info&) {
            if (then_score) {
              me->state.scoring = 0;
              return me->state.score_next();
            }
            if (wait)
              me->state.wait_for_next();
          },
          [me = self, wait](const caf::error& e) {
            log::warn(name, "serving-copy-not-made why={}", problem_of(e).message);
            if (wait)
              me->state.wait_for_next();
          });
}

void trainer_state::score_next() {
  if (!stop_promises.empty() || route.hops.empty()) { // the node is stopping: no time for this
    scoring.reset();
    return wait_for_next();
  }
  if (*scoring == 0) {
    const auto rows =
        rows_per_part(text::heldout_windows, 1, options.seq_len, options.microbatch_positions_max);
    auto drawn = heldout_batch(*parts.data, options.seq_len, rows);
    if (!drawn.ok()) {
      log::warn(name, "held-out-unreadable why={}", drawn.status().message());
      scoring.reset();
      return wait_for_next();
    }
    heldout = std::move(*drawn);
    heldout_sum = 0;
  }
  if (*scoring == heldout.parts.size()) {
    scoring.reset();
    if (heldout.label_count > 0 && std::isfinite(heldout_sum)) {
      state.validation_loss = heldout_sum / static_cast<double>(heldout.label_count);
      if (state.inner_step == 0)
        state.untrained_loss = state.validation_loss;
      log::info(name, "validation step={} loss={:.4f}", state.inner_step, *state.validation_loss);
    }
    heldout = {};
    publish();
    return wait_for_next();
  }
  const auto& part = heldout.parts[*scoring];
  forward_request call;
  call.header = header();
  call.header.deadline_steady_us = parts.time->steady_us() + score_budget_us;
  call.mode = forward_mode::score;
  call.layer_begin = route.hops.front().layer_begin;
  call.layer_end = route.hops.front().layer_end;
  call.apply_head = true;
  call.reply_dtype = options.wire;
  call.token_ids = integers(part.ids, part.rows, options.seq_len);
  call.labels = integers(part.labels, part.rows, options.seq_len);
  self->request(parts.relay, long_timeout, routed_forward{std::move(call), hops_after_first(route), {}})
      .then(
          [me = self](const routed_forward_reply& reply) {
            me->state.heldout_sum += reply.work.loss * reply.work.label_count;
            ++*me->state.scoring;
            me->state.score_next();
          },
          [me = self](const caf::error& e) {
            log::warn(name, "validation-failed why={}", problem_of(e).message);
            me->state.scoring.reset();
            me->state.wait_for_next();
          });
}

} // namespace neuroshard
