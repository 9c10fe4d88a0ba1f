#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/checkpointer/checkpointer_actor.hpp"
#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/proof_keeper/proof_keeper_actor.hpp"
#include "actors/relay/driver_receipts.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "actors/trainer/pipeline_step.hpp"
#include "actors/trainer/resync_watch.hpp"
#include "actors/trainer/step_batch.hpp"
#include "actors/trainer/trainer_actor.hpp"
#include "actors/trainer/training_log.hpp"
#include "actors/trainer/training_metrics.hpp"
#include "actors/trainer/unproven_work.hpp"
#include "kernels/text/data_loader.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <chrono>
#include <deque>
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
  bool drives = true; ///< holds the embedding: has batches of its own. Else it follows the rounds of others
  std::string session_id; ///< of the binding: 32 random hex, the same for every trainer of one process
  std::string architecture_id;
  uint32_t layers = 0;
  std::vector<std::string> units;            ///< that are held here
  kernels::dtype wire = kernels::dtype::f32; ///< of activations and gradients between stages
  std::string log_folder;                    ///< `training_logs`; empty: no log
};

/// Who finds ways through the model; a part of the peer manager's interface.
using route_finder_actor = caf::typed_actor<caf::replies_to<route_request>::with<model_route>>;

/// The outer loop, as the trainer needs it.
using outer_loop_actor = caf::typed_actor<caf::replies_to<begin_round>::with<void>,
                                          caf::replies_to<finish_round>::with<round_outcome>,
                                          caf::replies_to<restore_outer_state>::with<void>>;

/// Who fetches units from other nodes; a part of the checkpoint receiver's interface.
using unit_fetcher_actor =
    caf::typed_actor<caf::replies_to<fetch_units>::with<fetched_units>,
                     caf::replies_to<read_fetched>::with<tensor_handle>,
                     caf::replies_to<write_fetched>::with<void>, caf::reacts_to<drop_fetched>>;

/// What others hold, and how this node's weights come from there; all of it, or nothing.
struct resync_parts {
  unit_fetcher_actor fetcher; ///< null: weights are never taken from others
  /// Everybody's records. Any thread, quick.
  std::function<peer_list_ptr()> peers;
  /// What this node has announced of an outer step. Any thread, quick.
  std::function<std::vector<unit_state>(uint64_t version)> announced;
  /// Announces what was taken. Any thread, quick.
  std::function<void(std::vector<unit_state>, uint64_t version)> announce;
};

/// What the trainer works with.
struct trainer_parts {
  layer_worker_actor worker;
  relay_actor relay;    ///< the way to the worker and to every stage behind it
  work_link_actor link; ///< to single stages; may be null: alone
  checkpointer_actor checkpointer;
  ledger_actor ledger;       ///< may be null: nothing is proven or rewarded
  proof_keeper_actor keeper; ///< may be null
  route_finder_actor peers;  ///< may be null: alone
  outer_loop_actor outer;    ///< may be null: a round ends with the weights it has
  resync_parts resync;
  std::shared_ptr<const text::data_loader>
      data; ///< may be null: there is nothing to train on, and the loop stays paused
  time_source_ptr time;
  counters_ptr counters;
  driver_receipts receipts = {}; ///< of stages on other nodes
  /// Training was asked for on a stage that only serves: makes the group anew with a stage that trains. May
  /// be empty; must not block.
  std::function<void()> renew;
  /// Whether other nodes hold parts of the model: then the serving copies are those of outer steps. Any
  /// thread, quick. May be empty: alone.
  std::function<bool()> shared;
  /// Told after every step and at every change; called in the trainer's thread, must not block. May be empty.
  std::function<void(const training_progress_ptr&)> published;
};

struct trainer_state {
  static inline const char* name = "trainer";
  using pointer = trainer_actor::stateful_pointer<trainer_state>;

  /// Where the loop is. Everything but `stepping` is a step boundary.
  enum class phase : uint8_t { idle, boundary, stepping, waiting, paused, failed, stopped };
  /// What bound stages may claim in their receipts: the version they began with, and what they were told to
  /// commit since.
  struct driven_work {
    uint64_t model_version = 0;
    uint64_t tokens = 0; ///< with labels
    uint64_t steps = 0;
  };
  /// The step in hand.
  struct step_in_hand {
    uint64_t number = 0;
    step_batch batch;
    std::optional<pipeline_step> progress;
    double grad_norm = 0;
    std::optional<unproven_work::first_step> sampled; ///< it begins a piece of unproven work
    bool committing = false;                          ///< COMMIT has been sent
    bool dropping = false;                            ///< DISCARD has been sent
    size_t commits_open = 0;
    std::optional<backward_reply> own_commit; ///< the first stage's answer to COMMIT
    std::optional<caf::error> commit_failed;  ///< this node's own refusal, or else that of another stage
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
  /// Weights of others on their way into the worker.
  struct taking {
    standing_weights what;
    std::vector<fetched_units> got; ///< one for each part
    std::vector<outer_tensor> velocity;
    std::vector<std::pair<uint64_t, std::string>> unread; ///< velocity: fetch id, tensor; the next one last
    uint64_t optimizer_step = 0;
    size_t written = 0; ///< parts
    uint32_t tries = 0; ///< to write the first tensor
  };

  uint64_t epoch = 0; ///< counts interruptions: an answer of an earlier one is void
  model_route route;
  std::vector<std::string> failed_nodes; ///< not asked for again in this round
  bool waits_for_route = false;          ///< nobody holds some layer, or who does is busy; `error` says why
  int64_t route_again_us = 0;
  bool bound = false;
  driven_work driven;
  bool round_begun = false;    ///< the outer loop knows where this round begins
  bool base_restored = false;  ///< the outer loop has the weights it began with, from a checkpoint
  bool apart = false;          ///< the outer loop does not know this round: it ends with the weights it has
  uint64_t round_over = 0;     ///< the round that another driver has ended; 0: none
  int64_t round_over_us = 0;   ///< when it was heard
  uint64_t tokens_at_base = 0; ///< tokens_trained when the round began
  uint64_t optimizer_at_base = 0;
  double round_loss_sum = 0;
  std::deque<bool> syncs; ///< outer steps with other members, the newest last: whether this node kept up
  uint64_t syncs_done = 0;
  uint64_t syncs_failed = 0;
  resync_watch watch;
  std::optional<int64_t> looked_us;         ///< when it looked at what others hold
  std::optional<round_outcome> left_behind; ///< how a round ended that others have left this node behind in
  std::optional<taking> taken_from_others;
  bool waits_for_weights = false; ///< `paused` until they are here, or are given up
  bool own_state_saved = false;   ///< before the weights of others are taken
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
  bool round_is_over() const;

  // the round in the outer loop (trainer_rounds.cpp)
  void begin_round_at_base();
  void round_ended_by_other(uint64_t round);
  void leave_round();
  void await_release();
  void share_of_follower();
  void finish_round_with(uint32_t inner_steps);
  void outer_step_taken(const round_outcome& outcome);
  void go_on_after(const round_outcome& outcome);

  // the weights of others (trainer_resync.cpp)
  own_weights held_now() const;
  bool is_behind();
  bool catch_up();
  void begin_taking(standing_weights what);
  void fetch_next_part();
  void read_next_velocity();
  void settle_before_write();
  void write_next_part();
  void write_failed(const caf::error& why);
  void weights_taken();
  void taking_failed(const caf::error& why, bool of_nodes);
  void drop_taken();
  bool serves_inner_weights() const { return !parts.shared || !parts.shared(); }
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
  void send_parts();
  void send_part(size_t index);
  void part_answered(size_t index, const routed_forward_reply& reply);
  void send_gradient(size_t index);
  void part_finished(const std::vector<hop_report>& hops);
  void sample();
  void commit_first_steps();
  void commit();
  void stage_committed(size_t stage, const backward_reply* reply, const caf::error& why);
  void committed(const backward_reply& reply);
  void skip(const char* why, bool not_finite);
  void step_failed(const caf::error& why);
  void discard(std::function<void()> then);
  void step_used(uint64_t label_tokens);
  void write_log();
  work_header header() const;

  // stages of the route (trainer_stages.cpp)
  bool drives() const noexcept { return !route.hops.empty(); }
  backward_request to_stage(size_t stage, backward_action action, uint64_t step) const;
  /// Asks one stage alone. `answered` gets null and the reason when it refused.
  void ask_stage(size_t stage, backward_request call, std::chrono::milliseconds patience,
                 std::function<void(const backward_reply*, const caf::error&)> answered);
  void release_stages();
  void stage_released(const route_hop& hop, bool head, driven_work count,
                      const std::vector<signed_blob>& receipts);
  /// A stage failed, or the route led nowhere: another one is looked for.
  void leave_route(const caf::error& why);
  void wait_for_route(std::string why);
};

/// Scheduled; computes nothing but sums, and appends a line to its log every ten steps.
trainer_actor::behavior_type trainer(trainer_state::pointer self, trainer_options options,
                                     trainer_parts parts);

} // namespace neuroshard
