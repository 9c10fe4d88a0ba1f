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

/// Lanes i, i+1, ... below `count`.
HWY_INLINE hn::Mask<float_tag> lanes_below(int64_t count) {
  return hn::FirstN(float_tag(), static_cast<size_t>(std::max<int64_t>(count, 0)));
}

/// The largest visible score of each row; the factors by which what was summed before must shrink.
HWY_INLINE void new_maxima(const softmax_block_args& a, float* shrink) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  const auto minus_infinity = hn::Set(d, -std::numeric_limits<float>::infinity());
  HWY_ALIGN float before[attention_block];
  std::fill_n(before, attention_block, 0.0F);
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* scores = a.scores + i * attention_block;
    const int64_t seen = std::clamp<int64_t>(a.visible + i, 0, a.keys);
    before[i] = a.largest[i];
    auto most = hn::Set(d, a.largest[i]);
    int64_t j = 0;
    for (; j + l <= seen; j += l)
      most = hn::Max(most, load(scores + j));
    if (j < seen)
      most = hn::Max(most, hn::IfThenElse(lanes_below(seen - j), load(scores + j), minus_infinity));
    a.largest[i] = max_of(most);
  }
  const auto to_log2 = hn::Set(d, a.scale * log2e);
  for (int64_t i = 0; i < a.rows; i += l) {
    const auto n = static_cast<size_t>(std::min(l, a.rows - i));
    const auto was = hn::Load(d, before + i);
    const auto is = load_n(a.largest + i, n);
    const auto same = hn::Eq(was, is);
    hn::Store(hn::IfThenElse(same, hn::Set(d, 1.0F), exp2_of(hn::Mul(hn::Sub(was, is), to_log2))), d,
              shrink + i);
  }
}

template <class T>
void softmax_block(const softmax_block_args& a) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  HWY_ALIGN float shrink[attention_block];
  new_maxima(a, shrink);
  const float to_log2 = a.scale * log2e;
  const auto factor = hn::Set(d, to_log2);
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* scores = a.scores + i * attention_block;
    T* weights = static_cast<T*>(a.weights) + i * attention_block;
    const int64_t seen = std::clamp<int64_t>(a.visible + i, 0, a.keys);
    const auto shift = hn::Set(d, a.largest[i] * to_log2);
    auto total = hn::Mul(load(a.total + 16 * i), hn::Set(d, shrink[i]));
    int64_t j = 0;
    for (; j + l <= seen; j += l) {
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
    for (; j < attention_block; j += l)
      store(hn::Zero(d), weights + j);
    store(total, a.total + 16 * i);
    if (!a.first && shrink[i] != 1.0F) {
      float* sums = a.sums + i * a.width;
      for (int64_t c = 0; c < a.width; c += l)
        store(hn::Mul(load(sums + c), hn::Set(d, shrink[i])), sums + c);
    }
  }
}

template <class T>
void backward_block(const backward_block_args& a) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  const auto to_log2 = hn::Set(d, a.scale * log2e);
  const auto one_log2 = hn::Set(d, log2e);
  const auto scale = hn::Set(d, a.scale);
  const auto zero = hn::Zero(d);
  constexpr int64_t together = sizeof(T) == 2 ? 2 : 1;
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
        hn::StoreU(pairs_of(ds[0], ds[1], static_cast<const T*>(nullptr)), hn::RebindToUnsigned<float_tag>(),
                   static_cast<uint32_t*>(a.dscores_words) + j / 2 * attention_block + i);
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

template <class T>
constexpr attention_kernels kernels_of{.softmax_block = softmax_block<T>,
                                       .backward_block = backward_block<T>,
                                       .dot = dot<T>,
                                       .scale_row = scale_row<T>};

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace neuroshard::kernels::cpu {

const attention_kernels& attention_kernels_for(dtype act, isa level) {
  const bool half = act == dtype::bf16;
  if (half && level >= isa::avx512_bf16)
    return N_AVX3::kernels_of<N_AVX3::native_bf16>;
  if (level >= isa::avx512)
    return half ? N_AVX3::kernels_of<bf16> : N_AVX3::kernels_of<float>;
  if (level >= isa::avx2)
    return half ? N_AVX2::kernels_of<bf16> : N_AVX2::kernels_of<float>;
  return half ? N_SSE4::kernels_of<bf16> : N_SSE4::kernels_of<float>;
}

} // namespace neuroshard::kernels::cpu
#endif
