// What the kernels on rows share: walking over them, stores of two vectors. Included once per target, so no
// #pragma once.
#if defined(NEUROSHARD_CPU_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NEUROSHARD_CPU_ROWS_INL
#undef NEUROSHARD_CPU_ROWS_INL
#else
#define NEUROSHARD_CPU_ROWS_INL
#endif

#include "kernels/core/tensor.hpp"
#include "kernels/cpu/simd-inl.hpp"

#include <type_traits>

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

HWY_INLINE float_vec set(float x) {
  return hn::Set(float_tag(), x);
}

/// Calls body(i, count) for vectors of [first, last); count is the number of lanes, less in the last call.
template <class Body>
HWY_INLINE void for_vectors(int64_t first, int64_t last, const Body& body) {
  const auto l = static_cast<int64_t>(lanes());
  int64_t i = first;
  for (; i + l <= last; i += l)
    body(i, lanes());
  if (i < last)
    body(i, static_cast<size_t>(last - i));
}

/// Calls body with a null pointer of the activation type; Half is how bf16 is read and rounded.
template <class Half, class Body>
HWY_INLINE void by_type(dtype type, const Body& body) {
  if (type == dtype::bf16)
    body(static_cast<Half*>(nullptr));
  else
    body(static_cast<float*>(nullptr));
}

template <class T>
HWY_INLINE T* row_of(const tensor& t, int64_t row) {
  return t.as<T>() + row * t.stride[0];
}

/// 2 * lanes() elements as two vectors: halves of f32, in bf16 the even and the odd elements, as a pair of
/// them is a word that needs no shuffle. `store_two` undoes it.
HWY_INLINE void load_two(const float* p, float_vec& a, float_vec& b) {
  a = load(p);
  b = load(p + lanes());
}
template <class Half>
HWY_INLINE void load_two(const Half* p, float_vec& a, float_vec& b) {
  const float_tag d;
  const hn::RebindToUnsigned<float_tag> du;
  const auto pairs = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
  a = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
  b = hn::BitCast(d, hn::And(pairs, hn::Set(du, 0xffff0000U)));
}

#if HWY_TARGET == HWY_AVX3
HWY_INLINE __m512i join_natively(float_vec even, float_vec odd) {
  alignas(64) static constexpr uint16_t interleaved[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  __m512i y;
  __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(y) : "v"(even.raw), "v"(odd.raw));
  return _mm512_permutexvar_epi16(_mm512_load_si512(interleaved), y);
}
#endif

HWY_INLINE void store_two(float_vec a, float_vec b, float* p) {
  store(a, p);
  store(b, p + lanes());
}
template <class Half>
HWY_INLINE void store_two(float_vec a, float_vec b, Half* p) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<Half, native_bf16>) {
    _mm512_storeu_si512(p, join_natively(a, b));
    return;
  }
#endif
  hn::StoreU(pairs_of(a, b, p), hn::RebindToUnsigned<float_tag>(), reinterpret_cast<uint32_t*>(p));
}

/// 2 * lanes() elements in their order; `low` are the first. One store of a whole cache line, where the
/// processor rounds by itself: half a line at a time it would be read from memory before it is written.
template <class T>
HWY_INLINE void store_line(float_vec low, float_vec high, T* p) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, native_bf16>) {
    __m512i y;
    __asm__("vcvtne2ps2bf16 %1, %2, %0" : "=v"(y) : "v"(low.raw), "v"(high.raw));
    _mm512_storeu_si512(p, y);
    return;
  }
#endif
  store(low, p);
  store(high, p + lanes());
}

/// out[i] = value(i, count) over a row, whole lines at a time. The output may be one of the inputs.
template <class T, class Value>
HWY_INLINE void store_row(T* out, int64_t width, const Value& value) {
  const auto l = static_cast<int64_t>(lanes());
  int64_t i = 0;
  for (; i + 2 * l <= width; i += 2 * l) {
    const auto low = value(i, lanes());
    const auto high = value(i + l, lanes());
    store_line(low, high, out + i);
  }
  for_vectors(i, width, [&](int64_t j, size_t n) { store_n(value(j, n), out + j, n); });
}

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#endif
