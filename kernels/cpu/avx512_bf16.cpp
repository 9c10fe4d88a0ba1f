#include "kernels/cpu/avx512_bf16.hpp"

#include <algorithm>
#include <cstring>

// The intrinsics first, outside the pragma: their own attributes stay as they are.
#include <immintrin.h>

// GCC 12 takes the undefined registers that its own intrinsics start from for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,bmi2")

namespace neuroshard::kernels::cpu::avx512_bf16 {

namespace {

/// How far ahead of the product a streamed panel is fetched: 8 KiB.
constexpr int64_t prefetch_steps = 32;
/// Rows of so many elements are asked for ahead while they are transposed.
constexpr int64_t streamed_from = 512;

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
    // A whole panel row at a time is a stream from memory; the hardware's prefetcher stops at each page.
    if constexpr (V == 4)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        _mm_prefetch(reinterpret_cast<const char*>(b + prefetch_steps * panel_width + 16 * j), _MM_HINT_T0);
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
  if (t.rounded != nullptr) {
    bf16* out = t.rounded + row * t.ld_rounded + column;
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * t.ld_rounded + 16 * j),
                            (__m256i)_mm512_cvtneps_pbh(sum[i][j]));
    return;
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
  if (t.n == 64 && t.m <= 16) {
    strip<Transposed, 4, 6>(t, 0);
    return;
  }
  if (t.n - column == 48) { // the end of a row: 32 and 16 would leave the products waiting for loads
    strip<Transposed, 3, 8>(t, column);
    return;
  }
  for (; column + 32 <= t.n; column += 32)
    strip<Transposed, 2, 12>(t, column);
  if (column < t.n)
    strip<Transposed, 1, 12>(t, column);
}

// ------------------------------------------------------------------------------------------------ packing

using vector16 = __m512i[16];

/// Sixteen rows of sixteen words, transposed in place.
__attribute__((always_inline)) inline void transpose_16x16(vector16& r) {
  vector16 t;
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  // Of rows 4i ... 4i+3, in each 128-bit part p: column 4p + j in r[4i + j].
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // A 4 x 4 transpose of the 128-bit parts.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i low = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x44);
    const __m512i high = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xee);
    const __m512i low2 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x44);
    const __m512i high2 = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xee);
    t[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    t[8 + j] = _mm512_shuffle_i32x4(high, high2, 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i)
    r[i] = t[i];
}

/// Sixteen words along a row: f32 elements, or pairs of bf16 rounded from f32 where the source is f32.
template <class Act, class Source>
__attribute__((always_inline)) inline __m512i words_along(const Source* p) {
  if constexpr (sizeof(Act) == sizeof(Source))
    return _mm512_loadu_si512(p);
  else
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p));
}

/// Words 0 ... 15 and 16 ... 31 of two rows, the elements of `a` in the lower halves.
__attribute__((always_inline)) inline void zip(__m512i a, __m512i b, __m512i& low, __m512i& high) {
  alignas(64) static constexpr uint16_t first[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                     37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                     11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i index = _mm512_load_si512(first);
  low = _mm512_permutex2var_epi16(a, index, b);
  high = _mm512_permutex2var_epi16(a, _mm512_add_epi16(index, _mm512_set1_epi16(16)), b);
}

tile_kernels portable_f32;
tile_kernels portable_bf16;

template <class Act>
const tile_kernels& portable() {
  return sizeof(Act) == 4 ? portable_f32 : portable_bf16;
}

template <class Act, class Source>
void pack_transposed(const pack_args& p) {
  constexpr int64_t pair = sizeof(Act) == 4 ? 1 : 2;
  const int64_t whole = std::min(p.last_step, p.k / pair);
  int64_t s = p.first_step;
  // Long rows are a weight that comes from memory: 64 streams at once are more than the hardware follows.
  const bool streams = p.k >= streamed_from;
  if (p.columns == p.width && p.width % 16 == 0)
    for (; s + 16 <= whole; s += 16)
      for (int64_t n = 0; n < p.width; n += 16) {
        const auto* from = static_cast<const Source*>(p.source) + n * p.ld + s * pair;
        if (streams)
#pragma GCC unroll 16
          for (int i = 0; i < 16; ++i)
            for (size_t line = 0; line < 16 * pair * sizeof(Source); line += 64)
              _mm_prefetch(reinterpret_cast<const char*>(from + i * p.ld + 2 * 16 * pair) + line,
                           _MM_HINT_T0);
        vector16 r;
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          r[i] = words_along<Act>(from + i * p.ld);
        transpose_16x16(r);
        auto* to = static_cast<uint32_t*>(p.panel) + s * panel_width + n;
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i)
          _mm512_storeu_si512(to + i * panel_width, r[i]);
      }
  if (s < p.last_step) {
    pack_args rest = p;
    rest.first_step = s;
    portable<Act>().pack_transposed(rest);
  }
}

template <class Act, class Source>
void pack_rows(const pack_args& p) {
  constexpr int64_t pair = sizeof(Act) == 4 ? 1 : 2;
  const int64_t whole = std::min(p.last_step, p.k / pair);
  int64_t s = p.first_step;
  if (p.columns == panel_width)
    for (; s < whole; ++s) {
      const auto* from = static_cast<const Source*>(p.source) + s * pair * p.ld;
      auto* to = static_cast<uint32_t*>(p.panel) + s * panel_width;
      if constexpr (pair == 1) {
#pragma GCC unroll 4
        for (int i = 0; i < 64; i += 16)
          _mm512_storeu_si512(to + i, _mm512_loadu_si512(from + i));
      } else {
#pragma GCC unroll 2
        for (int i = 0; i < 64; i += 32) {
          __m512i low;
          __m512i high;
          zip(words_along<Act>(from + i), words_along<Act>(from + p.ld + i), low, high);
          _mm512_storeu_si512(to + i, low);
          _mm512_storeu_si512(to + i + 16, high);
        }
      }
    }
  if (s < p.last_step) {
    pack_args rest = p;
    rest.first_step = s;
    portable<Act>().pack_rows(rest);
  }
}

/// The 16 steps from `from` on and `wide` columns.
template <class Act>
__attribute__((always_inline)) inline void transpose_piece(const Act* from, int64_t ld, uint32_t* to,
                                                           int64_t ldo) {
  if constexpr (sizeof(Act) == 4) {
    vector16 r;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      r[i] = _mm512_loadu_si512(from + i * ld);
    transpose_16x16(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      _mm512_storeu_si512(to + i * ldo, r[i]);
  } else {
    vector16 low;
    vector16 high;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      zip(_mm512_loadu_si512(from + 2 * i * ld), _mm512_loadu_si512(from + (2 * i + 1) * ld), low[i],
          high[i]);
    transpose_16x16(low);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      _mm512_storeu_si512(to + i * ldo, low[i]);
    transpose_16x16(high);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      _mm512_storeu_si512(to + (16 + i) * ldo, high[i]);
  }
}

template <class Act>
void transpose(const transpose_args& t) {
  constexpr int64_t pair = sizeof(Act) == 4 ? 1 : 2;
  constexpr int64_t wide = sizeof(Act) == 4 ? 16 : 32;
  const int64_t steps = std::min(t.steps, t.k / pair) / 16 * 16;
  const int64_t columns = t.n / wide * wide;
  const auto* x = static_cast<const Act*>(t.x);
  auto* out = static_cast<uint32_t*>(t.out);
  for (int64_t s = 0; s < steps; s += 16)
    for (int64_t n = 0; n < columns; n += wide)
      transpose_piece(x + s * pair * t.ld + n, t.ld, out + n * t.ldo + s, t.ldo);
  if (columns < t.n) {
    transpose_args rest = t;
    rest.x = x + columns;
    rest.n = t.n - columns;
    rest.out = out + columns * t.ldo;
    portable<Act>().transpose(rest);
  }
  if (steps < t.steps && columns > 0) {
    transpose_args rest = t;
    rest.x = x + steps * pair * t.ld;
    rest.k = t.k - steps * pair;
    rest.n = columns;
    rest.out = out + steps;
    rest.steps = t.steps - steps;
    portable<Act>().transpose(rest);
  }
}

void pack_transposed_bf16(const pack_args& p) {
  p.source_type == dtype::f32 ? pack_transposed<bf16, float>(p) : pack_transposed<bf16, bf16>(p);
}

void pack_rows_bf16(const pack_args& p) {
  p.source_type == dtype::f32 ? pack_rows<bf16, float>(p) : pack_rows<bf16, bf16>(p);
}

} // namespace

tile_kernels with_bf16(const tile_kernels& table) {
  portable_bf16 = table;
  tile_kernels made = table;
  made.rounds = true;
  made.block = block<false>;
  made.block_transposed = block<true>;
  made.pack_transposed = pack_transposed_bf16;
  made.pack_rows = pack_rows_bf16;
  made.transpose = transpose<bf16>;
  return made;
}

tile_kernels with_packing(const tile_kernels& table) {
  portable_f32 = table;
  tile_kernels made = table;
  made.pack_transposed = pack_transposed<float, float>;
  made.pack_rows = pack_rows<float, float>;
  made.transpose = transpose<float>;
  return made;
}

} // namespace neuroshard::kernels::cpu::avx512_bf16

#pragma GCC pop_options
