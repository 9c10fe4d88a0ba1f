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
constexpr int slots_together = 4;
constexpr int64_t block_slots = decode_run / decode_blocks;

/// Asks for a block little by little, while the one before it is worked on: the hardware fetches ahead within
/// a page only, and blocks of a few KiB lie wherever there was room.
class fetcher {
public:
  HWY_INLINE fetcher(const void* block, int64_t bytes)
      : at_(static_cast<const std::byte*>(block)), end_(block == nullptr ? at_ : at_ + bytes) {}

  HWY_INLINE void take(int64_t bytes) {
    const std::byte* until = at_ + std::min<int64_t>(bytes, end_ - at_);
    for (; at_ < until; at_ += 64)
      hwy::Prefetch(at_);
  }

private:
  const std::byte* at_;
  const std::byte* end_;
};

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

/// The sums of four vectors, in parts: element i of each group of four lanes is a part of the sum of vector
/// i.
HWY_INLINE float_vec quarters_of(float_vec a, float_vec b, float_vec c, float_vec e) {
  const float_tag d;
  const hn::RepartitionToWide<float_tag> dd;
  const auto ab = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b)));
  const auto ce = hn::BitCast(dd, hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e)));
  return hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, ab, ce)),
                 hn::BitCast(d, hn::InterleaveUpper(dd, ab, ce)));
}

/// Adds the parts of 16 sums up and stores them, times `scale`.
HWY_INLINE void store_sums(const float_vec (&quarters)[4], float scale, float* to) {
#if HWY_TARGET == HWY_AVX3
  const auto half = [](float_vec x, float_vec y) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(x.raw, y.raw, 0x44), _mm512_shuffle_f32x4(x.raw, y.raw, 0xee));
  };
  const __m512 ab = half(quarters[0], quarters[1]);
  const __m512 ce = half(quarters[2], quarters[3]);
  const float_vec sums{_mm512_add_ps(_mm512_shuffle_f32x4(ab, ce, 0x88), _mm512_shuffle_f32x4(ab, ce, 0xdd))};
  store(hn::Mul(sums, hn::Set(float_tag(), scale)), to);
#else
  const hn::FixedTag<float, 4> four;
  for (int i = 0; i < 4; ++i) {
    HWY_ALIGN float held[hn::MaxLanes(float_tag())];
    hn::Store(quarters[i], float_tag(), held);
    auto sum = hn::Load(four, held);
    for (size_t at = 4; at < lanes(); at += 4)
      sum = hn::Add(sum, hn::Load(four, held + at));
    hn::StoreU(hn::Mul(sum, hn::Set(four, scale)), four, to + i * 4);
  }
#endif
}

/// Slots of one block, as one kv head sees them.
template <class T>
struct block_part {
  const T* first;
  int64_t stride;
  int64_t slots;
  int64_t share; ///< bytes of the next block to ask for at each slot
};

/// Elements that one step of a product takes.
template <class T>
HWY_INLINE int64_t step_of() {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, native_bf16>)
    return 2 * static_cast<int64_t>(lanes());
#endif
  return static_cast<int64_t>(lanes());
}

/// Adds the products of elements [d, d + step), of which `elements` exist: whole steps need no look at that.
template <class T, int Heads, bool Whole>
HWY_INLINE void add_step(const T* const (&k)[slots_together], const T* const (&q)[Heads], int64_t d,
                         int64_t elements, float_vec (&sum)[slots_together][Heads]) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, native_bf16>) {
    const auto get = [&](const T* p) {
      return Whole ? _mm512_loadu_si512(p + d) : load_pairs(p + d, elements);
    };
    __m512i key[slots_together];
    for (int i = 0; i < slots_together; ++i)
      key[i] = get(k[i]);
    for (int h = 0; h < Heads; ++h) {
      const __m512i query = get(q[h]);
      for (int i = 0; i < slots_together; ++i)
        sum[i][h] = add_products(sum[i][h], key[i], query);
    }
    return;
  }
#endif
  const auto get = [&](const T* p) {
    return Whole ? load(p + d) : load_n(p + d, static_cast<size_t>(elements));
  };
  float_vec key[slots_together];
  for (int i = 0; i < slots_together; ++i)
    key[i] = get(k[i]);
  for (int h = 0; h < Heads; ++h) {
    const auto query = get(q[h]);
    for (int i = 0; i < slots_together; ++i)
      sum[i][h] = hn::MulAdd(key[i], query, sum[i][h]);
  }
}

/// scores[Heads, 16] of the slots of one block; rubbish beyond them.
template <class T, int Heads>
HWY_INLINE void score(const decode_run_args& a, const block_part<T>& block, int64_t head, float* scores,
                      fetcher& next) {
  const int64_t size = a.size;
  const T* q[Heads];
  for (int h = 0; h < Heads; ++h)
    q[h] = static_cast<const T*>(a.q) + (head + h) * a.q_width;
  float_vec quarters[Heads][block_slots / slots_together];
  for (int64_t j = 0; j < block_slots; j += slots_together) {
    next.take(slots_together * block.share);
    const T* k[slots_together];
    float_vec sum[slots_together][Heads];
    for (int64_t i = 0; i < slots_together; ++i) {
      k[i] = block.first + std::min(j + i, block.slots - 1) * block.stride;
      for (int h = 0; h < Heads; ++h)
        sum[i][h] = hn::Zero(float_tag());
    }
    int64_t d = 0;
    for (; d + step_of<T>() <= size; d += step_of<T>())
      add_step<T, Heads, true>(k, q, d, size - d, sum);
    if (d < size)
      add_step<T, Heads, false>(k, q, d, size - d, sum);
    for (int h = 0; h < Heads; ++h)
      quarters[h][j / slots_together] = quarters_of(sum[0][h], sum[1][h], sum[2][h], sum[3][h]);
  }
  for (int h = 0; h < Heads; ++h)
    store_sums(quarters[h], a.scale, scores + h * decode_run);
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

/// The sums of `Vectors` vectors of one head. Of bf16 the even and the odd elements are what is in the lower
/// and the upper halves of the words, so sums are kept in this order while a block is added.
template <class T, int Vectors>
HWY_INLINE void load_sums(const float* from, float shrink, float_vec (&sum)[Vectors]) {
  const auto by = hn::Set(float_tag(), shrink);
  for (int v = 0; v < Vectors; ++v)
    sum[v] = hn::Mul(load(from + v * static_cast<int64_t>(lanes())), by);
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(T) == 2 && Vectors % 2 == 0)
    for (int v = 0; v < Vectors; v += 2) {
      const float_vec low = sum[v];
      sum[v] = hn::ConcatEven(float_tag(), sum[v + 1], low);
      sum[v + 1] = hn::ConcatOdd(float_tag(), sum[v + 1], low);
    }
#endif
}
template <class T, int Vectors>
HWY_INLINE void store_sums(const float_vec (&sum)[Vectors], float* to) {
  const auto l = static_cast<int64_t>(lanes());
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(T) == 2 && Vectors % 2 == 0) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int v = 0; v < Vectors; v += 2) {
      store(float_vec{_mm512_permutex2var_ps(sum[v].raw, low, sum[v + 1].raw)}, to + v * l);
      store(float_vec{_mm512_permutex2var_ps(sum[v].raw, high, sum[v + 1].raw)}, to + (v + 1) * l);
    }
    return;
  }
#endif
  for (int v = 0; v < Vectors; ++v)
    store(sum[v], to + v * l);
}
/// A row of values in the order of the sums; `elements` are left of it.
template <class T, int Vectors>
HWY_INLINE void load_values(const T* from, int64_t elements, float_vec (&value)[Vectors]) {
  const auto l = static_cast<int64_t>(lanes());
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(T) == 2 && Vectors % 2 == 0) {
    for (int v = 0; v < Vectors; v += 2) {
      const __m512i pairs = _mm512_loadu_si512(from + v * l);
      value[v] = float_vec{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
      value[v + 1] = float_vec{
          _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))))};
    }
    return;
  }
#endif
  for (int v = 0; v < Vectors; ++v)
    value[v] = load_n(from + v * l, static_cast<size_t>(elements - v * l));
}

/// Adds the slots of one block to the elements [first, first + Vectors * lanes) of the sums, or to fewer
/// where the row ends.
template <class T, int Heads, int Vectors>
HWY_INLINE void add_values(const decode_run_args& a, const block_part<T>& block, int64_t head, int64_t first,
                           const float* weights, const float* shrink, fetcher& next) {
  float* to = a.sums + head * a.width + first;
  float_vec sum[Heads][Vectors];
  for (int h = 0; h < Heads; ++h)
    load_sums<T>(to + h * a.width, shrink[h], sum[h]);
  for (int64_t j = 0; j < block.slots; ++j) {
    next.take(block.share);
    float_vec value[Vectors];
    load_values(block.first + j * block.stride + first, a.size - first, value);
    for (int h = 0; h < Heads; ++h) {
      const auto weight = hn::Set(float_tag(), weights[h * decode_run + j]);
      for (int v = 0; v < Vectors; ++v)
        sum[h][v] = hn::MulAdd(value[v], weight, sum[h][v]);
    }
  }
  for (int h = 0; h < Heads; ++h)
    store_sums<T>(sum[h], to + h * a.width);
}

template <class T, int Heads>
HWY_INLINE void add_rows(const decode_run_args& a, const block_part<T>& block, int64_t head,
                         const float* weights, const float* shrink, fetcher& next) {
  const auto l = static_cast<int64_t>(lanes());
  int64_t d = 0;
  for (; d + vectors_together * l <= a.size; d += vectors_together * l)
    add_values<T, Heads, vectors_together>(a, block, head, d, weights, shrink, next);
  for (; d < a.size; d += l)
    add_values<T, Heads, 1>(a, block, head, d, weights, shrink, next);
}

/// Calls fn.template operator()<Heads>(first) for all heads of a group.
template <class Function>
HWY_INLINE void for_heads(int64_t heads, const Function& fn) {
  int64_t head = 0;
  for (; head + heads_together <= heads; head += heads_together)
    fn.template operator()<heads_together>(head);
  if constexpr (heads_together > 2) {
    if (heads - head == 3)
      return fn.template operator()<3>(head);
    if (heads - head == 2)
      return fn.template operator()<2>(head);
  }
  if (head < heads)
    fn.template operator()<1>(head);
}

/// All heads go over a block before the next one begins, so that memory is read in its order.
template <class T>
void take_run(const decode_run_args& a) {
  const int64_t blocks = (a.count + block_slots - 1) / block_slots;
  const int64_t heads = a.kv_heads * a.group;
  const int64_t block_bytes = block_slots * a.stride * static_cast<int64_t>(sizeof(T));
  float* shrink = a.weights + heads * decode_run;
  const void* blocks_in_order[2 * decode_blocks + decode_ahead];
  std::copy_n(a.keys, blocks, blocks_in_order);
  std::copy_n(a.values, blocks, blocks_in_order + blocks);
  std::copy_n(a.next, decode_ahead, blocks_in_order + 2 * blocks);
  const auto part_of = [&](const void* block, int64_t b, int64_t g) {
    return block_part<T>{.first = static_cast<const T*>(block) + g * a.head_stride,
                         .stride = a.stride,
                         .slots = std::min(block_slots, a.count - b * block_slots),
                         .share = a.stride * static_cast<int64_t>(sizeof(T)) / a.kv_heads};
  };
  for (int64_t b = 0; b < blocks; ++b) {
    fetcher next(blocks_in_order[b + decode_ahead], block_bytes);
    for (int64_t g = 0; g < a.kv_heads; ++g) {
      const auto part = part_of(a.keys[b], b, g);
      for_heads(a.group, [&]<int Heads>(int64_t first) {
        const int64_t head = g * a.group + first;
        score<T, Heads>(a, part, head, a.weights + head * decode_run + b * block_slots, next);
      });
    }
  }
  for (int64_t head = 0; head < heads; ++head) {
    float* scores = a.weights + head * decode_run;
    std::fill(scores + a.count, scores + decode_run, -std::numeric_limits<float>::infinity());
    shrink[head] = weigh(scores, a.largest[head], a.total[head]);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    fetcher next(blocks_in_order[blocks + b + decode_ahead], block_bytes);
    for (int64_t g = 0; g < a.kv_heads; ++g) {
      const auto part = part_of(a.values[b], b, g);
      for_heads(a.group, [&]<int Heads>(int64_t first) {
        const int64_t head = g * a.group + first;
        add_rows<T, Heads>(a, part, head, a.weights + head * decode_run + b * block_slots, shrink + head,
                           next);
      });
    }
    std::fill_n(shrink, heads, 1.0F);
  }
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
