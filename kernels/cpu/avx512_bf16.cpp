#include "kernels/cpu/avx512_bf16.hpp"

#include <algorithm>
#include <cstring>

// The intrinsics first, outside the pragma: their own attributes stay as they are.
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,bmi2")

namespace neuroshard::kernels::cpu::avx512_bf16 {

namespace {

__attribute__((always_inline)) inline __m512bh pairs(__m512i words) {
  return (__m512bh)words;
}

/// R rows times V vectors of 16 columns; up to 24 of the 32 registers hold sums.
template <bool Transposed, int R, int V>
__attribute__((always_inline)) inline void micro(const block_args& t, int64_t row, int64_t column) {
  const auto* a = static_cast<const char*>(t.a) + 4 * (Transposed ? row : row * t.lda);
  const auto* b = static_cast<const int32_t*>(t.b) + column;
  float* c = t.c + row * t.ldc + column;
  const int64_t lda_bytes = 4 * t.lda;
  __m512 sum[R][V];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j)
      sum[i][j] = t.accumulate ? _mm512_loadu_ps(c + i * t.ldc + 16 * j) : _mm512_setzero_ps();
  for (int64_t s = 0; s < t.steps; ++s) {
    __m512i right[V];
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j)
      right[j] = _mm512_loadu_si512(b + 16 * j);
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i) {
      int32_t word;
      std::memcpy(&word, Transposed ? a + 4 * i : a + i * lda_bytes, 4);
      const __m512i left = _mm512_set1_epi32(word);
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j)
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], pairs(left), pairs(right[j]));
    }
    a += Transposed ? lda_bytes : 4;
    b += panel_width;
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j)
      _mm512_storeu_ps(c + i * t.ldc + 16 * j, sum[i][j]);
}

template <bool Transposed, int R, int V>
__attribute__((noinline)) void micro_call(const block_args& t, int64_t row, int64_t column) {
  micro<Transposed, R, V>(t, row, column);
}

/// All rows for V vectors of columns, at most `Most` rows at a time and as evenly as that goes: 64 rows are 4
/// x 11 + 2 x 10, not 5 x 12 + 4.
template <bool Transposed, int V, int Most>
void strip(const block_args& t, int64_t column) {
  using call = void (*)(const block_args&, int64_t, int64_t);
  static constexpr call by_rows[13] = {nullptr,
                                       micro_call<Transposed, 1, V>,
                                       micro_call<Transposed, 2, V>,
                                       micro_call<Transposed, 3, V>,
                                       micro_call<Transposed, 4, V>,
                                       micro_call<Transposed, 5, V>,
                                       micro_call<Transposed, 6, V>,
                                       micro_call<Transposed, std::min(7, Most), V>,
                                       micro_call<Transposed, std::min(8, Most), V>,
                                       micro_call<Transposed, std::min(9, Most), V>,
                                       micro_call<Transposed, std::min(10, Most), V>,
                                       micro_call<Transposed, std::min(11, Most), V>,
                                       micro_call<Transposed, std::min(12, Most), V>};
  int64_t left = divide_up(t.m, Most);
  for (int64_t row = 0; row < t.m;) {
    const int64_t rows = divide_up(t.m - row, left--);
    by_rows[rows](t, row, column);
    row += rows;
  }
}

template <bool Transposed>
void block(const block_args& t) {
  int64_t column = 0;
  // Few rows: all 64 columns at once, so that the panel is read in one sequential stream.
  if (t.n == 64 && t.m <= 6) {
    strip<Transposed, 4, 6>(t, 0);
    return;
  }
  for (; column + 32 <= t.n; column += 32)
    strip<Transposed, 2, 12>(t, column);
  if (column < t.n)
    strip<Transposed, 1, 12>(t, column);
}

} // namespace

void install(tile_kernels& table) {
  table.block = block<false>;
  table.block_transposed = block<true>;
}

} // namespace neuroshard::kernels::cpu::avx512_bf16

#pragma GCC pop_options
