// One inner step: batch, micro-batches, COMMIT; and what is done when one of them fails.
#include "actors/common/log.hpp"
#include "actors/identity/keys.hpp"
#include "actors/proof_keeper/gradient_commitment.hpp"
#include "actors/relay/route_hops.hpp"
#include "actors/trainer/trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace neuroshard {

namespace {

constexpr auto work_timeout =
    std::chrono::seconds(600); ///< a micro-batch of the largest shape on a slow machine
constexpr auto discard_timeout = std::chrono::seconds(60);
constexpr auto remote_discard_timeout = std::chrono::seconds(10);
constexpr int64_t hop_budget_us = 30'000'000; ///< grpc-api.md section 1
constexpr auto book_timeout = std::chrono::seconds(30);
constexpr uint32_t failures_max = 3;
constexpr uint32_t nonfinite_max = 10;
constexpr uint32_t failed_steps_max = 10;

} // namespace

work_header trainer_state::header() const {
  work_header to;
  to.request_id = "training-step-" + std::to_string(state.inner_step + 1);
  to.session_id = options.session_id; // a trainer that was restarted binds anew at once
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
  step->progress.emplace(route.hops.size(), step->batch.parts.size());
  send_parts();
}

void trainer_state::send_parts() {
  while (const auto next = step->progress->send_next())
    send_part(*next);
}

void trainer_state::send_part(size_t index) {
  auto& batch = step->batch;
  auto& part = batch.parts[index];
  forward_request call;
  call.header = header();
  call.mode = forward_mode::train;
  call.layer_begin = route.hops.front().layer_begin;
  call.layer_end = route.hops.front().layer_end;
  call.apply_head = true;
  call.token_ids = integers(part.ids, part.rows, batch.seq);
  call.labels = integers(part.labels, part.rows, batch.seq);
  call.microbatch_id = static_cast<uint32_t>(index);
  call.step = step->number;
  call.loss_scale =
      static_cast<float>(static_cast<double>(part.label_count) / static_cast<double>(batch.label_count));
  call.last_microbatch = index + 1 == batch.parts.size();
  call.omit_tensors = true;
  call.reply_dtype = options.wire;
  if (route.hops.size() > 1)
    call.header.deadline_steady_us = parts.time->steady_us() + hop_budget_us * int64_t(route.hops.size());
  self->request(parts.relay, work_timeout, routed_forward{std::move(call), hops_after_first(route), {}})
      .then(
          [me = self, at = epoch, index](const routed_forward_reply& reply) {
            if (at == me->state.epoch)
              me->state.part_answered(index, reply);
          },
          [me = self, at = epoch](const caf::error& e) {
            if (at == me->state.epoch)
              me->state.step_failed(e);
          });
}

void trainer_state::part_answered(size_t index, const routed_forward_reply& reply) {
  if (!std::isfinite(reply.work.loss))
    return skip("the loss or the gradient is not finite", true);
  step->progress->forwarded(index, reply.work.loss, reply.work.label_count);
  if (route.hops.size() > 1)
    return send_gradient(index);
  part_finished(reply.hops);
}

/// The last stage has kept the gradient of its input; the others get it from stage to stage, this one last.
void trainer_state::send_gradient(size_t index) {
  auto call = to_stage(route.hops.size() - 1, backward_action::gradient, step->number);
  call.microbatch_id = static_cast<uint32_t>(index);
  call.reply_dtype = options.wire;
  const auto back = hops_back_to_second(route);
  call.header.deadline_steady_us = parts.time->steady_us() + hop_budget_us * int64_t(route.hops.size());
  const auto failed = [me = self, at = epoch](const caf::error& e) {
    if (at == me->state.epoch)
      me->state.step_failed(e);
  };
  const auto budget = std::chrono::milliseconds(hop_budget_us / 1'000 * int64_t(route.hops.size() - 1));
  self->request(parts.link, budget + std::chrono::seconds(1),
                peer_call<routed_backward>{address_of(route.hops.back()),
                                           {std::move(call), back, {}},
                                           static_cast<uint32_t>(budget.count())})
      .then(
          [me = self, at = epoch, index, failed](const routed_backward_reply& reply) {
            auto& trainer = me->state;
            if (at != trainer.epoch)
              return;
            trainer.step->progress->reported(reply.hops);
            auto own = trainer.to_stage(0, backward_action::gradient, trainer.step->number);
            own.microbatch_id = static_cast<uint32_t>(index);
            own.grad_output = reply.work.grad_input;
            me->request(trainer.parts.relay, work_timeout, routed_backward{std::move(own), {}, {}})
                .then(
                    [me, at](const routed_backward_reply& mine) {
                      if (at == me->state.epoch)
                        me->state.part_finished(mine.hops);
                    },
                    failed);
          },
          [failed, last = route.hops.back().node_id](const caf::error& e) {
            failed(failed_at_hop(e, last));
          });
}

void trainer_state::part_finished(const std::vector<hop_report>& hops) {
  auto& progress = *step->progress;
  progress.reported(hops);
  if (route.hops.size() > 1)
    progress.finished();
  if (!progress.complete())
    return send_parts();
  if (!progress.ready())
    return step_failed(refuse(errc::failed_precondition, "a stage has not accumulated all micro-batches"));
  if (!std::isfinite(progress.gradient_norm_sq()))
    return skip("the loss or the gradient is not finite", true);
  step->grad_norm = std::sqrt(progress.gradient_norm_sq());
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
            const double loss = step.progress->loss_sum() / static_cast<double>(step.batch.label_count);
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

/// To every stage at once. The step counts when this node's own stage has taken it.
void trainer_state::commit() {
  step->committing = true;
  driven.tokens += step->batch.label_count;
  ++driven.steps;
  step->commits_open = route.hops.size();
  for (size_t stage = 0; stage < route.hops.size(); ++stage)
    ask_stage(stage, to_stage(stage, backward_action::commit, step->number), work_timeout,
              [me = self, at = epoch, stage](const backward_reply* reply, const caf::error& why) {
                if (at == me->state.epoch)
                  me->state.stage_committed(stage, reply, why);
              });
}

void trainer_state::stage_committed(size_t stage, const backward_reply* reply, const caf::error& why) {
  if (stage == 0 && reply)
    step->own_commit = *reply;
  if (!reply && (stage == 0 || !step->commit_failed))
    step->commit_failed = why;
  if (--step->commits_open > 0)
    return;
  if (!step->own_commit)
    return step_failed(*step->commit_failed);
  if (step->commit_failed) // the step counts; a stage lost after COMMIT is replaced
    leave_route(*step->commit_failed);
  committed(*step->own_commit);
}

void trainer_state::committed(const backward_reply& reply) {
  const int64_t now_us = parts.time->steady_us();
  const uint64_t labels = step->batch.label_count;
  last_loss = step->progress->loss_sum() / static_cast<double>(labels);
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
  round_loss_sum += *last_loss;
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
  const bool elsewhere = !failed_hop_of(why).empty();
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
  discard([me = self, elsewhere, why] {
    me->state.step.reset();
    me->state.now = phase::boundary;
    if (elsewhere)
      me->state.leave_route(why);
    me->state.self->send(me->state.self, next_atom_v);
  });
}

/// Drops the step in hand, then goes on with `then`; unless its COMMIT had begun to change weights: that goes
/// to its end, and the step counts.
void trainer_state::discard(std::function<void()> then) {
  const uint64_t at = ++epoch;
  step->dropping = true;
  const uint64_t number = state.inner_step + 1;
  const auto open = std::make_shared<size_t>(route.hops.size());
  const auto own = std::make_shared<std::optional<backward_reply>>();
  const auto lost = std::make_shared<std::optional<caf::error>>();
  for (size_t stage = 0; stage < route.hops.size(); ++stage)
    ask_stage(
        stage, to_stage(stage, backward_action::discard, number),
        stage == 0 ? discard_timeout : remote_discard_timeout,
        [then, me = self, at, stage, open, own, lost](const backward_reply* reply, const caf::error& why) {
          auto& trainer = me->state;
          if (at != trainer.epoch)
            return;
          if (stage == 0 && reply)
            *own = *reply;
          if (!reply) {
            // Not bound any more: what was accumulated is gone with the binding.
            trainer.bound = false;
            log::debug(name, "discard-refused why={}", problem_of(why).message);
            if (stage > 0)
              *lost = why;
          }
          if (--*open > 0)
            return;
          if (*lost) // a stage that gives no answer is replaced
            trainer.leave_route(**lost);
          const bool committed = *own && trainer.step && trainer.step->committing &&
                                 (*own)->report.optimizer_step > trainer.state.optimizer_step;
          committed ? trainer.committed(**own) : then();
        });
}

} // namespace neuroshard
