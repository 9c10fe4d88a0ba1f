#pragma once

#include "kernels/core/status.hpp"
#include "kernels/text/shard_source.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace neuroshard::text {

inline constexpr uint32_t heldout_windows = 32;
inline constexpr int32_t ignored_label = -100;

/// Where a node is in its shards. Part of a checkpoint: together with the step number it decides every later
/// batch.
struct data_cursor {
  uint64_t rotation = 0;     ///< r: how many times all assigned shards were used
  uint64_t index = 0;        ///< i: which of the M assigned shards is in use
  uint64_t tokens_drawn = 0; ///< label positions drawn from it
  friend bool operator==(const data_cursor&, const data_cursor&) = default;

  /// {"rotation":r,"index":i,"tokens_drawn":t}
  std::string to_json() const;
  static kernels::result<data_cursor> parse(std::string_view json);
};

/// Draws training batches and held-out windows (spec/training.md section 9). Rows depend on node, shard,
/// step, batch size and row alone, whatever the micro-batches or retries. Const calls may come from any
/// thread.
class data_loader {
public:
  struct options {
    std::string node_id;                      ///< 32 hex digits; its bytes as text go into the hashes
    uint64_t storage_bytes_max = 100'000'000; ///< M = shards that fit into it, at least 1
  };

  /// `invalid_argument` when the set has no training shard of 2 tokens or more.
  static kernels::result<data_loader> make(std::shared_ptr<const shard_source> shards, const options& how);

  /// M of the specification.
  uint64_t shards_in_rotation() const noexcept { return shards_in_rotation_; }
  /// Place in training_ids() of the shard that the cursor is on: S[(base + r M + i) mod n].
  size_t place(const data_cursor& at) const noexcept;
  uint64_t shard_id(const data_cursor& at) const noexcept;

  /// Call before each step: tells the source which shard is in use, so that a mirror fetches it and those
  /// after it. Returns `at`, or where to go on when a mirror fails to give that shard: the next of the
  /// assigned order that is here.
  data_cursor settle(const data_cursor& at) const;
  /// Ok when the cursor's shard can be read now, else `unavailable` with what is waited for.
  kernels::status ready(const data_cursor& at) const { return shards_->lease(place(at)).status(); }

  /// Rows first_row .. first_row + rows - 1 of the batch of step `step`: ids[rows,seq] = BOS, t[o] ...
  /// t[o+seq-2] and labels[rows,seq] = t[o] ... t[o+seq-1]; the rest of a row of a short shard is PAD and
  /// -100. Overwrites both. `invalid_argument` when the arrays have other sizes, seq is 0, or a row is not in
  /// the batch; `unavailable` when the shard is not here.
  kernels::status rows(const data_cursor& at, uint64_t step, uint32_t batch, uint32_t first_row,
                       uint32_t rows, uint32_t seq, std::span<int32_t> ids, std::span<int32_t> labels) const;

  /// The cursor after a step of `tokens` drawn positions (batch x seq). Call it when the step is done, not
  /// when it begins: a step that is dropped is redone with the same batch. A mirror that is slow is not
  /// waited for: where the next shard is not here yet, the one after it that is comes first, and at last the
  /// same one again.
  data_cursor advance(data_cursor at, uint64_t tokens) const;

  /// Held-out window `window` (0 .. heldout_windows - 1), which begins at token window x floor(tokens / 32);
  /// same form as a training row: ids[seq], labels[seq]. `invalid_argument` when nothing is held out.
  kernels::status heldout_window(uint32_t window, std::span<int32_t> ids, std::span<int32_t> labels) const;
  bool has_heldout() const { return shards_->held_out().size() >= 2; }

private:
  data_loader() = default;
  data_cursor next(data_cursor at) const noexcept;
  data_cursor first_here(const data_cursor& from, const data_cursor& otherwise) const;

  std::shared_ptr<const shard_source> shards_;
  std::vector<uint64_t> keys_; ///< Philox key for each training shard
  uint64_t base_ = 0;
  uint64_t shards_in_rotation_ = 1;
};

} // namespace neuroshard::text
