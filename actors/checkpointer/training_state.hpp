#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Work that no recorded proof tells of yet: steps since one outer step. One with `hash_of` set follows a
/// checkpoint of an outer step that is still being written: the checkpointer, which
/// knows what became of that one when it comes to this, puts its hash in, or else that of the work before. On
/// disk it is never set.
struct unclaimed_work {
  std::string model_hash_start;      ///< 64 hex
  std::optional<uint64_t> hash_of{}; ///< inner step of the checkpoint whose hash it is to be
  uint64_t step_begin = 0;           ///< half open
  uint64_t step_end = 0;
  uint64_t label_tokens = 0; ///< 0: nothing
  // Of its first step, for the proof that begins with it.
  std::string commitment; ///< 64 hex: gradient commitment; empty in checkpoints of earlier versions
  std::string data_hash;  ///< 64 hex
  uint64_t loss_e6 = 0;
  uint64_t gradient_norm_e6 = 0;
  uint32_t batch_size = 0;
  uint32_t seq_len = 0;
};

inline constexpr size_t unclaimed_max = 64; ///< ranges that one checkpoint tells of

/// The counters of a checkpoint ("state" of the model page, section 10), and of a transfer.
struct training_state {
  // shared
  uint64_t inner_step = 0; ///< steps used, skipped ones included
  uint64_t outer_step = 0;
  uint64_t round_first_step = 0;
  uint64_t tokens_trained = 0;
  double loss = 0; ///< EMA; 0 before the first step
  std::optional<double> validation_loss;
  // own
  std::string round_phase = "INNER"; ///< INNER, DELTA, EXCHANGE, OUTER, IDLE
  uint64_t inner_steps = 0;          ///< committed in this round
  uint64_t optimizer_step = 0;       ///< Adam t
  uint64_t committed_steps = 0;      ///< inner steps ever committed by this node
  uint64_t taken_over = 0;          ///< how often the weights of others were taken: steps may count back then
  std::string data_cursor;          ///< JSON of the data loader
  uint32_t batch_size = 0;          ///< in use (halved on out of memory)
  uint32_t batch_configured = 0;    ///< what was asked for then
  std::string outer_model_hash;     ///< 64 hex: f32 model hash at the last outer step
  std::vector<double> loss_history; ///< EMA every 10 steps, last 100
  std::vector<double> loss_first;   ///< the first three of them, kept for ever
  double loss_min = 0;              ///< least EMA seen; 0 before the first step
  std::optional<double> untrained_loss;  ///< validation loss before the first step
  std::vector<unclaimed_work> unclaimed; ///< in order, not overlapping
  /// Inner step of a checkpoint under way whose hash is to be `outer_model_hash`. Not on disk.
  std::optional<uint64_t> outer_hash_of;
};

} // namespace neuroshard
