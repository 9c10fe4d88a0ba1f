#pragma once

#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/proof_keeper/proof_keeper_actor.hpp"
#include "actors/trainer/step_batch.hpp"
#include "actors/trainer/trainer_actor.hpp"
#include "actors/trainer/training_log.hpp"
#include "actors/trainer/training_metrics.hpp"
#include "actors/trainer/unproven_work.hpp"
#include "kernels/text/data_loader.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

struct trainer_options {
  bool enabled = true;
  bool serves_only = false; ///< the stage cannot train; see trainer_parts::renew
  uint32_t batch_size = 8;
  uint32_t seq_len = 512;
  uint32_t microbatches = 4;
  optimizer_settings optimizer;
  uint64_t diloco_steps = 500;
  uint64_t checkpoint_every_steps = 500;
  uint32_t checkpoint_every_s = 120;
  uint32_t refresh_s = 30;
  uint64_t validate_every_steps = 500;
  uint64_t microbatch_positions_max = 4096; ///< `train_tokens_max` of the stage
  uint32_t vocab_size = 0;                  ///< of the tokenizer; ln of it is the untrained loss
  std::string node_id;                      ///< 32 hex
  std::string architecture_id;
  uint32_t layers = 0;
  std::string log_folder; ///< `training_logs`; empty: no log
};

/// What the trainer works with.
struct trainer_parts {
  layer_worker_actor worker;
  checkpointer_actor checkpointer;
  ledger_actor ledger;       ///< may be null: nothing is proven or rewarded
  proof_keeper_actor keeper; ///< may be null
  peer_manager_actor peers;  ///< may be null: alone
  std::shared_ptr<const text::data_loader>
      data; ///< may be null: there is nothing to train on, and the loop stays paused
  time_source_ptr time;
  counters_ptr counters;
  /// Training was asked for on a stage that only serves: makes the group anew with a stage that trains. May
  /// be empty; must not block.
  std::function<void()> renew;
  /// Told after every step and at every change; called in the trainer's thread, must not block. May be empty.
  std::function<void(const training_progress_ptr&)> published;
};

struct trainer_state {
  static inline const char* name = "trainer";
  using pointer = trainer_actor::stateful_pointer<trainer_state>;

  /// Where the loop is. Everything but `stepping` is a step boundary.
  enum class phase : uint8_t { idle, boundary, stepping, waiting, paused, failed, stopped };
  /// The step in hand.
  struct step_in_hand {
    uint64_t number = 0;
    step_batch batch;
    size_t next_part = 0;
    double loss_sum = 0; ///< losses of its micro-batches, weighted by their labels
    double grad_norm = 0;
    std::optional<unproven_work::first_step> sampled; ///< it begins a piece of unproven work
    bool committing = false;                          ///< COMMIT has been sent
    bool dropping = false;                            ///< DISCARD has been sent
  };

  pointer self = nullptr;
  trainer_options options;
  trainer_parts parts;
  training_state state;
  text::data_cursor cursor;
  training_metrics metrics;
  unproven_work unproven;
  training_log log;
  phase now = phase::idle;
  uint64_t epoch = 0; ///< counts interruptions: an answer of an earlier one is void
  model_route route;
  bool bound = false;
  std::optional<step_in_hand> step;
  uint32_t failures_of_step = 0;
  uint32_t nonfinite_in_row = 0;
  uint32_t failed_in_row = 0; ///< steps given up for other reasons
  uint32_t reloads = 0;       ///< without a step further than ever
  uint64_t furthest_step = 0; ///< committed since the start
  std::optional<double> last_loss;
  std::string error;
  std::vector<uint64_t> shards_covered;
  uint64_t tokens_seen_here = 0;
  training_progress_ptr progress;

  // what is due at the next boundary
  training_patch patch;
  bool first_checkpoint_due = false;
  bool outer_checkpoint_due = false;
  bool validation_due = false;
  bool waits_for_data = false; ///< `paused` until the cursor's shard is here; `error` says why
  bool rate_changed = false;
  std::optional<size_t> scoring; ///< index of the held-out part that is scored
  step_batch heldout;
  double heldout_sum = 0;
  uint64_t checkpoint_step = 0; ///< of the last one begun
  int64_t checkpoint_us = 0;
  bool checkpoint_missing = false; ///< that one was not taken, or not written
  uint64_t refreshed_step = 0;
  int64_t refreshed_us = 0;
  std::vector<uint64_t> outer_saves; ///< inner steps of checkpoints under way that end a round

  // the end
  std::vector<caf::typed_response_promise<caf::unit_t>> stop_promises;
  int64_t stop_deadline_us = 0;
  bool stop_saving = false;

  // life (trainer.cpp)
  caf::result<void> start(const restored& from);
  void adopt(const restored& from);
  void set_enabled(bool enabled);
  void stop_requested(int64_t patience_us);
  void stop_at_boundary();
  void stopped();
  void on_tick();
  void fail(std::string why);
  void publish();
  bool has_heldout() const { return parts.data && parts.data->has_heldout(); }
  training_state snapshot_state() const;
  actor_status report() const;

  // duties at a step boundary (trainer_duties.cpp)
  void boundary();
  bool do_next_duty();
  bool wait_for_data();
  bool time_checkpoint_due() const;
  void wait_for_next();
  void apply_patch();
  void find_route();
  void bind();
  void end_round();
  void save(const std::string& reason);
  void be_lean();
  void not_saved(uint64_t inner_step);
  void save_ended(uint64_t inner_step, const checkpoint_saved* saved);
  void refresh(bool wait, bool then_score);
  void score_next();
  void reload();
  void note(const std::string& model_hash, uint64_t inner_step);

  // one step (trainer_step.cpp)
  void begin_step();
  void send_part();
  void part_answered(const forward_reply& reply);
  void sample();
  void commit_first_steps();
  void commit();
  void committed(const backward_reply& reply);
  void skip(const char* why, bool not_finite);
  void step_failed(const caf::error& why);
  void discard(std::function<void()> then);
  void step_used(uint64_t label_tokens);
  void write_log();
  work_header header() const;
};

/// Scheduled; computes nothing but sums, and appends a line to its log every ten steps.
trainer_actor::behavior_type trainer(trainer_state::pointer self, trainer_options options,
                                     trainer_parts parts);

} // namespace neuroshard
