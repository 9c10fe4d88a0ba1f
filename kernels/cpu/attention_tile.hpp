#pragma once

#include "kernels/cpu/attention_kernels.hpp"
#include "kernels/cpu/cpu_device.hpp"

#include <cstddef>

/// One tile of causal attention: a block of queries of all the heads that share a kv head, against keys and
/// values that come in blocks of 64 positions. Training and the paged prefill differ in where the blocks come
/// from.
namespace neuroshard::kernels::cpu {

/// Sizes of one call, and where things lie in a worker's scratch memory.
struct attention_layout {
  attention_layout(dtype act, int64_t head_size, int64_t heads_in_group);

  dtype act;
  int64_t size;        ///< D
  int64_t group;       ///< query heads per kv head
  int64_t width;       ///< D, padded to whole vectors: columns of the sums
  int64_t panels;      ///< of D columns
  int64_t query_words; ///< words of one padded query row
  int64_t key_words;   ///< words of a block of keys, packed for q k^T
  int64_t value_words; ///< words of one panel of a block of values, packed for p v
  float scale;

  // Offsets in bytes.
  size_t queries, scores, weights, sums, largest, total, keys, values;
  size_t bytes;

  uint64_t packed_words() const noexcept { return static_cast<uint64_t>(key_words + panels * value_words); }
};

/// Packs `count` keys and values into a block, from its position `slot` (even) on; `width` positions are
/// written, those beyond `count` as 0. k and v are act rows `stride` elements apart.
void pack_kv_part(const cpu_device& device, const attention_layout& at, const void* k, int64_t k_stride,
                  const void* v, int64_t v_stride, int64_t slot, int64_t count, int64_t width, uint32_t* keys,
                  uint32_t* values);

/// Queries of one tile. Row i, head h of the group is at data + i * row_stride + h * head_stride (elements).
struct attention_rows {
  const void* q = nullptr;
  int64_t q_row = 0, q_head = 0;
  void* out = nullptr;
  int64_t out_row = 0, out_head = 0;
  int64_t rows = 0;      ///< at most 64
  int64_t position = 0;  ///< of row 0; the others follow
  int64_t first_key = 0; ///< where the first block of keys begins; row 0 sees it
  float* lse = nullptr;  ///< optional: row i, head h at lse[h * lse_head + i]
  int64_t lse_head = 0;
};

/// Begins a tile: copies the queries of all heads of the group into the scratch memory and clears the running
/// sums.
void begin_tile(const attention_layout& at, const attention_rows& rows, std::byte* scratch);

/// Takes in keys [first, first + count), packed.
void take_kv_block(const cpu_device& device, const attention_layout& at, const attention_rows& rows,
                   int64_t first, int64_t count, const uint32_t* keys, const uint32_t* values,
                   std::byte* scratch);

/// Sum of exp(scale (score - largest)) of a row, so far.
float total_of(const attention_layout& at, int64_t row, const std::byte* scratch);

/// Writes out and lse.
void end_tile(const cpu_device& device, const attention_layout& at, const attention_rows& rows,
              std::byte* scratch);

} // namespace neuroshard::kernels::cpu
