#pragma once

#include "kernels/core/dtype.hpp"
#include "kernels/cpu/cpu_isa.hpp"

#include <cstddef>
#include <cstdint>

/// Attention of one position over a paged cache. All heads go over a block of slots together, so that each
/// key and value is read once, and in the order in which they lie in memory.
namespace neuroshard::kernels::cpu {

/// Slots that one call takes in.
inline constexpr int64_t decode_run = 64;
/// Cache blocks of 16 slots in such a run.
inline constexpr int64_t decode_blocks = decode_run / 16;
/// A block is asked for while the one so many before it is worked on.
inline constexpr int64_t decode_ahead = 1;

/// A run of slots; the running softmax is that of "FlashAttention-2" (Dao, 2023), in base 2. Query heads
/// [g * group, (g + 1) * group) share kv head g; heads = kv_heads * group.
struct decode_run_args {
  const void* q = nullptr; ///< act [heads, size], rows `q_width` elements apart
  int64_t q_width = 0;
  float scale = 1; ///< of the products: log2(e) / sqrt(size)
  int64_t kv_heads = 0;
  int64_t group = 0;
  int64_t size = 0;
  int64_t width = 0; ///< of `sums`: `size` rounded up to a multiple of 16
  /// Each block, act [16, kv_heads, size] with slots `stride` and heads `head_stride` elements apart.
  const void* keys[decode_blocks] = {};
  const void* values[decode_blocks] = {};
  int64_t stride = 0;
  int64_t head_stride = 0;
  int64_t count = 0; ///< slots, from 1 to 64
  /// The blocks of keys that come after the run, to be asked for meanwhile; null where there are none.
  const void* next[decode_ahead] = {};
  float* weights = nullptr; ///< scratch memory for heads * (64 + 1) floats
  float* largest = nullptr; ///< [heads], -inf at first
  float* total = nullptr;   ///< [heads], sum of 2^(score - largest), 0 at first
  float* sums = nullptr;    ///< [heads, width], sum of 2^(score - largest) v, 0 at first
};

using decode_run_function = void (*)(const decode_run_args&);

decode_run_function decode_run_for(dtype act, isa level);

} // namespace neuroshard::kernels::cpu
