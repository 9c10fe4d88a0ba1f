// Attention of single positions in portable SIMD, for every instruction set.
#include "kernels/cpu/decode_kernels.hpp"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3)
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.hpp"

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

// What fits into 32 or 16 registers: four slots by so many heads, so many heads by so many vectors.
#if HWY_TARGET == HWY_AVX3
constexpr int heads_together = 4;
constexpr int vectors_together = 4;
#else
constexpr int heads_together = 2;
constexpr int vectors_together = 4;
#endif
constexpr int64_t slots_together = 4;
constexpr int64_t block_slots = decode_run / decode_blocks;

template <class T>
HWY_INLINE const T* slot_of(const void* const* blocks, int64_t slot, int64_t stride) {
  return static_cast<const T*>(blocks[slot / block_slots]) + slot % block_slots * stride;
}

/// Asks for what belongs to the slots [first, first + count) in the share of the blocks after this run: while
/// one run is worked on, the next one comes from memory.
HWY_INLINE void fetch_ahead(const std::byte* const* blocks, int64_t slot_bytes, int64_t first,
                            int64_t count) {
  const std::byte* block = blocks[first / block_slots];
  if (block == nullptr)
    return;
  const std::byte* from = block + first % block_slots * slot_bytes;
  for (int64_t at = 0; at < count * slot_bytes; at += 64)
    hwy::Prefetch(from + at);
}

#if HWY_TARGET == HWY_AVX3
/// sum + the products of pairs of bf16, added in f32.
HWY_INLINE float_vec add_products(float_vec sum, __m512i a, __m512i b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a), "v"(b));
  return sum;
}
HWY_INLINE __m512i load_pairs(const void* p, int64_t elements) {
  return elements >= 32 ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16((__mmask32{1} << elements) - 1, p);
}
#endif

/// The four sums over the lanes of four vectors, times `scale`.
HWY_INLINE void store_sums(float_vec a, float_vec b, float_vec c, float_vec e, float scale, float* to) {
  const float_tag d;
  const hn::RepartitionToWide<float_tag> dd;
  const hn::FixedTag<float, 4> four;
  const auto ab = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  const auto quarters = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, ab, ce)),
                                hn::BitCast(d, hn::InterleaveUpper(dd, ab, ce)));
  HWY_ALIGN float held[hn::MaxLanes(float_tag())];
  hn::Store(quarters, d, held);
  auto sum = hn::Load(four, held);
  for (size_t i = 4; i < lanes(); i += 4)
    sum = hn::Add(sum, hn::Load(four, held + i));
  hn::StoreU(hn::Mul(sum, hn::Set(four, scale)), four, to);
}

/// scores[Heads, 64] of all slots; -inf beyond them.
template <class T, int Heads>
HWY_INLINE void score(const decode_run_args& a, int64_t head, float* scores) {
  const auto l = static_cast<int64_t>(lanes());
  for (int64_t j = 0; j < a.count; j += slots_together) {
    if (head == 0)
      fetch_ahead(a.next_keys, a.next_slot_bytes, j, slots_together);
    const T* k[slots_together];
    float_vec sum[slots_together][Heads];
    for (int64_t i = 0; i < slots_together; ++i) {
      k[i] = slot_of<T>(a.keys, std::min(j + i, a.count - 1), a.stride);
      for (int h = 0; h < Heads; ++h)
        sum[i][h] = hn::Zero(float_tag());
    }
#if HWY_TARGET == HWY_AVX3
    if constexpr (std::is_same_v<T, native_bf16>)
      for (int64_t d = 0; d < a.size; d += 2 * l) {
        __m512i key[slots_together];
        for (int64_t i = 0; i < slots_together; ++i)
          key[i] = load_pairs(k[i] + d, a.size - d);
        for (int h = 0; h < Heads; ++h) {
          const auto* q = static_cast<const bf16*>(a.q) + (head + h) * a.q_width;
          const __m512i query = load_pairs(q + d, a.size - d);
          for (int64_t i = 0; i < slots_together; ++i)
            sum[i][h] = add_products(sum[i][h], key[i], query);
        }
      }
    else
#endif
      for (int64_t d = 0; d < a.size; d += l) {
        const auto n = static_cast<size_t>(a.size - d);
        float_vec key[slots_together];
        for (int64_t i = 0; i < slots_together; ++i)
          key[i] = load_n(k[i] + d, n);
        for (int h = 0; h < Heads; ++h) {
          const auto query = load_n(static_cast<const T*>(a.q) + (head + h) * a.q_width + d, n);
          for (int64_t i = 0; i < slots_together; ++i)
            sum[i][h] = hn::MulAdd(key[i], query, sum[i][h]);
        }
      }
    for (int h = 0; h < Heads; ++h)
      store_sums(sum[0][h], sum[1][h], sum[2][h], sum[3][h], a.scale, scores + h * decode_run + j);
  }
  for (int h = 0; h < Heads; ++h)
    std::fill(scores + h * decode_run + a.count, scores + (h + 1) * decode_run,
              -std::numeric_limits<float>::infinity());
}

/// Turns the scores of one head into weights; answers by what the sums so far must shrink.
HWY_INLINE float weigh(float* scores, float& largest, float& total) {
  const auto l = static_cast<int64_t>(lanes());
  const float_tag d;
  auto most = load(scores);
  for (int64_t j = l; j < decode_run; j += l)
    most = hn::Max(most, load(scores + j));
  const float was = largest;
  largest = std::max(was, max_of(most));
  const float shrink = was == largest ? 1.0F : hn::GetLane(exp2_of(hn::Set(d, was - largest)));
  auto sum = hn::Zero(d);
  for (int64_t j = 0; j < decode_run; j += l) {
    const auto p = exp2_of(hn::Sub(load(scores + j), hn::Set(d, largest)));
    sum = hn::Add(sum, p);
    store(p, scores + j);
  }
  total = total * shrink + sum_of(sum);
  return shrink;
}

/// Elements [first, first + Vectors * lanes) of the sums, or fewer where the row ends.
template <class T, int Heads, int Vectors>
HWY_INLINE void add_values(const decode_run_args& a, int64_t head, int64_t first, const float* weights,
                           const float* shrink) {
  const auto l = static_cast<int64_t>(lanes());
  float* to = a.sums + head * a.width + first;
  float_vec sum[Heads][Vectors];
  for (int h = 0; h < Heads; ++h)
    for (int v = 0; v < Vectors; ++v)
      sum[h][v] = hn::Mul(load(to + h * a.width + v * l), hn::Set(float_tag(), shrink[h]));
  for (int64_t j = 0; j < a.count; ++j) {
    if (head == 0 && first == 0)
      fetch_ahead(a.next_values, a.next_slot_bytes, j, 1);
    const T* row = slot_of<T>(a.values, j, a.stride) + first;
    float_vec value[Vectors];
    for (int v = 0; v < Vectors; ++v)
      value[v] = load_n(row + v * l, static_cast<size_t>(a.size - first - v * l));
    for (int h = 0; h < Heads; ++h) {
      const auto weight = hn::Set(float_tag(), weights[h * decode_run + j]);
      for (int v = 0; v < Vectors; ++v)
        sum[h][v] = hn::MulAdd(value[v], weight, sum[h][v]);
    }
  }
  for (int h = 0; h < Heads; ++h)
    for (int v = 0; v < Vectors; ++v)
      store(sum[h][v], to + h * a.width + v * l);
}

template <class T, int Heads>
HWY_INLINE void take_heads(const decode_run_args& a, int64_t head) {
  const auto l = static_cast<int64_t>(lanes());
  HWY_ALIGN float scores[Heads * decode_run];
  float shrink[Heads];
  score<T, Heads>(a, head, scores);
  for (int h = 0; h < Heads; ++h)
    shrink[h] = weigh(scores + h * decode_run, a.largest[head + h], a.total[head + h]);
  int64_t d = 0;
  for (; d + vectors_together * l <= a.size; d += vectors_together * l)
    add_values<T, Heads, vectors_together>(a, head, d, scores, shrink);
  for (; d < a.size; d += l)
    add_values<T, Heads, 1>(a, head, d, scores, shrink);
}

template <class T>
void take_run(const decode_run_args& a) {
  int64_t head = 0;
  for (; head + heads_together <= a.heads; head += heads_together)
    take_heads<T, heads_together>(a, head);
  if constexpr (heads_together > 2) {
    if (a.heads - head == 3) {
      take_heads<T, 3>(a, head);
      return;
    }
    if (a.heads - head == 2) {
      take_heads<T, 2>(a, head);
      return;
    }
  }
  if (head < a.heads)
    take_heads<T, 1>(a, head);
}

constexpr decode_run_function take_half = take_run<bf16>;
constexpr decode_run_function take_float = take_run<float>;
#if HWY_TARGET == HWY_AVX3
constexpr decode_run_function take_native = take_run<native_bf16>;
#endif

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace neuroshard::kernels::cpu {

decode_run_function decode_run_for(dtype act, isa level) {
  const bool half = act == dtype::bf16;
  if (half && level >= isa::avx512_bf16)
    return N_AVX3::take_native;
  if (level >= isa::avx512)
    return half ? N_AVX3::take_half : N_AVX3::take_float;
  if (level >= isa::avx2)
    return half ? N_AVX2::take_half : N_AVX2::take_float;
  return half ? N_SSE4::take_half : N_SSE4::take_float;
}

} // namespace neuroshard::kernels::cpu
#endif
