#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/cpu/cpu_isa.hpp"

#include <cstdint>

/// The memory-bound operations, each on a range of rows or elements: one pass over memory. The drivers in
/// ops_*.cpp cut the work.
namespace neuroshard::kernels::cpu {

/// out[m,n] (+)= c[m,n], converted to `type`.
struct store_block_args {
  const float* c = nullptr;
  int64_t ldc = 0;
  int64_t m = 0;
  int64_t n = 0;
  void* out = nullptr;
  dtype type = dtype::f32;
  int64_t ldo = 0;
  bool accumulate = false;
};

/// The scalars of one AdamW step, worked out once.
struct adamw_constants {
  float beta1, beta2, one_minus_beta1, one_minus_beta2;
  float correction1; ///< 1 / (1 - b1^t)
  float correction2; ///< 1 / (1 - b2^t)
  float eps;
  float learning_rate;
};

struct row_kernels {
  void (*store_block)(const store_block_args&);
  void (*embedding)(const embedding_args&, int64_t first, int64_t last);
  /// The given rows of dout, in this order.
  void (*embedding_backward)(const embedding_backward_args&, const int32_t* rows, int64_t count);
  void (*rms_norm)(const rms_norm_args&, int64_t first, int64_t last);
  void (*rms_norm_backward)(const rms_norm_backward_args&, int64_t first, int64_t last, float* dgain);
  /// to[i] += from[i]
  void (*add_to)(float* to, const float* from, int64_t count);
  void (*rope)(const rope_args&, int64_t first, int64_t last);
  void (*add)(const add_args&, int64_t first, int64_t last);
  /// count elements.
  void (*convert)(const void* x, dtype from, void* out, dtype to, int64_t count);
  void (*adamw)(const adamw_item&, const adamw_constants&, float clip, bool zero_gradient, int64_t first,
                int64_t last);
  double (*sum_of_squares)(const float* x, int64_t count);
};

const row_kernels& row_kernels_for(isa level);

struct exponential_kernels {
  void (*swiglu)(const swiglu_args&, int64_t first, int64_t last);
  void (*swiglu_backward)(const swiglu_backward_args&, int64_t first, int64_t last);
  /// One row; answers logsumexp - logits[label], 0 for a row without a label. scratch f32 [valid_vocab].
  double (*cross_entropy)(const cross_entropy_args&, int64_t row, float* scratch);
};

const exponential_kernels& exponential_kernels_for(isa level);

} // namespace neuroshard::kernels::cpu
