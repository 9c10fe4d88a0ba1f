#pragma once

#include "actors/checkpointer/training_state.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/trainer/trainer_actor.hpp"

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Committed steps of this node that no recorded proof tells of. They are kept in pieces, each of steps since
/// one outer step, begun by a step whose gradient was committed to: so a proof can begin at any of them. A
/// checkpoint keeps what is open, and a start from it goes on with that; what a crash makes the node do again
/// it may also prove again, the ledger pays a step once. Plain logic, one thread; times are of a steady
/// clock.
class unproven_work {
public:
  /// After it the next step begins a new piece: what has piled up can still be told of in proofs of a minute
  /// each.
  static constexpr int64_t piece_us = 65'000'000;
  /// Or after so much, a part of what one proof is believed: else a fast node could tell of nothing.
  static constexpr uint64_t piece_steps = 256;
  static constexpr uint64_t piece_tokens = 250'000;
  /// A round that ends sooner after a sample begins a piece that a proof can only go on with.
  static constexpr int64_t sample_gap_us = 30'000'000;
  static constexpr size_t pieces_max = 256; ///< then the oldest are given up

  /// The step that begins a piece.
  struct first_step {
    gradient_sample_ptr gradient; ///< to be committed to once the model hash is known
    double loss = 0;
    double gradient_norm = 0;
    kernels::digest data_hash{};
    uint32_t batch_size = 0;
    uint32_t seq_len = 0;
  };
  /// Commits to a first step after the outer step of this model hash: fills in what is told of it. False:
  /// there is nothing to commit to.
  using committer = std::function<bool(const first_step&, unclaimed_work&)>;

  /// Steps go on from `inner_step` (a start, or a reload), after the outer step of this model hash; `owed` is
  /// what the checkpoint told of.
  void begin(uint64_t inner_step, std::string outer_hash, std::vector<unclaimed_work> owed);

  /// Whether the next step should begin a piece, and so be sampled.
  bool wants_sample(int64_t now_us) const;
  /// A step was committed (or skipped, with 0 tokens); `sampled` when it was, to begin a piece.
  void step(uint64_t number, uint64_t label_tokens, std::optional<first_step> sampled, int64_t now_us);
  /// Commits to the first steps whose model hash has become known.
  void commit(const committer& to);
  /// The steps so far ended a round: what follows has the model hash of the checkpoint of this step.
  void round_ended(uint64_t inner_step);
  /// That checkpoint is on disk. Its hash, empty when it failed: then the steps count to the round before.
  void outer_saved(uint64_t inner_step, const std::string& hash);

  /// The oldest run of pieces that one proof can tell of, within the limits; empty (step_begin == step_end)
  /// when there is none yet. Ends the piece in hand when that is part of it.
  offered_work offer(uint64_t tokens_max, uint64_t steps_max);
  /// A proof of these steps is recorded.
  void proven(uint64_t step_begin, uint64_t step_end);

  /// What a checkpoint of `inner_step` tells of; `hash_of` as in training_state.hpp.
  std::vector<unclaimed_work> open(uint64_t inner_step) const;
  /// Of the newest outer step whose checkpoint is on disk.
  const std::string& outer_hash() const noexcept { return outer_hash_; }
  /// Inner step of the newest outer step whose checkpoint is being written.
  std::optional<uint64_t> outer_under_way() const;

private:
  struct piece : unclaimed_work {
    std::optional<first_step> uncommitted;
    /// Known, and of weights that were on disk.
    bool has_hash() const noexcept { return !hash_of && !model_hash_start.empty(); }
    bool can_begin() const noexcept { return !commitment.empty(); }
  };
  void close() noexcept { growing_ = false; }

  std::deque<piece> pieces_; ///< ascending
  std::string outer_hash_;
  std::vector<uint64_t> rounds_; ///< ended, their checkpoints under way
  bool growing_ = false;         ///< the last piece takes further steps
  bool must_sample_ = true;      ///< the next proof begins with the next step
  int64_t sampled_us_ = 0;
  uint64_t given_up_ = 0; ///< pieces
};

} // namespace neuroshard
