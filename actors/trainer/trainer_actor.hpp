#pragma once

#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/common/actor_status.hpp"
#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/ledger/ledger_types.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// The TRAINER: the inner loop on a driver. Picks batches, sends micro-batches through the pipeline, commits
/// steps, measures the held-out loss, asks for checkpoints, and counts outer steps (alone an outer step is
/// bookkeeping and a checkpoint).
namespace neuroshard {

/// Where training stands. Immutable; published to the board below after every step.
struct training_progress {
  bool enabled = false; ///< configured and not paused
  bool running = false; ///< a step is under way
  bool syncing = false; ///< the weights of others are being taken, or waited for
  uint64_t inner_step = 0;
  uint64_t outer_step = 0;
  uint64_t steps_in_round = 0;
  uint64_t diloco_steps = 0;
  uint64_t tokens_trained = 0;
  uint64_t tokens_seen_here = 0; ///< since the start of the process
  std::optional<double> loss;    ///< of the last step
  std::optional<double> loss_ema;
  std::optional<double> loss_min;
  std::optional<double> validation_loss;
  std::optional<double> untrained_loss;
  double learning_rate = 0;
  double grad_norm = 0;
  double tokens_per_second = 0;      ///< over the last 30 s
  double tokens_per_second_best = 0; ///< the most of it since the start of the process
  std::optional<double> eta_seconds; ///< until decay_steps
  bool trained = false;              ///< validation loss at least 1 nat below the untrained model's
  std::vector<double> loss_history;  ///< EMA every 10 steps, last 100
  std::vector<double> loss_first;
  std::vector<uint64_t> shards_covered; ///< ascending
  std::string outer_model_hash;         ///< f32 model hash at the last outer step
  uint64_t batch_size = 0;
  uint64_t seq_len = 0;
  uint64_t syncs_done = 0;      ///< outer steps with other members since the start of the process
  uint64_t syncs_failed = 0;    ///< those that left this node with other weights than the others
  double sync_success_rate = 0; ///< of the last 50; 0: none yet
  std::string error;            ///< why it stands still; empty otherwise
};
using training_progress_ptr = std::shared_ptr<const training_progress>;

/// Pauses or resumes at a step boundary.
struct set_training {
  bool enabled = true;
};
/// Changes of PATCH /config and SIGHUP; absent fields stay.
struct training_patch {
  std::optional<double> learning_rate; ///< next inner step
  std::optional<uint32_t> batch_size;
  std::optional<uint64_t> diloco_steps; ///< next outer step
};
/// Asks for work that a proof can tell of: committed steps of this node, the oldest first, at most so much.
struct take_work {
  uint64_t tokens_max = 0;
  uint64_t steps_max = 0;
};
/// It stays on offer until `work_proven` says that it is recorded. `step_begin` == `step_end`: nothing yet.
struct offered_work {
  uint64_t step_begin = 0; ///< half open
  uint64_t step_end = 0;
  uint64_t label_tokens = 0;
  std::vector<step_segment> segments; ///< the steps by the outer step they followed
  // Of the first step; its preimage is in the ledger.
  kernels::digest commitment{};
  kernels::digest data_hash{};
  uint64_t loss_e6 = 0;
  uint64_t gradient_norm_e6 = 0;
  uint32_t batch_size = 0;
  uint32_t seq_len = 0;
};
/// A proof of these steps is recorded.
struct work_proven {
  uint64_t step_begin = 0;
  uint64_t step_end = 0;
};
/// Finishes the step in hand when that takes at most `patience_us`, else discards it; then writes a
/// checkpoint and answers.
struct stop_training {
  int64_t patience_us = 5'000'000;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_trainer, caf::first_custom_type_id + 400)
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::training_progress_ptr))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::set_training))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::training_patch))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::stop_training))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::take_work))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::offered_work))
CAF_ADD_TYPE_ID(neuroshard_trainer, (neuroshard::work_proven))
CAF_ADD_ATOM(neuroshard_trainer, neuroshard, start_atom, "start")
CAF_ADD_ATOM(neuroshard_trainer, neuroshard, progress_atom, "progress")
CAF_ADD_ATOM(neuroshard_trainer, neuroshard, next_atom, "next")
CAF_END_TYPE_ID_BLOCK(neuroshard_trainer)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::training_progress_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::set_training)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::training_patch)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::stop_training)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::take_work)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::offered_work)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::work_proven)

namespace neuroshard {

using trainer_actor = caf::typed_actor<
    // Begins from a restored state (or a fresh one).
    caf::replies_to<start_atom, restored>::with<void>, caf::replies_to<set_training>::with<void>,
    caf::replies_to<training_patch>::with<void>,
    // Where it stands.
    caf::replies_to<progress_atom>::with<training_progress_ptr>,
    // Comes to a step boundary and a checkpoint; the last thing it does.
    caf::replies_to<stop_training>::with<void>,
    // What the proof keeper proves.
    caf::replies_to<take_work>::with<offered_work>, caf::reacts_to<work_proven>,
    // Another driver has ended the round.
    caf::reacts_to<round_ends>,
    // Outcomes of its checkpoints.
    caf::reacts_to<checkpoint_saved>, caf::reacts_to<checkpoint_failed>,
    // Internal: the next step; time-driven duties.
    caf::reacts_to<next_atom>, caf::reacts_to<tick_atom>, caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
