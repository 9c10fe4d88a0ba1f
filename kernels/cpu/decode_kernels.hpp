#pragma once

#include "kernels/core/dtype.hpp"
#include "kernels/cpu/cpu_isa.hpp"

#include <cstddef>
#include <cstdint>

/// Attention of one position over a paged cache. All query heads of a kv head go over a run of slots
/// together, so that each key and value is read once.
namespace neuroshard::kernels::cpu {

/// Slots that one call takes in.
inline constexpr int64_t decode_run = 64;
/// Cache blocks of 16 slots in such a run.
inline constexpr int64_t decode_blocks = decode_run / 16;

/// A run of slots for one kv head; the running softmax is that of "FlashAttention-2" (Dao, 2023), in base 2.
struct decode_run_args {
  const void* q = nullptr; ///< act [heads, size], rows `q_width` elements apart
  int64_t q_width = 0;
  float scale = 1; ///< of the products: log2(e) / sqrt(size)
  int64_t heads = 0;
  int64_t size = 0;
  int64_t width = 0; ///< of `sums`: `size` rounded up to a multiple of 16
  /// The head's first slot in each block, act [16, size] with rows `stride` elements apart.
  const void* keys[decode_blocks] = {};
  const void* values[decode_blocks] = {};
  int64_t stride = 0;
  int64_t count = 0; ///< slots, from 1 to 64
  /// This head's share of the blocks that come after the run, to be asked for meanwhile: for each slot that
  /// is worked on, `next_slot_bytes` of them. Null where there are none.
  const std::byte* next_keys[decode_blocks] = {};
  const std::byte* next_values[decode_blocks] = {};
  int64_t next_slot_bytes = 0;
  float* largest = nullptr; ///< [heads], -inf at first
  float* total = nullptr;   ///< [heads], sum of 2^(score - largest), 0 at first
  float* sums = nullptr;    ///< [heads, width], sum of 2^(score - largest) v, 0 at first
};

using decode_run_function = void (*)(const decode_run_args&);

decode_run_function decode_run_for(dtype act, isa level);

} // namespace neuroshard::kernels::cpu
