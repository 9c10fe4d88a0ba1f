// The element-wise parts of attention in portable SIMD, for every instruction set.
#include "kernels/cpu/attention_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3)
#include <hwy/foreach_target.h>

#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.hpp"

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

constexpr float log2e = 1.44269504088896341F;

/// 2^t for t <= 0 (a little above is fine), to about 2 ulp of the exact value of the rounded t (polynomial:
/// Cephes exp2f). Below -126 it gives 0.
HWY_INLINE float_vec exp2_of(float_vec t) {
  const float_tag d;
  const hn::RebindToSigned<float_tag> di;
  const auto low = hn::Set(d, -126.0F);
  const auto clamped = hn::Max(low, t); // a NaN stays one
  const auto n = hn::Round(clamped);
  const auto r = hn::Sub(clamped, n);
  auto p = hn::Set(d, 1.535336188319500e-4F);
  p = hn::MulAdd(p, r, hn::Set(d, 1.339887440266574e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 9.618437357674640e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 5.550332471162809e-2F));
  p = hn::MulAdd(p, r, hn::Set(d, 2.402264791363012e-1F));
  p = hn::MulAdd(p, r, hn::Set(d, 6.931472028550421e-1F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0F));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)));
  return hn::IfThenZeroElse(hn::Lt(t, low), hn::Mul(p, hn::BitCast(d, exponent)));
}

/// Lanes i, i+1, ... below `count`.
HWY_INLINE hn::Mask<float_tag> lanes_below(int64_t count) {
  return hn::FirstN(float_tag(), static_cast<size_t>(std::max<int64_t>(count, 0)));
}

template <class T>
void softmax_block(const softmax_block_args& a) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  const auto minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
  const float to_log2 = a.scale * log2e;
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* scores = a.scores + i * attention_block;
    T* weights = static_cast<T*>(a.weights) + i * attention_block;
    float* sums = a.sums + i * a.width;
    const int64_t seen = std::clamp<int64_t>(a.visible + i, 0, a.keys);
    if (seen == 0) {
      std::fill_n(weights, attention_block, T{});
      if (a.first)
        std::fill_n(sums, a.width, 0.0F);
      continue;
    }
    auto most = minus_infinity;
    int64_t j = 0;
    for (; j + l <= seen; j += l)
      most = hn::Max(most, load(scores + j));
    if (j < seen)
      most = hn::Max(most, hn::IfThenElse(lanes_below(seen - j), load(scores + j), minus_infinity));
    const float before = a.largest[i];
    const float largest = std::max(before, max_of(most));
    a.largest[i] = largest;
    const auto factor = hn::Set(d, to_log2);
    const auto shift = hn::Set(d, largest * to_log2);
    auto total = hn::Zero(d);
    for (j = 0; j + l <= seen; j += l) {
      const auto p = exp2_of(hn::MulSub(load(scores + j), factor, shift));
      total = hn::Add(total, p);
      store(p, weights + j);
    }
    if (j < seen) {
      const auto p =
          hn::IfThenElseZero(lanes_below(seen - j), exp2_of(hn::MulSub(load(scores + j), factor, shift)));
      total = hn::Add(total, p);
      store(p, weights + j);
      j += l;
    }
    if (j < attention_block)
      std::fill_n(weights + j, attention_block - j, T{});
    const float shrink = before == largest ? 1.0F : std::exp((before - largest) * a.scale);
    a.total[i] = a.total[i] * shrink + sum_of(total);
    if (!a.first && shrink != 1.0F)
      for (int64_t c = 0; c < a.width; c += l)
        store(hn::Mul(load(sums + c), hn::Set(d, shrink)), sums + c);
  }
}

/// Two rows of f32 as one row of words: bf16 pairs, the first row in the lower halves.
HWY_INLINE void store_pairs(float_vec low, float_vec high, uint32_t* to) {
  const float_tag d;
  const hn::RebindToUnsigned<float_tag> du;
  hn::StoreU(hn::Or(hn::ShiftRight<16>(round_to_bf16(d, low)),
                    hn::And(round_to_bf16(d, high), hn::Set(du, 0xffff0000U))),
             du, to);
}

template <class T>
void backward_block(const backward_block_args& a) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  const auto to_log2 = hn::Set(d, a.scale * log2e);
  const auto one_log2 = hn::Set(d, log2e);
  const auto scale = hn::Set(d, a.scale);
  const auto zero = hn::Zero(d);
  constexpr int64_t together = std::is_same_v<T, bf16> ? 2 : 1;
  for (int64_t j = 0; j < a.keys; j += together) {
    for (int64_t i = 0; i < attention_block; i += l) {
      const auto lse = hn::Mul(load(a.lse + i), one_log2);
      const auto delta = load(a.delta + i);
      float_vec ds[2] = {zero, zero};
      for (int64_t r = 0; r < together && j + r < a.keys; ++r) {
        const int64_t at = (j + r) * attention_block + i;
        const int64_t first = j + r - a.visible;
        auto p = exp2_of(hn::MulSub(load(a.scores + at), to_log2, lse));
        if (i < first)
          p = hn::IfThenZeroElse(lanes_below(first - i), p);
        p = hn::IfThenElseZero(lanes_below(a.queries - i), p);
        auto g = hn::Mul(hn::Mul(p, scale), hn::Sub(load(a.gradients + at), delta));
        g = hn::IfThenElseZero(lanes_below(a.queries - i), g);
        store(p, static_cast<T*>(a.weights) + at);
        store(g, static_cast<T*>(a.dscores) + at);
        ds[r] = g;
      }
      if constexpr (together == 2)
        store_pairs(ds[0], ds[1], static_cast<uint32_t*>(a.dscores_words) + j / 2 * attention_block + i);
      else
        store(ds[0], static_cast<float*>(a.dscores_words) + j * attention_block + i);
    }
  }
}

template <class T>
float dot(const void* a, const void* b, int64_t count) {
  const auto l = static_cast<int64_t>(lanes());
  const auto* left = static_cast<const T*>(a);
  const auto* right = static_cast<const T*>(b);
  auto sum = hn::Zero(float_tag());
  int64_t i = 0;
  for (; i + l <= count; i += l)
    sum = hn::MulAdd(load(left + i), load(right + i), sum);
  if (i < count) {
    const auto n = static_cast<size_t>(count - i);
    sum = hn::MulAdd(load_tail(left + i, n), load_tail(right + i, n), sum);
  }
  return sum_of(sum);
}

template <class T>
void scale_row(const float* x, float factor, void* out, int64_t count) {
  const auto l = static_cast<int64_t>(lanes());
  const auto f = hn::Set(float_tag(), factor);
  for (int64_t i = 0; i < count; i += l) {
    const auto n = static_cast<size_t>(std::min(l, count - i));
    store_n(hn::Mul(load_n(x + i, n), f), static_cast<T*>(out) + i, n);
  }
}

/// Scores of one slot for up to four heads, so that a key is read once.
template <class T, int Heads>
HWY_INLINE void slot_scores(const T* key, const float* queries, int64_t size, float* scores, int64_t ld) {
  const auto l = static_cast<int64_t>(lanes());
  float_vec sum[Heads];
  for (int h = 0; h < Heads; ++h)
    sum[h] = hn::Zero(float_tag());
  for (int64_t i = 0; i < size; i += l) {
    const auto n = static_cast<size_t>(std::min(l, size - i));
    const auto k = load_n(key + i, n);
    for (int h = 0; h < Heads; ++h)
      sum[h] = hn::MulAdd(k, load_n(queries + h * size + i, n), sum[h]);
  }
  for (int h = 0; h < Heads; ++h)
    scores[h * ld] = sum_of(sum[h]);
}

template <class T>
void decode_scores(const decode_args& a) {
  const auto* cache = static_cast<const T*>(a.cache);
  for (int64_t s = 0; s < a.slots; ++s) {
    const T* key = cache + s * a.stride;
    int64_t h = 0;
    for (; h + 4 <= a.heads; h += 4)
      slot_scores<T, 4>(key, a.queries + h * a.size, a.size, a.scores + h * a.ld + s, a.ld);
    const float* queries = a.queries + h * a.size;
    float* scores = a.scores + h * a.ld + s;
    switch (a.heads - h) {
    case 3:
      slot_scores<T, 3>(key, queries, a.size, scores, a.ld);
      break;
    case 2:
      slot_scores<T, 2>(key, queries, a.size, scores, a.ld);
      break;
    case 1:
      slot_scores<T, 1>(key, queries, a.size, scores, a.ld);
      break;
    default:
      break;
    }
  }
}

template <class T, int Heads>
HWY_INLINE void strip_values(const decode_args& a, int64_t head, int64_t i, size_t n) {
  const auto* value = static_cast<const T*>(a.cache) + i;
  float_vec sum[Heads];
  for (int h = 0; h < Heads; ++h)
    sum[h] = load_n(a.sums + (head + h) * a.size + i, n);
  for (int64_t s = 0; s < a.slots; ++s) {
    const auto v = load_n(value + s * a.stride, n);
    for (int h = 0; h < Heads; ++h)
      sum[h] = hn::MulAdd(hn::Set(float_tag(), a.scores[(head + h) * a.ld + s]), v, sum[h]);
  }
  for (int h = 0; h < Heads; ++h)
    store_n(sum[h], a.sums + (head + h) * a.size + i, n);
}

template <class T>
void decode_values(const decode_args& a) {
  const auto l = static_cast<int64_t>(lanes());
  for (int64_t i = 0; i < a.size; i += l) {
    const auto n = static_cast<size_t>(std::min(l, a.size - i));
    int64_t h = 0;
    for (; h + 4 <= a.heads; h += 4)
      strip_values<T, 4>(a, h, i, n);
    for (; h + 2 <= a.heads; h += 2)
      strip_values<T, 2>(a, h, i, n);
    if (h < a.heads)
      strip_values<T, 1>(a, h, i, n);
  }
}

float exp_row(float* x, float largest, int64_t count) {
  const auto l = static_cast<int64_t>(lanes());
  const auto shift = hn::Set(float_tag(), largest);
  auto sum = hn::Zero(float_tag());
  for (int64_t i = 0; i < count; i += l) {
    const auto n = static_cast<size_t>(std::min(l, count - i));
    auto p = exp_of(hn::Sub(load_n(x + i, n), shift));
    if (i + l > count)
      p = hn::IfThenElseZero(lanes_below(count - i), p);
    sum = hn::Add(sum, p);
    store_n(p, x + i, n);
  }
  return sum_of(sum);
}

template <class T>
constexpr attention_kernels kernels_of{.softmax_block = softmax_block<T>,
                                       .backward_block = backward_block<T>,
                                       .dot = dot<T>,
                                       .scale_row = scale_row<T>,
                                       .decode_scores = decode_scores<T>,
                                       .decode_values = decode_values<T>,
                                       .exp_row = exp_row};

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace neuroshard::kernels::cpu {

const attention_kernels& attention_kernels_for(dtype act, isa level) {
  const bool half = act == dtype::bf16;
  if (level >= isa::avx512)
    return half ? N_AVX3::kernels_of<bf16> : N_AVX3::kernels_of<float>;
  if (level >= isa::avx2)
    return half ? N_AVX2::kernels_of<bf16> : N_AVX2::kernels_of<float>;
  return half ? N_SSE4::kernels_of<bf16> : N_SSE4::kernels_of<float>;
}

} // namespace neuroshard::kernels::cpu
#endif
