#pragma once

#include "actors/common/tensor_handle.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"
#include "kernels/text/data_loader.hpp"

#include <cstdint>
#include <vector>

namespace neuroshard {

/// A part of a batch: ids and labels [rows, seq].
struct step_part_batch {
  uint32_t rows = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
  uint64_t label_count = 0; ///< labels that are not ignored
};

/// The batch of one step, cut into micro-batches of about equal rows. Parts without a label are left out.
struct step_batch {
  std::vector<step_part_batch> parts;
  uint32_t rows = 0;
  uint32_t seq = 0;
  uint64_t label_count = 0;
};

/// Rows of one micro-batch: the batch over the number of micro-batches, rounded up, and never more positions
/// than the stage takes at once.
uint32_t rows_per_part(uint32_t batch, uint32_t microbatches, uint32_t seq, uint64_t positions_max);

/// Draws the batch of step `step`.
kernels::result<step_batch> draw_batch(const text::data_loader& data, const text::data_cursor& at,
                                       uint64_t step, uint32_t batch, uint32_t seq, uint32_t rows_of_part);

/// What a proof of the step calls its data: SHA-256 over the batch row by row in batch order, of each row its
/// ids, then its labels, 32-bit little-endian. The cut into micro-batches does not matter.
kernels::digest data_hash_of(const step_batch& batch);

/// The fixed held-out windows, cut likewise.
kernels::result<step_batch> heldout_batch(const text::data_loader& data, uint32_t seq, uint32_t rows_of_part);

/// Copies ids or labels into a handle in host memory, i32 [rows, columns], which owns them.
tensor_handle integers(std::vector<int32_t> values, int64_t rows, int64_t columns);

} // namespace neuroshard
