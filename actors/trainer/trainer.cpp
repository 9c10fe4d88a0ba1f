#include "actors/trainer/trainer.hpp"

#include "actors/common/learning_rate.hpp"
#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto tick_period = std::chrono::milliseconds(500);
constexpr double trained_gain_nats = 1.0;

} // namespace

caf::result<void> trainer_state::start(const restored& from) {
  if (now != phase::idle)
    return refuse(errc::failed_precondition, "training has been started already");
  const int64_t now_us = parts.time->steady_us();
  checkpoint_us = now_us;
  refreshed_us = now_us;
  adopt(from);
  first_checkpoint_due = !from.found;
  if (from.found)
    be_lean();
  validation_due = state.inner_step == 0;
  log::info(name, "start step={} outer={} tokens={} enabled={}", state.inner_step, state.outer_step,
            state.tokens_trained, options.enabled);
  // The peak may be another than the worker began with; and a paused trainer still makes its first
  // checkpoint.
  rate_changed = true;
  now = phase::boundary;
  publish();
  self->send(self, next_atom_v);
  return caf::unit;
}

void trainer_state::adopt(const restored& from) {
  state = from.found ? from.state : training_state{};
  state.taken_over = from.state.taken_over;
  // A batch that was halved for want of memory stays so until the operator asks for another.
  if (state.batch_size == 0 || state.batch_configured != options.batch_size)
    state.batch_size = options.batch_size;
  state.batch_configured = options.batch_size;
  cursor = {};
  if (!state.data_cursor.empty()) {
    const auto parsed = text::data_cursor::parse(state.data_cursor);
    if (parsed.ok())
      cursor = *parsed;
    else
      log::warn(name, "data-cursor-unreadable why={}", parsed.status().message());
  }
  metrics.restore(state);
  last_loss = metrics.ema();
  // A checkpoint of a round's end is the outer step's own; its hash was not known when its state was written.
  if (from.found && state.inner_step == state.round_first_step && !from.model_hash.empty())
    state.outer_model_hash = from.model_hash;
  unproven.begin(state.inner_step, state.outer_model_hash, std::exchange(state.unclaimed, {}));
  checkpoint_step = state.inner_step;
  refreshed_step = state.inner_step;
  round_begun = false;
  base_restored = from.has_round_base && parts.outer;
  apart = state.inner_step != state.round_first_step && !base_restored;
  left_behind.reset();
  outer_saves.clear();
  if (!from.found)
    return;
  // The ledger may have been closed before it heard of these checkpoints.
  note(state.outer_model_hash, state.inner_step);
  for (const auto& work : unproven.open(state.inner_step))
    if (work.model_hash_start != state.outer_model_hash)
      note(work.model_hash_start, work.step_begin);
}

void trainer_state::set_enabled(bool enabled) {
  if (options.enabled == enabled)
    return;
  if (options.serves_only && enabled && parts.data) {
    log::info(name, "renewing why=\"training needs memory that this node was not started with\"");
    if (parts.renew)
      parts.renew();
    return;
  }
  options.enabled = enabled;
  log::info(name, "{} step={}", enabled ? "resumed" : "paused", state.inner_step);
  if (enabled && (now == phase::paused || now == phase::failed)) {
    error.clear();
    failures_of_step = 0;
    nonfinite_in_row = 0;
    failed_in_row = 0;
    reloads = 0;
    now = phase::boundary;
    metrics.pause();
    self->send(self, next_atom_v);
  }
  if (!enabled && now == phase::paused) {
    error.clear(); // of a node without data, from which nobody expects anything now
    waits_for_data = false;
    waits_for_route = false;
  }
  publish();
}

// --------------------------------------------------------------------------------------------------- end

void trainer_state::stop_requested(int64_t patience_us) {
  stop_deadline_us = parts.time->steady_us() + patience_us;
  if (now == phase::idle || now == phase::stopped)
    return stopped();
  if (now == phase::paused || now == phase::failed || (now == phase::boundary && !step)) {
    now = phase::boundary;
    self->send(self, next_atom_v);
  } else {
    self->delayed_send(self, std::chrono::microseconds(patience_us), next_atom_v);
  }
}

/// Called at a step boundary once everything else there is done.
void trainer_state::stop_at_boundary() {
  const bool changed = state.inner_step != checkpoint_step || checkpoint_missing;
  if (changed && !stop_saving) {
    stop_saving = true;
    return save("stop"); // its outcome calls stopped()
  }
  if (!stop_saving)
    stopped();
}

void trainer_state::stopped() {
  if (now != phase::stopped)
    release_stages();
  now = phase::stopped;
  publish();
  for (auto& promise : stop_promises)
    promise.deliver(caf::unit);
  stop_promises.clear();
}

void trainer_state::on_tick() {
  // What has been trained must reach the disk in time also when training pauses.
  const bool looks_again = waits_for_route && parts.time->steady_us() >= route_again_us;
  if (now == phase::paused && (waits_for_data || looks_again || watch.syncing() || is_behind() ||
                               left_behind || waits_for_weights || time_checkpoint_due())) {
    now = phase::boundary;
    return boundary();
  }
  if (stop_promises.empty() || now != phase::stepping || !step || step->dropping ||
      parts.time->steady_us() < stop_deadline_us)
    return;
  log::info(name, "step-dropped step={}", step->number);
  discard([me = self] {
    me->state.step.reset();
    me->state.now = phase::boundary;
    me->state.boundary();
  });
}

void trainer_state::fail(std::string why) {
  log::error(name, "stands-still step={} why={}", state.inner_step, why);
  error = std::move(why);
  waits_for_data = false;
  waits_for_route = false;
  options.enabled = false;
  ++epoch;
  step.reset();
  now = phase::failed;
  publish();
  if (!stop_promises.empty())
    stop_at_boundary();
}

// ----------------------------------------------------------------------------------------------- reports

training_state trainer_state::snapshot_state() const {
  training_state all = state;
  metrics.store(all);
  all.data_cursor = cursor.to_json();
  return all;
}

void trainer_state::publish() {
  const int64_t now_us = parts.time->steady_us();
  auto p = std::make_shared<training_progress>();
  p->enabled = options.enabled;
  p->syncing = taken_from_others || watch.syncing();
  p->running = !p->syncing && (now == phase::stepping || now == phase::waiting ||
                               (now == phase::boundary && options.enabled));
  p->inner_step = state.inner_step;
  p->outer_step = state.outer_step;
  p->steps_in_round = state.inner_step - state.round_first_step;
  p->diloco_steps = options.diloco_steps;
  p->tokens_trained = state.tokens_trained;
  p->tokens_seen_here = tokens_seen_here;
  p->loss = last_loss;
  p->loss_ema = metrics.ema();
  p->loss_min = metrics.least();
  p->validation_loss = state.validation_loss;
  p->untrained_loss = state.untrained_loss;
  const auto& rate = options.optimizer;
  p->learning_rate =
      learning_rate_at(rate.learning_rate, rate.warmup_steps, rate.decay_steps, state.inner_step);
  p->grad_norm = step ? step->grad_norm : progress ? progress->grad_norm : 0;
  p->tokens_per_second = metrics.tokens_per_second(now_us);
  p->tokens_per_second_best = metrics.best_tokens_per_second();
  if (const double speed = metrics.steps_per_second(now_us); speed > 0 && rate.decay_steps > state.inner_step)
    p->eta_seconds = static_cast<double>(rate.decay_steps - state.inner_step) / speed;
  // Without held-out data the EMA of the training loss stands in; a node that only serves tells what its
  // checkpoint told.
  const bool measured = has_heldout() || (!parts.data && state.validation_loss);
  const auto judged = measured ? state.validation_loss : metrics.ema();
  p->trained =
      judged && options.vocab_size > 1 && *judged <= std::log(options.vocab_size) - trained_gain_nats;
  p->loss_history = metrics.history();
  p->loss_first = metrics.first();
  p->shards_covered = shards_covered;
  p->outer_model_hash = state.outer_model_hash;
  p->batch_size = state.batch_size == 0 ? options.batch_size : state.batch_size;
  p->seq_len = options.seq_len;
  p->syncs_done = syncs_done;
  p->syncs_failed = syncs_failed;
  if (!syncs.empty())
    p->sync_success_rate =
        static_cast<double>(std::count(syncs.begin(), syncs.end(), true)) / static_cast<double>(syncs.size());
  p->error = error;
  progress = p;
  if (parts.published)
    parts.published(progress);
}

actor_status trainer_state::report() const {
  actor_status status;
  status.name = name;
  if (!error.empty()) {
    // Without data, or while it is on its way, the node still serves: nothing is broken.
    const bool waits = waits_for_data || waits_for_route || waits_for_weights;
    status.state = parts.data && !waits ? actor_status::health::error : actor_status::health::degraded;
    status.message = error;
  }
  status.values = {{"step", std::to_string(state.inner_step)},
                   {"outer_step", std::to_string(state.outer_step)},
                   {"enabled", options.enabled ? "1" : "0"},
                   {"batch_size", std::to_string(state.batch_size)},
                   {"nonfinite_in_row", std::to_string(nonfinite_in_row)}};
  return status;
}

trainer_actor::behavior_type trainer(trainer_state::pointer self, trainer_options options,
                                     trainer_parts parts) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.parts = std::move(parts);
  state.log = training_log(state.options.log_folder);
  state.publish();
  self->send(self, tick_atom_v);
  return {
      [self](start_atom, const restored& from) { return self->state.start(from); },
      [self](const set_training& change) -> caf::result<void> {
        self->state.set_enabled(change.enabled);
        return caf::unit;
      },
      [self](const training_patch& change) -> caf::result<void> {
        auto& next = self->state.patch;
        if (change.learning_rate)
          next.learning_rate = change.learning_rate;
        if (change.batch_size)
          next.batch_size = change.batch_size;
        if (change.diloco_steps)
          next.diloco_steps = change.diloco_steps;
        return caf::unit;
      },
      [self](progress_atom) -> training_progress_ptr { return self->state.progress; },
      [self](const stop_training& how) -> caf::result<void> {
        auto promise = self->make_response_promise<caf::unit_t>();
        self->state.stop_promises.push_back(promise);
        self->state.stop_requested(how.patience_us);
        return promise;
      },
      [self](const take_work& most) { return self->state.unproven.offer(most.tokens_max, most.steps_max); },
      [self](const work_proven& done) { self->state.unproven.proven(done.step_begin, done.step_end); },
      [self](const round_ends& over) { self->state.round_ended_by_other(over.round); },
      [self](const checkpoint_saved& saved) { self->state.save_ended(saved.inner_step, &saved); },
      [self](const checkpoint_failed& failed) {
        log::warn(self->state.name, "checkpoint-failed step={} why={}", failed.inner_step, failed.message);
        if (failed.inner_step == self->state.checkpoint_step)
          self->state.checkpoint_missing = true;
        self->state.save_ended(failed.inner_step, nullptr);
      },
      [self](next_atom) {
        self->state.on_tick();
        self->state.boundary();
      },
      [self](tick_atom) {
        self->state.on_tick();
        self->delayed_send(self, tick_period, tick_atom_v);
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard
