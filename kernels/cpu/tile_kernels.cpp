// Portable SIMD versions of the small products and the packing, for every instruction set.
#include "kernels/cpu/tile_kernels.hpp"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tile_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3)
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.hpp"

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

/// How far ahead of the product a streamed panel is fetched: 8 KiB.
constexpr int64_t prefetch_steps = 32;
constexpr bool wide = HWY_TARGET == HWY_AVX3; // 32 registers, so that four vectors of columns fit

/// R rows times V vectors of columns. The sum over k is one chain per element, so it does not depend on R and
/// V.
template <class T, bool Transposed, int R, int V>
HWY_INLINE void micro(const block_args& t, int64_t row, int64_t column) {
  const float_tag d;
  const hn::RebindToUnsigned<float_tag> du;
  const auto step_lanes = static_cast<int64_t>(lanes());
  const auto* a = static_cast<const uint32_t*>(t.a) + (Transposed ? row : row * t.lda);
  const auto* b = static_cast<const uint32_t*>(t.b) + column;
  float* c = t.c + row * t.ldc + column;
  float_vec sum[R][V];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j)
      sum[i][j] = t.accumulate ? hn::LoadU(d, c + i * t.ldc + j * step_lanes) : hn::Zero(d);
  for (int64_t s = 0; s < t.steps; ++s) {
    // A whole panel row at a time is a stream from memory; the hardware's prefetcher stops at each page.
    if constexpr (V == 4)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        hwy::Prefetch(b + prefetch_steps * panel_width + j * step_lanes);
    if constexpr (std::is_same_v<T, float>) {
      float_vec right[V];
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j)
        right[j] = hn::BitCast(d, hn::LoadU(du, b + j * step_lanes));
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        uint32_t word;
        std::memcpy(&word, Transposed ? a + i : a + i * t.lda, 4);
        const auto left = hn::BitCast(d, hn::Set(du, word));
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j)
          sum[i][j] = hn::MulAdd(left, right[j], sum[i][j]);
      }
    } else {
      float_vec even[V];
      float_vec odd[V];
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) {
        const auto pairs = hn::LoadU(du, b + j * step_lanes);
        even[j] = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
        odd[j] = hn::BitCast(d, hn::And(pairs, hn::Set(du, 0xffff0000U)));
      }
#pragma GCC unroll 8
      for (int i = 0; i < R; ++i) {
        uint32_t word;
        std::memcpy(&word, Transposed ? a + i : a + i * t.lda, 4);
        const auto left_even = hn::BitCast(d, hn::Set(du, word << 16));
        const auto left_odd = hn::BitCast(d, hn::Set(du, word & 0xffff0000U));
#pragma GCC unroll 4
        for (int j = 0; j < V; ++j)
          sum[i][j] = hn::MulAdd(left_odd, odd[j], hn::MulAdd(left_even, even[j], sum[i][j]));
      }
    }
    a += Transposed ? t.lda : 1;
    b += panel_width;
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j)
      hn::StoreU(sum[i][j], d, c + i * t.ldc + j * step_lanes);
}

template <class T, bool Transposed, int V>
HWY_INLINE void strip(const block_args& t, int64_t column) {
  int64_t row = 0;
  for (; row + 6 <= t.m; row += 6)
    micro<T, Transposed, 6, V>(t, row, column);
  if (row + 4 <= t.m) {
    micro<T, Transposed, 4, V>(t, row, column);
    row += 4;
  }
  if (row + 2 <= t.m) {
    micro<T, Transposed, 2, V>(t, row, column);
    row += 2;
  }
  if (row < t.m)
    micro<T, Transposed, 1, V>(t, row, column);
}

template <class T, bool Transposed>
void block(const block_args& t) {
  const auto l = static_cast<int64_t>(lanes());
  int64_t column = 0;
  if constexpr (wide)
    for (; column + 4 * l <= t.n; column += 4 * l)
      strip<T, Transposed, wide ? 4 : 2>(t, column);
  for (; column + 2 * l <= t.n; column += 2 * l)
    strip<T, Transposed, 2>(t, column);
  if (column + l <= t.n)
    strip<T, Transposed, 1>(t, column);
}

// ------------------------------------------------------------------------------------------------ packing
// Four-lane vectors throughout: a 4 x 4 transpose is eight shuffles on every target, and packing is bound by
// memory.

using word_tag = hn::FixedTag<uint32_t, 4>;
using word_vec = hn::Vec<word_tag>;
using quad_tag = hn::FixedTag<float, 4>;

/// Four elements as f32, bits in u32 lanes.
HWY_INLINE word_vec four(const float* p) {
  return hn::BitCast(word_tag(), hn::LoadU(quad_tag(), p));
}
HWY_INLINE word_vec four(const bf16* p) {
  const hn::Rebind<uint16_t, word_tag> half;
  return hn::ShiftLeft<16>(hn::PromoteTo(word_tag(), hn::LoadU(half, reinterpret_cast<const uint16_t*>(p))));
}
/// bf16 bits in the upper halves: rounds f32, and is free for bf16.
HWY_INLINE word_vec upper(const float* p) {
  return round_to_bf16(quad_tag(), hn::LoadU(quad_tag(), p));
}
HWY_INLINE word_vec upper(const bf16* p) {
  return four(p);
}

HWY_INLINE word_vec join(word_vec low, word_vec high) {
  return hn::Or(hn::ShiftRight<16>(low), hn::And(high, hn::Set(word_tag(), 0xffff0000U)));
}

/// Words s ... s+3 of one row of the source whose contraction runs along the row.
template <class Act, class Source>
HWY_INLINE word_vec words_along(const Source* row, int64_t s) {
  if constexpr (std::is_same_v<Act, float>) {
    return four(row + s);
  } else if constexpr (std::is_same_v<Source, bf16>) {
    return hn::LoadU(word_tag(), reinterpret_cast<const uint32_t*>(row + 2 * s));
  } else {
    const auto a = upper(row + 2 * s);
    const auto b = upper(row + 2 * s + 4);
    return join(hn::ConcatEven(word_tag(), b, a), hn::ConcatOdd(word_tag(), b, a));
  }
}

template <class Act, class Source>
HWY_INLINE uint32_t bits_of(Source x) {
  if constexpr (std::is_same_v<Act, float>)
    return std::bit_cast<uint32_t>(x);
  else if constexpr (std::is_same_v<Source, bf16>)
    return x.bits;
  else
    return to_bf16(x).bits;
}

/// One word; elements at or beyond k are 0. `next` is the distance between k and k+1.
template <class Act, class Source>
HWY_INLINE uint32_t word_at(const Source* x, int64_t s, int64_t k, int64_t next) {
  if constexpr (std::is_same_v<Act, float>) {
    return s < k ? bits_of<Act>(x[s * next]) : 0U;
  } else {
    const uint32_t low = 2 * s < k ? bits_of<Act>(x[2 * s * next]) : 0U;
    const uint32_t high = 2 * s + 1 < k ? bits_of<Act>(x[(2 * s + 1) * next]) : 0U;
    return low | (high << 16);
  }
}

HWY_INLINE void transpose_4x4(word_vec r0, word_vec r1, word_vec r2, word_vec r3, uint32_t* to, int64_t ld) {
  const hn::FixedTag<uint64_t, 2> wide_tag;
  const auto t0 = hn::BitCast(wide_tag, hn::InterleaveLower(word_tag(), r0, r1));
  const auto t1 = hn::BitCast(wide_tag, hn::InterleaveUpper(word_tag(), r0, r1));
  const auto t2 = hn::BitCast(wide_tag, hn::InterleaveLower(word_tag(), r2, r3));
  const auto t3 = hn::BitCast(wide_tag, hn::InterleaveUpper(word_tag(), r2, r3));
  hn::StoreU(hn::BitCast(word_tag(), hn::InterleaveLower(wide_tag, t0, t2)), word_tag(), to);
  hn::StoreU(hn::BitCast(word_tag(), hn::InterleaveUpper(wide_tag, t0, t2)), word_tag(), to + ld);
  hn::StoreU(hn::BitCast(word_tag(), hn::InterleaveLower(wide_tag, t1, t3)), word_tag(), to + 2 * ld);
  hn::StoreU(hn::BitCast(word_tag(), hn::InterleaveUpper(wide_tag, t1, t3)), word_tag(), to + 3 * ld);
}

template <class Act, class Source>
void pack_transposed_of(const pack_args& p) {
  constexpr int64_t pair = std::is_same_v<Act, float> ? 1 : 2;
  const auto* source = static_cast<const Source*>(p.source);
  auto* panel = static_cast<uint32_t*>(p.panel);
  const int64_t whole = std::min(p.last_step, p.k / pair); // steps without padding
  int64_t s = p.first_step;
  for (; s + 4 <= whole; s += 4) {
    int64_t n = 0;
    for (; n + 4 <= p.columns; n += 4) {
      const Source* row = source + n * p.ld;
      transpose_4x4(words_along<Act>(row, s), words_along<Act>(row + p.ld, s),
                    words_along<Act>(row + 2 * p.ld, s), words_along<Act>(row + 3 * p.ld, s),
                    panel + s * panel_width + n, panel_width);
    }
    for (; n < p.width; ++n)
      for (int64_t i = 0; i < 4; ++i)
        panel[(s + i) * panel_width + n] =
            n < p.columns ? word_at<Act>(source + n * p.ld, s + i, p.k, 1) : 0U;
  }
  for (; s < p.last_step; ++s)
    for (int64_t n = 0; n < p.width; ++n)
      panel[s * panel_width + n] = n < p.columns ? word_at<Act>(source + n * p.ld, s, p.k, 1) : 0U;
}

/// Words n ... n+3 of step s of a source whose contraction runs down the rows.
template <class Act, class Source>
HWY_INLINE word_vec words_down(const Source* x, int64_t ld, int64_t s, int64_t n) {
  if constexpr (std::is_same_v<Act, float>)
    return four(x + s * ld + n);
  else
    return join(upper(x + 2 * s * ld + n), upper(x + (2 * s + 1) * ld + n));
}

template <class Act, class Source>
void pack_rows_of(const pack_args& p) {
  constexpr int64_t pair = std::is_same_v<Act, float> ? 1 : 2;
  const auto* source = static_cast<const Source*>(p.source);
  auto* panel = static_cast<uint32_t*>(p.panel);
  for (int64_t s = p.first_step; s < p.last_step; ++s) {
    int64_t n = 0;
    if (pair * (s + 1) <= p.k)
      for (; n + 4 <= p.columns; n += 4)
        hn::StoreU(words_down<Act>(source, p.ld, s, n), word_tag(), panel + s * panel_width + n);
    for (; n < p.width; ++n)
      panel[s * panel_width + n] = n < p.columns ? word_at<Act>(source + n, s, p.k, p.ld) : 0U;
  }
}

template <class Act>
void transpose_of(const transpose_args& t) {
  constexpr int64_t pair = std::is_same_v<Act, float> ? 1 : 2;
  const auto* x = static_cast<const Act*>(t.x);
  auto* out = static_cast<uint32_t*>(t.out);
  const int64_t whole = t.k / pair;
  // Down the steps in groups of 16 words, one cache line of the output, and across all columns inside.
  for (int64_t first = 0; first < t.steps; first += step_group) {
    const int64_t last = std::min(t.steps, first + step_group);
    int64_t n = 0;
    for (; n + 4 <= t.n; n += 4) {
      int64_t s = first;
      for (; s + 4 <= std::min(last, whole); s += 4)
        transpose_4x4(words_down<Act>(x, t.ld, s, n), words_down<Act>(x, t.ld, s + 1, n),
                      words_down<Act>(x, t.ld, s + 2, n), words_down<Act>(x, t.ld, s + 3, n),
                      out + n * t.ldo + s, t.ldo);
      for (; s < last; ++s)
        for (int64_t i = 0; i < 4; ++i)
          out[(n + i) * t.ldo + s] = word_at<Act>(x + n + i, s, t.k, t.ld);
    }
    for (; n < t.n; ++n)
      for (int64_t s = first; s < last; ++s)
        out[n * t.ldo + s] = word_at<Act>(x + n, s, t.k, t.ld);
  }
}

void pack_transposed_f32(const pack_args& p) {
  pack_transposed_of<float, float>(p);
}
void pack_rows_f32(const pack_args& p) {
  pack_rows_of<float, float>(p);
}
void pack_transposed_bf16(const pack_args& p) {
  p.source_type == dtype::f32 ? pack_transposed_of<bf16, float>(p) : pack_transposed_of<bf16, bf16>(p);
}
void pack_rows_bf16(const pack_args& p) {
  p.source_type == dtype::f32 ? pack_rows_of<bf16, float>(p) : pack_rows_of<bf16, bf16>(p);
}

const tile_kernels kernels_f32{dtype::f32,          block<float, false>, block<float, true>,
                               pack_transposed_f32, pack_rows_f32,       transpose_of<float>};
const tile_kernels kernels_bf16{dtype::bf16,          block<bf16, false>, block<bf16, true>,
                                pack_transposed_bf16, pack_rows_bf16,     transpose_of<bf16>};

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
#include "kernels/cpu/avx512_bf16.hpp"

namespace neuroshard::kernels::cpu {

const tile_kernels& tile_kernels_for(dtype act, isa level) {
  const bool half = act == dtype::bf16;
  if (half && level >= isa::avx512_bf16) {
    static const tile_kernels native = avx512_bf16::with_bf16(N_AVX3::kernels_bf16);
    return native;
  }
  if (!half && level >= isa::avx512) {
    static const tile_kernels packing = avx512_bf16::with_packing(N_AVX3::kernels_f32);
    return packing;
  }
  if (level >= isa::avx512)
    return N_AVX3::kernels_bf16;
  if (level >= isa::avx2)
    return half ? N_AVX2::kernels_bf16 : N_AVX2::kernels_f32;
  return half ? N_SSE4::kernels_bf16 : N_SSE4::kernels_f32;
}

} // namespace neuroshard::kernels::cpu
#endif
