// What the Highway sources share: loads and stores that convert, tails, exp. Included once per target, so no
// #pragma once.
#if defined(NEUROSHARD_CPU_SIMD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NEUROSHARD_CPU_SIMD_INL
#undef NEUROSHARD_CPU_SIMD_INL
#else
#define NEUROSHARD_CPU_SIMD_INL
#endif

#include "kernels/core/dtype.hpp"

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using float_tag = hn::ScalableTag<float>;
using float_vec = hn::Vec<float_tag>;

HWY_INLINE size_t lanes() {
  return hn::Lanes(float_tag());
}

HWY_INLINE float_vec load(const float* p) {
  return hn::LoadU(float_tag(), p);
}
HWY_INLINE float_vec load(const bf16* p) {
  const hn::Rebind<uint16_t, float_tag> half;
  const hn::RebindToUnsigned<float_tag> word;
  const auto bits = hn::PromoteTo(word, hn::LoadU(half, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(float_tag(), hn::ShiftLeft<16>(bits));
}

/// The bits of x rounded to bf16 (nearest, ties to even), in the upper half of each lane; the lower half is
/// rubbish. A NaN keeps its upper bits with the quiet bit set.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bf16(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> word;
  const auto bits = hn::BitCast(word, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(word, 1));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(word, 0x7fff)), odd);
  const auto quiet = hn::Or(bits, hn::Set(word, 0x400000));
  (void)d;
  return hn::IfThenElse(hn::RebindMask(word, hn::IsNaN(x)), quiet, rounded);
}

#if HWY_TARGET == HWY_AVX3
/// bf16 where the processor rounds by itself (AVX512_BF16, which Highway 1.0 does not know: hence the
/// assembler line). Kernels are made for this type too, and chosen at run time.
struct native_bf16 {
  uint16_t bits;
};
HWY_INLINE __m256i round_natively(float_vec x) {
  __m256i y;
  __asm__("vcvtneps2bf16 %1, %0" : "=v"(y) : "v"(x.raw));
  return y;
}
HWY_INLINE float_vec load(const native_bf16* p) {
  return load(reinterpret_cast<const bf16*>(p));
}
HWY_INLINE void store(float_vec x, native_bf16* p) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), round_natively(x));
}
HWY_INLINE float_vec rounded(float_vec x, const native_bf16*) {
  return float_vec{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(round_natively(x)), 16))};
}
#endif

HWY_INLINE void store(float_vec x, float* p) {
  hn::StoreU(x, float_tag(), p);
}
HWY_INLINE void store(float_vec x, bf16* p) {
  const hn::Rebind<uint16_t, float_tag> half;
  // Less than 2^16 after the shift, so that the truncation is exact on every target.
  const auto bits = hn::ShiftRight<16>(round_to_bf16(float_tag(), x));
  hn::StoreU(hn::TruncateTo(half, bits), half, reinterpret_cast<uint16_t*>(p));
}

/// The value that a stored element would have when read again.
HWY_INLINE float_vec rounded(float_vec x, const float*) {
  return x;
}
HWY_INLINE float_vec rounded(float_vec x, const bf16*) {
  const hn::RebindToUnsigned<float_tag> word;
  return hn::BitCast(float_tag(), hn::And(round_to_bf16(float_tag(), x), hn::Set(word, 0xffff0000U)));
}

/// The first n < lanes() elements, the others `fill`.
template <class T>
HWY_INLINE float_vec load_tail(const T* p, size_t n, T fill = T{}) {
  HWY_ALIGN T held[hn::MaxLanes(float_tag())];
  for (T& h : held)
    h = fill;
  std::memcpy(held, p, n * sizeof(T));
  return load(held);
}
template <class T>
HWY_INLINE void store_tail(float_vec x, T* p, size_t n) {
  HWY_ALIGN T held[hn::MaxLanes(float_tag())];
  store(x, held);
  std::memcpy(p, held, n * sizeof(T));
}

/// Loads, stores with a count: a whole vector or a tail.
template <class T>
HWY_INLINE float_vec load_n(const T* p, size_t n) {
  return HWY_LIKELY(n >= lanes()) ? load(p) : load_tail(p, n);
}
template <class T>
HWY_INLINE void store_n(float_vec x, T* p, size_t n) {
  if (HWY_LIKELY(n >= lanes()))
    store(x, p);
  else
    store_tail(x, p, n);
}

/// Two rows of f32 as one row of words: bf16 pairs, `low` in the lower halves.
template <class T>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<float_tag>> pairs_of(float_vec low, float_vec high, const T*) {
  const float_tag d;
  const hn::RebindToUnsigned<float_tag> du;
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, native_bf16>)
    return hn::Vec<hn::RebindToUnsigned<float_tag>>{
        _mm512_or_si512(_mm512_cvtepu16_epi32(round_natively(low)),
                        _mm512_slli_epi32(_mm512_cvtepu16_epi32(round_natively(high)), 16))};
#endif
  return hn::Or(hn::ShiftRight<16>(round_to_bf16(d, low)),
                hn::And(round_to_bf16(d, high), hn::Set(du, 0xffff0000U)));
}

/// 2^n times p for whole n; on AVX-512 one instruction that also rounds to infinity, 0 and subnormals.
HWY_INLINE float_vec scale_by_power(float_vec p, float_vec n) {
#if HWY_TARGET == HWY_AVX3
  return float_vec{_mm512_scalef_ps(p.raw, n.raw)};
#else
  const float_tag d;
  const hn::RebindToSigned<float_tag> di;
  return hn::Mul(p, hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(di, n), hn::Set(di, 127)))));
#endif
}

/// e^x to about 1 ulp: x = n ln2 + r with |r| <= ln2 / 2, a degree 6 minimax polynomial (Cephes expf) and a
/// change of the exponent. Below -87.3 it gives 0, above 88.3 infinity; a NaN stays one.
HWY_INLINE float_vec exp_of(float_vec x) {
  const float_tag d;
  const auto low = hn::Set(d, -87.3F);
  const auto high = hn::Set(d, 88.3F);
  // The operand order matters: the second is returned when one is a NaN.
  const auto clamped = hn::Min(high, hn::Max(low, x));
  const auto n = hn::Round(hn::Mul(clamped, hn::Set(d, 1.44269504088896341F)));
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375F), clamped);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4F), r);
  auto p = hn::Set(d, 1.9875691500e-4F);
  p = hn::MulAdd(p, r, hn::Set(d, 1.3981999507e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 8.3334519073e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 4.1665795894e-2F));
  p = hn::MulAdd(p, r, hn::Set(d, 1.6666665459e-1F));
  p = hn::MulAdd(p, r, hn::Set(d, 5.0000001201e-1F));
  p = hn::MulAdd(p, hn::Mul(r, r), hn::Add(r, hn::Set(d, 1.0F)));
  auto y = scale_by_power(p, n);
  y = hn::IfThenZeroElse(hn::Lt(x, low), y);
  return hn::IfThenElse(hn::Gt(x, high), hn::Set(d, __builtin_inff()), y);
}

/// 2^r for |r| <= 1/2, to about 1 ulp (Cephes exp2f).
HWY_INLINE float_vec exp2_polynomial(float_vec r) {
  const float_tag d;
  auto p = hn::Set(d, 1.535336188319500e-4F);
  p = hn::MulAdd(p, r, hn::Set(d, 1.339887440266574e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 9.618437357674640e-3F));
  p = hn::MulAdd(p, r, hn::Set(d, 5.550332471162809e-2F));
  p = hn::MulAdd(p, r, hn::Set(d, 2.402264791363012e-1F));
  p = hn::MulAdd(p, r, hn::Set(d, 6.931472028550421e-1F));
  return hn::MulAdd(p, r, hn::Set(d, 1.0F));
}

/// 2^t for t <= 0 (a little above is fine), to about 2 ulp of the exact value of the rounded t. From -126
/// down it gives 0; a NaN stays one.
HWY_INLINE float_vec exp2_of(float_vec t) {
  const auto low = hn::Set(float_tag(), -126.0F);
  const auto clamped = hn::Max(low, t);
  const auto n = hn::Round(clamped);
  return hn::IfThenZeroElse(hn::Le(t, low), scale_by_power(exp2_polynomial(hn::Sub(clamped, n)), n));
}

#if HWY_TARGET == HWY_AVX3
/// 2^t to 7.5e-5 (degree 3) or 2.6e-6 of it, below what bf16 can tell: 2^floor(t) by the processor,
/// 2^(t - floor(t)) by a minimax polynomial (Remez exchange). Every t is legal, a NaN stays one.
template <int Degree>
HWY_INLINE float_vec exp2_roughly(float_vec t) {
  static_assert(Degree == 3 || Degree == 4);
  const float_tag d;
  const float_vec r{_mm512_reduce_ps(t.raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  float_vec p;
  if constexpr (Degree == 3) {
    p = hn::MulAdd(hn::Set(d, 7.8024522664e-2F), r, hn::Set(d, 2.2606715539e-1F));
    p = hn::MulAdd(p, r, hn::Set(d, 6.9583354051e-1F));
    p = hn::MulAdd(p, r, hn::Set(d, 9.9992521856e-1F));
  } else {
    p = hn::MulAdd(hn::Set(d, 1.3534167912e-2F), r, hn::Set(d, 5.2011460619e-2F));
    p = hn::MulAdd(p, r, hn::Set(d, 2.4144275689e-1F));
    p = hn::MulAdd(p, r, hn::Set(d, 6.9300383447e-1F));
    p = hn::MulAdd(p, r, hn::Set(d, 1.0000025934F));
  }
  return scale_by_power(p, t);
}
#endif

/// The sum of all lanes, always in the same order.
HWY_INLINE float sum_of(float_vec x) {
  return hn::GetLane(hn::SumOfLanes(float_tag(), x));
}
HWY_INLINE float max_of(float_vec x) {
  return hn::GetLane(hn::MaxOfLanes(float_tag(), x));
}

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#endif
