// The operations on rows that are made of exponentials, in portable SIMD, for every instruction set.
#include "kernels/cpu/row_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/exponential_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3)
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/rows-inl.hpp"

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

// ------------------------------------------------------------------------------------------------- swiglu

/// 1 / (1 + e^-z), through 2^(n + r) = e^-z. On AVX-512 the power may leave the range of floats: infinity
/// gives 0.
HWY_INLINE float_vec sigmoid(float_vec z) {
  const auto one = set(1.0F);
#if HWY_TARGET == HWY_AVX3
  const float_tag d;
  // The operand order keeps a NaN.
  const auto x = hn::Min(hn::Set(d, 200.0F), hn::Max(hn::Set(d, -200.0F), hn::Neg(z)));
  const auto n = hn::Round(hn::Mul(x, hn::Set(d, 1.44269504F)));
  // log2(e) in two parts, so that the error of r does not grow with x.
  const auto r = hn::MulAdd(x, hn::Set(d, 1.92596299e-8F), hn::MulSub(x, hn::Set(d, 1.44269502F), n));
  return hn::Div(one, hn::Add(one, scale_by_power(exp2_polynomial(r), n)));
#else
  return hn::Div(one, hn::Add(one, exp_of(hn::Neg(z))));
#endif
}

/// For results of type T.
template <class T>
HWY_INLINE float_vec sigmoid_for(float_vec z, const T*) {
#if HWY_TARGET == HWY_AVX3
  // bf16 has 8 bits of precision: the polynomial and the reciprocal err by 2^-13 and 2^-14.
  if constexpr (sizeof(T) == 2)
    return float_vec{_mm512_rcp14_ps(hn::Add(set(1.0F), exp2_roughly<3>(hn::Mul(z, set(-1.44269504F)))).raw)};
#endif
  return sigmoid(z);
}

/// What is asked for while row t is worked on: the row after it or, where rows are long, what lies 2 KiB
/// further on. What the hardware fetches ahead ends with a page or a row, and gate and up are usually columns
/// of one matrix, so that their rows are pieces far apart, up following gate.
template <class T>
HWY_INLINE const T* ahead_of(const tensor& x, int64_t t) {
  constexpr int64_t short_row = 4096 / static_cast<int64_t>(sizeof(T));
  return x.shape[1] > short_row ? row_of<T>(x, t) + short_row / 2
                                : row_of<T>(x, std::min(t + 1, x.shape[0] - 1));
}

/// Asks for a cache line of bf16 or two of f32.
template <class T>
HWY_INLINE void fetch_two(const T* p) {
  hwy::Prefetch(p);
  if constexpr (sizeof(T) == 4)
    hwy::Prefetch(p + lanes());
}

template <class T>
HWY_INLINE void swiglu_of(const swiglu_args& a, int64_t first, int64_t last) {
  const auto l = static_cast<int64_t>(lanes());
  const int64_t width = a.gate.shape[1];
  for (int64_t t = first; t < last; ++t) {
    const T* gate = row_of<T>(a.gate, t);
    const T* up = row_of<T>(a.up, t);
    T* out = row_of<T>(a.out, t);
    const T* next_gate = ahead_of<T>(a.gate, t);
    const T* next_up = ahead_of<T>(a.up, t);
    const auto value = [&](float_vec z, float_vec u) { return hn::Mul(hn::Mul(z, sigmoid_for(z, out)), u); };
    int64_t i = 0;
    for (; i + 2 * l <= width; i += 2 * l) {
      fetch_two(next_gate + i);
      fetch_two(next_up + i);
      float_vec z0, z1, u0, u1;
      load_two(gate + i, z0, z1);
      load_two(up + i, u0, u1);
      store_two(value(z0, u0), value(z1, u1), out + i);
    }
    for_vectors(i, width, [&](int64_t j, size_t n) {
      store_n(value(load_n(gate + j, n), load_n(up + j, n)), out + j, n);
    });
  }
}

template <class Half>
void swiglu(const swiglu_args& a, int64_t first, int64_t last) {
  a.gate.type == dtype::bf16 ? swiglu_of<Half>(a, first, last) : swiglu_of<float>(a, first, last);
}

template <class T>
HWY_INLINE void swiglu_backward_of(const swiglu_backward_args& a, int64_t first, int64_t last) {
  struct pair {
    float_vec gate, up;
  };
  const auto l = static_cast<int64_t>(lanes());
  const int64_t width = a.gate.shape[1];
  for (int64_t t = first; t < last; ++t) {
    const T* gate = row_of<T>(a.gate, t);
    const T* up = row_of<T>(a.up, t);
    const T* dout = row_of<T>(a.dout, t);
    T* dgate = row_of<T>(a.dgate, t);
    T* dup = row_of<T>(a.dup, t);
    const T* next_gate = ahead_of<T>(a.gate, t);
    const T* next_up = ahead_of<T>(a.up, t);
    const T* next_dout = ahead_of<T>(a.dout, t);
    const auto value = [&](float_vec z, float_vec u, float_vec d) {
      const auto s = sigmoid_for(z, dgate);
      const auto silu = hn::Mul(z, s);
      // silu'(z) = s + z s (1 - s)
      const auto slope = hn::MulAdd(silu, hn::Sub(set(1.0F), s), s);
      return pair{hn::Mul(hn::Mul(d, u), slope), hn::Mul(d, silu)};
    };
    int64_t i = 0;
    for (; i + 2 * l <= width; i += 2 * l) {
      fetch_two(next_gate + i);
      fetch_two(next_up + i);
      fetch_two(next_dout + i);
      float_vec z0, z1, u0, u1, d0, d1;
      load_two(gate + i, z0, z1);
      load_two(up + i, u0, u1);
      load_two(dout + i, d0, d1);
      const pair a0 = value(z0, u0, d0);
      const pair a1 = value(z1, u1, d1);
      store_two(a0.gate, a1.gate, dgate + i);
      store_two(a0.up, a1.up, dup + i);
    }
    for_vectors(i, width, [&](int64_t j, size_t n) {
      const pair one = value(load_n(gate + j, n), load_n(up + j, n), load_n(dout + j, n));
      store_n(one.gate, dgate + j, n);
      store_n(one.up, dup + j, n);
    });
  }
}

template <class Half>
void swiglu_backward(const swiglu_backward_args& a, int64_t first, int64_t last) {
  a.gate.type == dtype::bf16 ? swiglu_backward_of<Half>(a, first, last)
                             : swiglu_backward_of<float>(a, first, last);
}

// --------------------------------------------------------------------------------------------------- loss

HWY_INLINE float to_float(float x) {
  return x;
}
template <class Half>
HWY_INLINE float to_float(Half x) {
  return to_f32(bf16{x.bits});
}
HWY_INLINE float from_float(float x, const float*) {
  return x;
}
template <class Half>
HWY_INLINE Half from_float(float x, const Half*) {
  return {to_bf16(x).bits};
}

/// e^(x - shift) of logits of type T that are at most shift.
template <class T>
HWY_INLINE float_vec exp_below(float_vec x, float_vec shift, const T*) {
  const auto log2e = set(1.44269504088896341F);
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(T) == 2)
    return exp2_roughly<4>(hn::Mul(hn::Sub(x, shift), log2e));
#endif
  return exp2_of(hn::Mul(hn::Sub(x, shift), log2e));
}

template <class T>
HWY_INLINE double cross_entropy_of(const cross_entropy_args& a, int64_t row, float* scratch) {
  T* logits = row_of<T>(a.logits, row);
  const int64_t label = a.labels.as<int32_t>()[row * a.labels.stride[0]];
  const int64_t width = a.logits.shape[1];
  if (label < 0 || label >= a.valid_vocab) {
    if (!a.loss_only)
      std::fill_n(logits, width, T{});
    return 0;
  }
  const auto l = static_cast<int64_t>(lanes());
  const int64_t valid = a.valid_vocab;
  float_vec m0 = set(-std::numeric_limits<float>::infinity());
  float_vec m1 = m0;
  int64_t i = 0;
  for (; i + 2 * l <= valid; i += 2 * l) {
    float_vec x0, x1;
    load_two(logits + i, x0, x1);
    m0 = hn::Max(m0, x0);
    m1 = hn::Max(m1, x1);
  }
  float largest = max_of(hn::Max(m0, m1));
  for (; i < valid; ++i)
    largest = std::max(largest, to_float(logits[i]));
  const float at_label = to_float(logits[label]);
  // The exponentials are kept: the last pass over the row only scales them. In f32 they fit into its place.
  float* kept = scratch;
  if constexpr (std::is_same_v<T, float>)
    kept = logits;
  const auto shift = set(largest);
  // While this row is in the cache, the next one is fetched into it.
  const T* next = row + 1 < a.logits.shape[0] ? row_of<T>(a.logits, row + 1) : nullptr;
  i = 0;
  float_vec s0 = set(0);
  float_vec s1 = s0;
  const auto sum_up = [&](const auto& keep) {
    for (; i + 2 * l <= valid; i += 2 * l) {
      if (next != nullptr) {
        hwy::Prefetch(next + i);
        if constexpr (sizeof(T) == 4)
          hwy::Prefetch(next + i + l);
      }
      float_vec x0, x1;
      load_two(logits + i, x0, x1);
      const auto e0 = exp_below(x0, shift, logits);
      const auto e1 = exp_below(x1, shift, logits);
      keep(e0, i, lanes());
      keep(e1, i + l, lanes());
      s0 = hn::Add(s0, e0);
      s1 = hn::Add(s1, e1);
    }
    for (; i < valid; i += l) {
      const auto n = static_cast<size_t>(std::min(l, valid - i));
      const auto e =
          hn::IfThenElseZero(hn::FirstN(float_tag(), n), exp_below(load_n(logits + i, n), shift, logits));
      keep(e, i, n);
      s0 = hn::Add(s0, e);
    }
  };
  if (a.loss_only)
    sum_up([](float_vec, int64_t, size_t) {});
  else
    sum_up([&](float_vec e, int64_t at, size_t n) { store_n(e, kept + at, n); });
  const float total = sum_of(hn::Add(s0, s1));
  if (!a.loss_only) {
    const float of_label = hn::GetLane(exp_below(set(at_label), shift, logits));
    const auto factor = set(a.scale / total);
    for (i = 0; i + 2 * l <= valid; i += 2 * l)
      store_two(hn::Mul(load(kept + i), factor), hn::Mul(load(kept + i + l), factor), logits + i);
    for_vectors(i, valid,
                [&](int64_t j, size_t n) { store_n(hn::Mul(load_n(kept + j, n), factor), logits + j, n); });
    std::fill_n(logits + valid, width - valid, T{});
    logits[label] = from_float((of_label / total - 1.0F) * a.scale, logits);
  }
  return static_cast<double>(largest + std::log(total) - at_label);
}

template <class Half>
double cross_entropy(const cross_entropy_args& a, int64_t row, float* scratch) {
  return a.logits.type == dtype::bf16 ? cross_entropy_of<Half>(a, row, scratch)
                                      : cross_entropy_of<float>(a, row, scratch);
}

template <class Half>
constexpr exponential_kernels exponentials_of{
    .swiglu = swiglu<Half>, .swiglu_backward = swiglu_backward<Half>, .cross_entropy = cross_entropy<Half>};

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace neuroshard::kernels::cpu {

const exponential_kernels& exponential_kernels_for(isa level) {
  if (level >= isa::avx512_bf16)
    return N_AVX3::exponentials_of<N_AVX3::native_bf16>;
  if (level >= isa::avx512)
    return N_AVX3::exponentials_of<bf16>;
  return level >= isa::avx2 ? N_AVX2::exponentials_of<bf16> : N_SSE4::exponentials_of<bf16>;
}

} // namespace neuroshard::kernels::cpu
#endif
