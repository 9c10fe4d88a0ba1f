#pragma once

#include "kernels/core/dtype.hpp"
#include "kernels/cpu/cpu_isa.hpp"

#include <cstdint>

/// The element-wise parts of blocked attention (Dao, "FlashAttention-2", 2023). A block is up to 64 queries
/// by 64 keys; its products are those of tile_kernels.hpp.
namespace neuroshard::kernels::cpu {

inline constexpr int64_t attention_block = 64;

/// One block of scores of the forward pass: the running softmax.
struct softmax_block_args {
  const float* scores = nullptr; ///< [rows, 64], not scaled
  int64_t rows = 0;
  int64_t visible = 0; ///< row i sees the first clamp(visible + i, 0, keys) keys of the block
  int64_t keys = 0;
  float scale = 1;
  float* largest = nullptr; ///< [rows], of the scores so far, not scaled; -inf at first
  float* total = nullptr;   ///< [rows, 16], partial sums of exp(scale (score - largest)) so far
  void* weights = nullptr;  ///< act [rows, 64], overwritten; 0 beyond what is visible
  float* sums = nullptr; ///< [rows, width] f32: scaled to the new `largest`; not touched in the first block
  int64_t width = 0;     ///< a multiple of 16
  bool first = false;
};

/// One block of the backward pass, keys down, queries across.
struct backward_block_args {
  const float* scores = nullptr;    ///< [keys, 64] k.q, not scaled
  const float* gradients = nullptr; ///< [keys, 64] v.dout
  int64_t keys = 0;
  int64_t queries = 0;
  int64_t visible = 0; ///< key j is seen by the queries from max(0, j - visible) on
  float scale = 1;
  const float* lse = nullptr;    ///< [64]
  const float* delta = nullptr;  ///< [64] sum over d of dout out
  void* weights = nullptr;       ///< act [keys, 64]: softmax, transposed
  void* dscores = nullptr;       ///< act [keys, 64]: gradient of k.q, transposed
  void* dscores_words = nullptr; ///< words [steps of keys, 64]: the same, pairs of keys joined in bf16
};

struct attention_kernels {
  void (*softmax_block)(const softmax_block_args&) = nullptr;
  void (*backward_block)(const backward_block_args&) = nullptr;
  /// The dot product of two rows of act.
  float (*dot)(const void* a, const void* b, int64_t count) = nullptr;
  /// out[count] act = x[count] * factor
  void (*scale_row)(const float* x, float factor, void* out, int64_t count) = nullptr;
};

const attention_kernels& attention_kernels_for(dtype act, isa level);

} // namespace neuroshard::kernels::cpu
