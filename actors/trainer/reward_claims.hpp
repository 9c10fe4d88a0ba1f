#pragma once

#include "actors/checkpointer/training_state.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Committed steps that a reward is asked for: half-open range of inner steps, all since one outer step.
struct reward_claim {
  std::string model_hash_start; ///< 64 hex
  uint64_t step_begin = 0;
  uint64_t step_end = 0;
  uint64_t label_tokens = 0;
};

/// Which work has not been claimed yet. A claim is made when a checkpoint that holds its steps is on disk,
/// with the model hash of the last outer step whose checkpoint was; without one nothing is claimed. Ranges
/// never overlap, in one life of the process; over a crash the ledger sees to it. Plain logic.
class reward_claims {
public:
  /// Work begins at a step (a start, or a reload): what was open is void.
  void begin(uint64_t inner_step, std::string outer_model_hash);
  /// A step was committed (or skipped, with 0 tokens).
  void step(uint64_t inner_step, uint64_t label_tokens);
  /// A checkpoint of this step is being written; `ends_round`: of an outer step, whose hash the work after it
  /// will be claimed with.
  void saving(uint64_t inner_step, bool ends_round = false);
  /// It was not written: nothing starts at its hash.
  void failed(uint64_t inner_step);
  /// What could be claimed if the checkpoint just begun were on disk, one range for each hash. It is kept in
  /// that checkpoint and asked for again after a start from it: a crash may come between the disk and the
  /// ledger, which pays a step once however often it is claimed. Work after an outer step whose own
  /// checkpoint is still being written names that (`hash_of`).
  std::vector<unclaimed_work> open() const;
  /// Inner step of the newest checkpoint under way that ends a round.
  std::optional<uint64_t> outer_under_way() const;
  /// It is on disk: what may be claimed now. `outer_hash`: its model hash, when it is that of an outer step.
  std::optional<reward_claim> saved(uint64_t inner_step, const std::optional<std::string>& outer_hash);

  const std::string& outer_hash() const noexcept { return outer_hash_; }

private:
  struct mark {
    uint64_t inner_step;
    uint64_t tokens; ///< since begin()
    bool ends_round;
  };
  std::string outer_hash_;
  uint64_t begin_ = 0;   ///< first step not claimed
  uint64_t claimed_ = 0; ///< tokens claimed since begin()
  uint64_t tokens_ = 0;  ///< tokens of all steps since begin()
  std::vector<mark> saving_;
};

} // namespace neuroshard
