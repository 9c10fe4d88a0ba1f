#pragma once

#include "kernels/core/dtype.hpp"
#include "kernels/cpu/cpu_isa.hpp"

#include <cstdint>

/// The innermost matrix code: small products of a row-major left operand with a packed right operand, and the
/// packing.
///
/// Packed right operand ("panel"): [steps][64] words of 4 bytes. In f32 a step is one k and a word one
/// element; in bf16 a step is the pair (2s, 2s+1) of k and a word holds both elements of its column, lower k
/// first: what AVX512_BF16 and AMX multiply, and what oneDNN calls BA16a64b and BA16a64b2a. Steps are padded
/// with zeros to a multiple of 16.
namespace neuroshard::kernels::cpu {

inline constexpr int64_t panel_width = 64;
inline constexpr int64_t step_group = 16;
inline constexpr uint64_t word_bytes = 4;

constexpr int64_t round_up(int64_t n, int64_t multiple) noexcept {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t divide_up(int64_t n, int64_t by) noexcept {
  return (n + by - 1) / by;
}
/// Elements of k in one step.
constexpr int64_t step_elements(dtype act) noexcept {
  return act == dtype::bf16 ? 2 : 1;
}
constexpr int64_t steps_of(dtype act, int64_t k) noexcept {
  return divide_up(k, step_elements(act));
}
/// Words of one panel for contraction length k.
constexpr int64_t panel_words(dtype act, int64_t k) noexcept {
  return round_up(steps_of(act, k), step_group) * panel_width;
}

/// c[m,n] (+)= a[m,steps] * b[steps,n].
struct block_args {
  const void* a =
      nullptr;     ///< words; word (i, s) is at a[i * lda + s], or at a[s * lda + i] in `block_transposed`
  int64_t lda = 0; ///< in words
  const void* b = nullptr; ///< a panel
  float* c = nullptr;
  int64_t ldc = 0;
  int64_t m = 0;
  int64_t n = 0; ///< a multiple of 16, at most 64
  int64_t steps = 0;
  bool accumulate = false;
  /// Where the kernel `rounds`: the results go here, rounded to bf16, and not to c.
  bf16* rounded = nullptr;
  int64_t ld_rounded = 0;
};

/// Packs one panel, or some columns of it. Columns from `columns` up to `width` become 0.
struct pack_args {
  const void* source = nullptr; ///< [columns, k] (pack_transposed) or [k, columns] (pack_rows)
  dtype source_type = dtype::f32;
  int64_t ld = 0;      ///< elements between rows of the source
  int64_t columns = 0; ///< at most width
  int64_t k = 0;
  void* panel = nullptr; ///< of the first column
  int64_t width = panel_width;
  int64_t first_step = 0; ///< packs steps [first_step, last_step) only; last_step may reach into the padding
  int64_t last_step = 0;
};

/// out[n, s] words = the columns of x[k, n] as rows, pairs of k joined in bf16; steps beyond k are 0.
struct transpose_args {
  const void* x = nullptr; ///< act [k, n]
  int64_t ld = 0;
  int64_t k = 0;
  int64_t n = 0;
  void* out = nullptr;
  int64_t ldo = 0; ///< in words
  int64_t steps = 0;
};

/// One set per activation type and instruction set.
struct tile_kernels {
  dtype act = dtype::f32;
  void (*block)(const block_args&) = nullptr;
  void (*block_transposed)(const block_args&) = nullptr;
  void (*pack_transposed)(const pack_args&) = nullptr;
  void (*pack_rows)(const pack_args&) = nullptr;
  void (*transpose)(const transpose_args&) = nullptr;
  bool rounds = false; ///< the products take block_args::rounded
};

/// The set for an activation type (f32 or bf16) at an instruction set.
const tile_kernels& tile_kernels_for(dtype act, isa level);

} // namespace neuroshard::kernels::cpu
