// One inner step: batch, micro-batches, COMMIT; and what is done when one of them fails.
#include "actors/common/log.hpp"
#include "actors/identity/keys.hpp"
#include "actors/proof_keeper/gradient_commitment.hpp"
#include "actors/trainer/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace neuroshard {

namespace {

constexpr auto work_timeout =
    std::chrono::seconds(600); ///< a micro-batch of the largest shape on a slow machine
constexpr auto discard_timeout = std::chrono::seconds(60);
constexpr auto book_timeout = std::chrono::seconds(30);
constexpr uint32_t failures_max = 3;
constexpr uint32_t nonfinite_max = 10;
constexpr uint32_t failed_steps_max = 10;

} // namespace

work_header trainer_state::header() const {
  work_header to;
  to.request_id = "train-" + std::to_string(state.inner_step + 1);
  to.session_id = options.node_id; // one per node: a trainer that was restarted binds anew at once
  to.model_version = state.outer_step;
  to.architecture_id = options.architecture_id;
  return to;
}

void trainer_state::begin_step() {
  now = phase::stepping;
  const uint64_t number = state.inner_step + 1;
  const auto rows = rows_per_part(state.batch_size, options.microbatches, options.seq_len,
                                  options.microbatch_positions_max);
  auto drawn = draw_batch(*parts.data, cursor, number, state.batch_size, options.seq_len, rows);
  if (!drawn.ok())
    return fail(drawn.status().message());
  step.emplace();
  step->number = number;
  step->batch = std::move(*drawn);
  const uint64_t shard = parts.data->shard_id(cursor);
  const auto at = std::lower_bound(shards_covered.begin(), shards_covered.end(), shard);
  if (at == shards_covered.end() || *at != shard)
    shards_covered.insert(at, shard);
  if (step->batch.parts.empty())
    return skip("the batch has no labels", false);
  send_part();
}

void trainer_state::send_part() {
  auto& batch = step->batch;
  auto& part = batch.parts[step->next_part];
  forward_request call;
  call.header = header();
  call.mode = forward_mode::train;
  call.layer_begin = route.hops.front().layer_begin;
  call.layer_end = route.hops.front().layer_end;
  call.apply_head = true;
  call.token_ids = integers(part.ids, part.rows, batch.seq);
  call.labels = integers(part.labels, part.rows, batch.seq);
  call.microbatch_id = static_cast<uint32_t>(step->next_part);
  call.step = step->number;
  call.loss_scale =
      static_cast<float>(static_cast<double>(part.label_count) / static_cast<double>(batch.label_count));
  call.last_microbatch = step->next_part + 1 == batch.parts.size();
  call.omit_tensors = true;
  self->request(parts.worker, work_timeout, std::move(call))
      .then(
          [me = self, at = epoch](const forward_reply& reply) {
            if (at == me->state.epoch)
              me->state.part_answered(reply);
          },
          [me = self, at = epoch](const caf::error& e) {
            if (at == me->state.epoch)
              me->state.step_failed(e);
          });
}

void trainer_state::part_answered(const forward_reply& reply) {
  step->loss_sum += reply.loss * reply.label_count;
  if (!std::isfinite(reply.loss) || !std::isfinite(reply.report.grad_norm_sq))
    return skip("the loss or the gradient is not finite", true);
  if (++step->next_part < step->batch.parts.size())
    return send_part();
  if (!reply.report.ready)
    return step_failed(refuse(errc::failed_precondition, "the stage has not accumulated all micro-batches"));
  step->grad_norm = std::sqrt(reply.report.grad_norm_sq);
  if (parts.ledger && unproven.wants_sample(parts.time->steady_us()))
    return sample();
  commit();
}

/// The gradient of a step that a proof can begin with is committed to before it is applied.
void trainer_state::sample() {
  sample_gradient call;
  call.session_id = header().session_id;
  call.step = step->number;
  const auto data_hash = data_hash_of(step->batch);
  call.draws = sampled_draws(data_hash);
  self->request(parts.worker, work_timeout, std::move(call))
      .then(
          [me = self, data_hash, at = epoch](const gradient_sample_ptr& drawn) {
            if (at != me->state.epoch)
              return;
            auto& step = *me->state.step;
            const double loss = step.loss_sum / static_cast<double>(step.batch.label_count);
            step.sampled = unproven_work::first_step{
                drawn, loss, step.grad_norm, data_hash, step.batch.rows, step.batch.seq};
            me->state.commit();
          },
          [me = self, at = epoch](const caf::error& e) {
            if (at != me->state.epoch)
              return;
            log::warn(name, "gradient-not-sampled step={} why={}", me->state.step->number,
                      problem_of(e).message);
            me->state.commit();
          });
}

/// What a proof may be challenged about goes to the ledger before the proof does.
void trainer_state::commit_first_steps() {
  unproven.commit([this](const unproven_work::first_step& first, unclaimed_work& to) {
    const auto model_hash = digest_from_hex(to.model_hash_start);
    if (!model_hash)
      return false;
    const auto preimage = preimage_of(first.gradient->unit_norms, first.gradient->values, first.loss,
                                      *model_hash, first.data_hash, first.batch_size, first.seq_len);
    if (!preimage || !std::isfinite(first.gradient_norm))
      return false;
    auto bytes = encode_preimage(*preimage);
    to.commitment = kernels::to_hex(commitment_of(bytes));
    to.data_hash = kernels::to_hex(first.data_hash);
    to.loss_e6 = preimage->loss_e6;
    to.gradient_norm_e6 = static_cast<uint64_t>(std::llround(std::min(first.gradient_norm, 1e12) * 1e6));
    to.batch_size = first.batch_size;
    to.seq_len = first.seq_len;
    self->request(parts.ledger, book_timeout, keep_commitment{std::move(bytes)})
        .then([](const commitment_kept&) {},
              [](const caf::error& e) {
                log::warn(name, "commitment-not-kept why={}", problem_of(e).message);
              });
    return true;
  });
}

void trainer_state::commit() {
  step->committing = true;
  backward_request call;
  call.header = header();
  call.layer_begin = route.hops.front().layer_begin;
  call.layer_end = route.hops.front().layer_end;
  call.step = step->number;
  call.action = backward_action::commit;
  self->request(parts.worker, work_timeout, std::move(call))
      .then(
          [me = self, at = epoch](const backward_reply& reply) {
            if (at == me->state.epoch)
              me->state.committed(reply);
          },
          [me = self, at = epoch](const caf::error& e) {
            if (at != me->state.epoch)
              return;
            me->state.step_failed(e);
          });
}

void trainer_state::committed(const backward_reply& reply) {
  const int64_t now_us = parts.time->steady_us();
  const uint64_t labels = step->batch.label_count;
  last_loss = step->loss_sum / static_cast<double>(labels);
  metrics.step(step->number, *last_loss, labels, now_us);
  nonfinite_in_row = 0;
  failed_in_row = 0;
  if (step->number > furthest_step) { // not one that is done again after a reload
    furthest_step = step->number;
    reloads = 0;
  }
  ++state.inner_steps;
  ++state.committed_steps;
  state.optimizer_step = reply.report.optimizer_step;
  state.tokens_trained += labels;
  tokens_seen_here += labels;
  parts.counters->training_steps.fetch_add(1, std::memory_order_relaxed);
  parts.counters->training_tokens.fetch_add(labels, std::memory_order_relaxed);
  step_used(labels);
}

/// The step's number is used up, whatever became of it.
void trainer_state::step_used(uint64_t label_tokens) {
  failures_of_step = 0;
  cursor = parts.data->advance(cursor, uint64_t{step->batch.rows} * step->batch.seq);
  state.inner_step = step->number;
  unproven.step(state.inner_step, label_tokens, std::exchange(step->sampled, std::nullopt),
                parts.time->steady_us());
  commit_first_steps();
  if (state.inner_step % options.validate_every_steps == 0)
    validation_due = true;
  publish();
  if (state.inner_step % training_metrics::history_every_steps == 0)
    write_log();
  step.reset();
  now = phase::boundary;
  // Through the mailbox, so that requests are answered between two steps.
  self->send(self, next_atom_v);
}

void trainer_state::write_log() {
  switch (log.append(*progress, parts.time->unix_us())) {
  case training_log::news::cannot_write:
    return log::warn(name, "training-log-not-written folder={}", options.log_folder);
  case training_log::news::writes_again:
    return log::warn(name, "training-log-written-again folder={} lines_lost={}", options.log_folder,
                     log.lost());
  case training_log::news::none:
    return;
  }
}

void trainer_state::skip(const char* why, bool not_finite) {
  log::warn(name, "step-skipped step={} why={}", step->number, why);
  parts.counters->training_skipped.fetch_add(1, std::memory_order_relaxed);
  ++(not_finite ? nonfinite_in_row : failed_in_row);
  if (failed_in_row >= failed_steps_max)
    return fail(std::string("ten steps in a row were given up: ") + why);
  discard([me = self] {
    auto& trainer = me->state;
    if (trainer.nonfinite_in_row >= nonfinite_max) {
      trainer.step.reset();
      return trainer.reload();
    }
    trainer.step_used(0);
  });
}

void trainer_state::step_failed(const caf::error& why) {
  const auto code = code_of(why);
  const auto what = problem_of(why);
  log::warn(name, "step-failed step={} code={} why={}", step->number, to_string(code), what.message);
  if (code == errc::draining)
    return fail("the layer worker is stopping");
  if (what.reason == "not_finite")
    return skip("the loss or the gradient is not finite", true);
  if (what.reason == "not_bound")
    bound = false;
  if (what.reason == "out_of_memory") {
    if (state.batch_size <= 1)
      return fail("a batch of one sequence does not fit in memory");
    state.batch_size /= 2; // kept: the next step would meet the same wall
    log::warn(name, "batch-halved batch_size={}", state.batch_size);
  } else {
    ++failures_of_step;
  }
  if (failures_of_step >= failures_max)
    return skip(what.message.c_str(), false);
  discard([me = self] {
    me->state.step.reset();
    me->state.now = phase::boundary;
    me->state.self->send(me->state.self, next_atom_v);
  });
}

/// Drops the step in hand, then goes on with `then`; unless its COMMIT had begun to change weights: that goes
/// to its end, and the step counts.
void trainer_state::discard(std::function<void()> then) {
  const uint64_t at = ++epoch;
  step->dropping = true;
  backward_request call;
  call.header = header();
  call.step = state.inner_step + 1;
  call.action = backward_action::discard;
  self->request(parts.worker, discard_timeout, std::move(call))
      .then(
          [then, me = self, at](const backward_reply& reply) {
            auto& trainer = me->state;
            if (at != trainer.epoch)
              return;
            const bool committed = trainer.step && trainer.step->committing &&
                                   reply.report.optimizer_step > trainer.state.optimizer_step;
            committed ? trainer.committed(reply) : then();
          },
          [then, me = self, at](const caf::error& e) {
            if (at != me->state.epoch)
              return;
            // Not bound any more: what was accumulated is gone with the binding.
            me->state.bound = false;
            log::debug(name, "discard-refused why={}", problem_of(e).message);
            then();
          });
}

} // namespace neuroshard
