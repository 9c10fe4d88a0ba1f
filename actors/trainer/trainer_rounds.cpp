// Rounds with other nodes: where one begins, how this node leaves it, and what the outer step makes of it.
#include "actors/common/log.hpp"
#include "actors/trainer/trainer.hpp"

#include <caf/actor_cast.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr auto base_timeout = std::chrono::seconds(120);
constexpr auto outer_timeout = std::chrono::seconds(600);
constexpr auto status_timeout = std::chrono::seconds(30);
constexpr auto release_check = std::chrono::milliseconds(200);
constexpr size_t syncs_judged = 50;                 ///< training.md section 10
constexpr int64_t release_patience_us = 30'000'000; ///< training.md section 4: then a stage releases itself
/// A stage without the head knows no loss, and a manifest must tell a positive one.
constexpr double unknown_loss = 1.0;

bool is_bound(const actor_status& worker) {
  return std::find(worker.values.begin(), worker.values.end(),
                   std::pair<std::string, std::string>("bound", "1")) != worker.values.end();
}

} // namespace

/// The outer loop is told while the weights are those of the last outer step. A node that was restarted in
/// the middle of a round has others: unless it kept those beside them, it takes no part in this one.
void trainer_state::begin_round_at_base() {
  round_begun = true;
  tokens_at_base = state.tokens_trained;
  optimizer_at_base = state.optimizer_step;
  round_loss_sum = 0;
  if (std::exchange(base_restored, false)) { // what was done before counts too
    tokens_at_base -= std::min(tokens_at_base, state.inner_steps * options.batch_size * options.seq_len);
    optimizer_at_base -= std::min(optimizer_at_base, state.inner_steps);
    round_loss_sum = metrics.ema().value_or(unknown_loss) * static_cast<double>(state.inner_steps);
  } else {
    apart = state.inner_step != state.round_first_step;
  }
  if (apart)
    return boundary();
  now = phase::waiting;
  self->request(parts.outer, base_timeout, begin_round{state.outer_step})
      .then([me = self] { me->state.wait_for_next(); },
            [me = self](const caf::error& e) {
              log::warn(name, "round-not-begun why=\"{}\"", problem_of(e).message);
              me->state.apart = true;
              me->state.wait_for_next();
            });
}

void trainer_state::round_ended_by_other(uint64_t round) {
  if (round <= state.outer_step || round <= round_over)
    return;
  round_over = round;
  round_over_us = parts.time->steady_us();
  if (now != phase::paused)
    return;
  now = phase::boundary;
  self->send(self, next_atom_v);
}

void trainer_state::leave_round() {
  now = phase::waiting;
  if (!options.drives)
    return await_release();
  release_stages();
  finish_round_with(static_cast<uint32_t>(std::min<uint64_t>(state.inner_steps, UINT32_MAX)));
}

/// The driver of this stage finishes the step it is in; its RELEASE says that there are no more.
void trainer_state::await_release() {
  self->request(parts.worker, status_timeout, status_atom_v)
      .then(
          [me = self](const actor_status& worker) {
            auto& trainer = me->state;
            const bool patient =
                trainer.parts.time->steady_us() - trainer.round_over_us < release_patience_us;
            if (!is_bound(worker) || !patient)
              return trainer.share_of_follower();
            trainer.now = phase::boundary;
            me->delayed_send(me, release_check, next_atom_v);
          },
          [me = self](const caf::error& e) { me->state.fail(problem_of(e).message); });
}

/// How many steps its driver has committed here.
void trainer_state::share_of_follower() {
  self->request(parts.worker, status_timeout, open_snapshot{true})
      .then(
          [me = self](const snapshot_opened& view) {
            auto& trainer = me->state;
            me->request(trainer.parts.worker, status_timeout, close_snapshot{view.snapshot_id})
                .then([] {}, [](const caf::error&) {});
            const uint64_t steps =
                view.optimizer_step - std::min(view.optimizer_step, trainer.optimizer_at_base);
            trainer.state.optimizer_step = view.optimizer_step;
            trainer.state.committed_steps += steps;
            trainer.finish_round_with(static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
          },
          [me = self](const caf::error& e) { me->state.fail(problem_of(e).message); });
}

void trainer_state::finish_round_with(uint32_t inner_steps) {
  finish_round share;
  share.round = state.outer_step + 1;
  share.drives = options.drives;
  share.inner_steps = inner_steps;
  share.batches = inner_steps;
  share.tokens = options.drives ? state.tokens_trained - std::min(state.tokens_trained, tokens_at_base)
                                : uint64_t{inner_steps} * options.batch_size * options.seq_len;
  share.loss = options.drives && inner_steps > 0 ? round_loss_sum / inner_steps : unknown_loss;
  self->request(parts.outer, outer_timeout, share)
      .then([me = self](const round_outcome& outcome) { me->state.outer_step_taken(outcome); },
            [me = self](const caf::error& e) {
              me->state.fail("the outer step could not be taken: " + problem_of(e).message);
            });
}

void trainer_state::outer_step_taken(const round_outcome& outcome) {
  if (outcome.how != round_end_kind::alone) {
    const bool kept_up = outcome.how == round_end_kind::updated;
    ++(kept_up ? syncs_done : syncs_failed);
    syncs.push_back(kept_up);
    if (syncs.size() > syncs_judged)
      syncs.pop_front();
  }
  if (outcome.how != round_end_kind::resync || !parts.resync.fetcher)
    return go_on_after(outcome);
  left_behind = outcome;
  round_begun = false;
  watch.must();
  looked_us.reset();
  now = phase::boundary;
  boundary();
}

/// The round is over with the weights that the worker has now.
void trainer_state::go_on_after(const round_outcome& outcome) {
  state.outer_step = std::max(state.outer_step + 1, outcome.round);
  if (outcome.how == round_end_kind::resync)
    log::warn(name, "out-of-step outer={} why=\"this node goes on with its own weights\"", state.outer_step);
  const bool with_others = outcome.how != round_end_kind::alone || !options.drives;
  if (with_others) { // so that the numbers of steps are the same everywhere
    state.inner_step = state.round_first_step + options.diloco_steps;
    if (outcome.tokens > 0)
      state.tokens_trained = tokens_at_base + outcome.tokens;
  }
  state.round_first_step = state.inner_step;
  state.inner_steps = 0;
  round_begun = false;
  if (patch.diloco_steps)
    options.diloco_steps = *std::exchange(patch.diloco_steps, std::nullopt);
  failed_nodes.clear();
  if (route.hops.size() > 1)
    route.hops.clear();
  outer_checkpoint_due = true;
  const bool measured_now = has_heldout() && route.hops.size() == 1;
  validation_due = !measured_now;
  log::info(name, "outer-step outer={} step={} members={} loss={:.4f}", state.outer_step, state.inner_step,
            outcome.members, metrics.ema().value_or(0));
  publish();        // who drives others waits for this version
  if (parts.keeper) // a proof that ends here can be followed by one that begins with known weights
    caf::anon_send(caf::actor_cast<caf::actor>(parts.keeper), round_ended_atom_v);
  refresh(true, measured_now);
}

} // namespace neuroshard
