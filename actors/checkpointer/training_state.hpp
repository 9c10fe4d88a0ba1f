#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Work that a reward is asked for once the checkpoint that tells of it is on disk.
struct unclaimed_work {
  std::string model_hash_start; ///< 64 hex
  uint64_t step_begin = 0;      ///< half open
  uint64_t step_end = 0;
  uint64_t label_tokens = 0; ///< 0: nothing
};

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
  std::string round_phase = "INNER";    ///< INNER, DELTA, EXCHANGE, OUTER, IDLE
  uint64_t inner_steps = 0;             ///< committed in this round
  uint64_t optimizer_step = 0;          ///< Adam t
  uint64_t committed_steps = 0;         ///< inner steps ever committed by this node
  std::string data_cursor;              ///< JSON of the data loader
  uint32_t batch_size = 0;              ///< in use (halved on out of memory)
  uint32_t batch_configured = 0;        ///< what was asked for then
  std::string outer_model_hash;         ///< 64 hex: f32 model hash at the last outer step
  std::vector<double> loss_history;     ///< EMA every 10 steps, last 100
  std::vector<double> loss_first;       ///< the first three of them, kept for ever
  double loss_min = 0;                  ///< least EMA seen; 0 before the first step
  std::optional<double> untrained_loss; ///< validation loss before the first step
  unclaimed_work unclaimed;
};

} // namespace neuroshard
