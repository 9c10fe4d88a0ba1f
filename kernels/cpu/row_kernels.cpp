// The memory-bound operations in portable SIMD, for every instruction set.
#include "kernels/cpu/row_kernels.hpp"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/row_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3)
#include <hwy/foreach_target.h>

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include "kernels/cpu/rows-inl.hpp"

#if HWY_TARGET != HWY_EMU128 && HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace neuroshard::kernels::cpu {
namespace HWY_NAMESPACE {

// -------------------------------------------------------------------------------------------- small pieces

template <class T>
HWY_INLINE void store_block_of(const store_block_args& a) {
  for (int64_t i = 0; i < a.m; ++i) {
    const float* c = a.c + i * a.ldc;
    T* out = static_cast<T*>(a.out) + i * a.ldo;
    if (a.accumulate)
      for_vectors(0, a.n, [&](int64_t j, size_t n) {
        store_n(hn::Add(load_n(out + j, n), load_n(c + j, n)), out + j, n);
      });
    else
      for_vectors(0, a.n, [&](int64_t j, size_t n) { store_n(load_n(c + j, n), out + j, n); });
  }
}

template <class Half>
void store_block(const store_block_args& a) {
  a.type == dtype::bf16 ? store_block_of<Half>(a) : store_block_of<float>(a);
}

HWY_INLINE int64_t row_or_first(int64_t id, int64_t rows) {
  return id >= 0 && id < rows ? id : 0;
}

template <class From, class To>
HWY_INLINE void convert_run(const From* x, To* out, int64_t count) {
  const auto l = static_cast<int64_t>(lanes());
  int64_t i = 0;
  for (; i + 2 * l <= count; i += 2 * l)
    store_line(load(x + i), load(x + i + l), out + i);
  for_vectors(i, count, [&](int64_t j, size_t n) { store_n(load_n(x + j, n), out + j, n); });
}

template <class Half>
void convert(const void* x, dtype from, void* out, dtype to, int64_t count) {
  if (from == to)
    std::memcpy(out, x, static_cast<size_t>(count) * size_of(from));
  else if (from == dtype::f32)
    convert_run(static_cast<const float*>(x), static_cast<Half*>(out), count);
  else
    convert_run(static_cast<const Half*>(x), static_cast<float*>(out), count);
}

/// Rows come in no order that the hardware could foresee: this much is asked for ahead of what is worked on.
constexpr int64_t bytes_ahead = 6 * 1024;

HWY_INLINE int64_t rows_ahead(int64_t row_bytes) {
  return std::max<int64_t>(1, bytes_ahead / std::max<int64_t>(row_bytes, 64));
}

/// Calls body(first, last) for one piece of Lines cache lines of a row after the other and asks for the same
/// lines of `next`, if there is one. The last piece may be shorter; the length of the others is known to the
/// compiler.
template <int Lines, class T, class Body>
HWY_INLINE void for_lines(int64_t width, const T* next, const Body& body) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  int64_t i = 0;
  for (; i + Lines * line <= width; i += Lines * line) {
    if (next != nullptr)
      for (int64_t at = 0; at < Lines; ++at)
        hwy::Prefetch(next + i + at * line);
    body(i, i + Lines * line);
  }
  if (i < width) {
    if (next != nullptr)
      for (int64_t at = i; at < width; at += line)
        hwy::Prefetch(next + at);
    body(i, width);
  }
}

template <class From, class To>
HWY_INLINE void embedding_of(const embedding_args& a, int64_t first, int64_t last) {
  const auto source = [&](int64_t t) {
    return row_of<From>(a.table, row_or_first(a.ids.as<int32_t>()[t * a.ids.stride[0]], a.table.shape[0]));
  };
  const int64_t width = a.table.shape[1];
  const int64_t ahead = rows_ahead(width * static_cast<int64_t>(sizeof(From)));
  // Whole lines of the output at a time.
  constexpr int lines = sizeof(From) > sizeof(To) ? 2 : 1;
  for (int64_t t = first; t < last; ++t) {
    const From* from = source(t);
    To* to = row_of<To>(a.out, t);
    const From* next = t + ahead < a.ids.shape[0] ? source(t + ahead) : nullptr;
    for_lines<lines>(width, next, [&](int64_t i, int64_t end) {
      if constexpr (std::is_same_v<From, To>)
        std::memcpy(to + i, from + i, static_cast<size_t>(end - i) * sizeof(From));
      else
        convert_run(from + i, to + i, end - i);
    });
  }
}

template <class Half>
void embedding(const embedding_args& a, int64_t first, int64_t last) {
  by_type<Half>(a.table.type, [&]<class From>(From*) {
    by_type<Half>(a.out.type, [&]<class To>(To*) { embedding_of<From, To>(a, first, last); });
  });
}

template <class Half>
void embedding_backward(const embedding_backward_args& a, const int32_t* rows, int64_t count) {
  by_type<Half>(a.dout.type, [&]<class T>(T*) {
    const auto target = [&](int64_t i) {
      return row_of<float>(a.dtable,
                           row_or_first(a.ids.as<int32_t>()[rows[i] * a.ids.stride[0]], a.dtable.shape[0]));
    };
    const int64_t width = a.dout.shape[1];
    const int64_t ahead = rows_ahead(width * 4);
    for (int64_t i = 0; i < count; ++i) {
      const T* dout = row_of<T>(a.dout, rows[i]);
      float* dtable = target(i);
      const float* next = i + ahead < count ? target(i + ahead) : nullptr;
      for_lines<1>(width, next, [&](int64_t from, int64_t to) {
        hwy::Prefetch(i + 1 < count ? row_of<T>(a.dout, rows[i + 1]) + from : dout);
        for_vectors(from, to, [&](int64_t j, size_t n) {
          store_n(hn::Add(load_n(dtable + j, n), load_n(dout + j, n)), dtable + j, n);
        });
      });
    }
  });
}

void add_to(float* to, const float* from, int64_t count) {
  for_vectors(0, count, [&](int64_t i, size_t n) {
    store_n(hn::Add(load_n(to + i, n), load_n(from + i, n)), to + i, n);
  });
}

template <class T>
HWY_INLINE void add_of(const add_args& args, int64_t first, int64_t last) {
  for (int64_t t = first; t < last; ++t) {
    const T* a = row_of<T>(args.a, t);
    const T* b = row_of<T>(args.b, t);
    T* out = row_of<T>(args.out, t);
    store_row(out, args.a.shape[1],
              [&](int64_t i, size_t n) { return hn::Add(load_n(a + i, n), load_n(b + i, n)); });
  }
}

template <class Half>
void add(const add_args& a, int64_t first, int64_t last) {
  a.a.type == dtype::bf16 ? add_of<Half>(a, first, last) : add_of<float>(a, first, last);
}

// --------------------------------------------------------------------------------------------------- norm

/// Sums f(i, count) over a row in four chains, so that the additions overlap; a fixed order for a given
/// width.
template <class Value>
HWY_INLINE float sum_over(int64_t width, const Value& value) {
  const auto l = static_cast<int64_t>(lanes());
  float_vec s0 = set(0);
  float_vec s1 = s0;
  float_vec s2 = s0;
  float_vec s3 = s0;
  int64_t i = 0;
  for (; i + 4 * l <= width; i += 4 * l) {
    s0 = value(i, lanes(), s0);
    s1 = value(i + l, lanes(), s1);
    s2 = value(i + 2 * l, lanes(), s2);
    s3 = value(i + 3 * l, lanes(), s3);
  }
  for_vectors(i, width, [&](int64_t j, size_t n) { s0 = value(j, n, s0); });
  return sum_of(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

template <class T>
HWY_INLINE void rms_norm_of(const rms_norm_args& a, int64_t first, int64_t last) {
  const int64_t width = a.x.shape[1];
  const float* gain = a.gain.as<float>();
  for (int64_t t = first; t < last; ++t) {
    const T* x = row_of<T>(a.x, t);
    if (a.residual) {
      const T* residual = row_of<T>(a.residual, t);
      T* sum = row_of<T>(a.sum, t);
      store_row(sum, width,
                [&](int64_t i, size_t n) { return hn::Add(load_n(x + i, n), load_n(residual + i, n)); });
      x = sum;
    }
    const float squares = sum_over(width, [&](int64_t i, size_t n, float_vec s) {
      const auto y = load_n(x + i, n);
      return hn::MulAdd(y, y, s);
    });
    const float rstd = 1.0F / std::sqrt(squares / static_cast<float>(width) + a.eps);
    T* out = row_of<T>(a.out, t);
    const auto r = set(rstd);
    store_row(out, width, [&](int64_t i, size_t n) {
      return hn::Mul(hn::Mul(load_n(x + i, n), r), load_n(gain + i, n));
    });
    if (a.rstd)
      a.rstd.as<float>()[t * a.rstd.stride[0]] = rstd;
  }
}

template <class Half>
void rms_norm(const rms_norm_args& a, int64_t first, int64_t last) {
  a.x.type == dtype::bf16 ? rms_norm_of<Half>(a, first, last) : rms_norm_of<float>(a, first, last);
}

template <class T>
HWY_INLINE void rms_norm_backward_of(const rms_norm_backward_args& a, int64_t first, int64_t last,
                                     float* dgain) {
  const int64_t width = a.x.shape[1];
  const float* gain = a.gain.as<float>();
  std::fill_n(dgain, width, 0.0F);
  for (int64_t t = first; t < last; ++t) {
    const T* dy = row_of<T>(a.dy, t);
    const T* x = row_of<T>(a.x, t);
    const T* dresidual = a.dresidual ? row_of<T>(a.dresidual, t) : nullptr;
    T* dx = row_of<T>(a.dx, t);
    const float r = a.rstd.as<float>()[t * a.rstd.stride[0]];
    const float dot = sum_over(width, [&](int64_t i, size_t n, float_vec s) {
      return hn::MulAdd(hn::Mul(load_n(dy + i, n), load_n(gain + i, n)), load_n(x + i, n), s);
    });
    const auto scale = set(r);
    const auto pull = set(r * r * r * (dot / static_cast<float>(width)));
    for_vectors(0, width, [&](int64_t i, size_t n) {
      const auto u = load_n(dy + i, n);
      const auto y = load_n(x + i, n);
      store_n(hn::MulAdd(hn::Mul(u, y), scale, load_n(dgain + i, n)), dgain + i, n);
      auto g = hn::NegMulAdd(y, pull, hn::Mul(scale, hn::Mul(u, load_n(gain + i, n))));
      if (dresidual != nullptr)
        g = hn::Add(g, load_n(dresidual + i, n));
      store_n(g, dx + i, n);
    });
  }
}

template <class Half>
void rms_norm_backward(const rms_norm_backward_args& a, int64_t first, int64_t last, float* dgain) {
  a.x.type == dtype::bf16 ? rms_norm_backward_of<Half>(a, first, last, dgain)
                          : rms_norm_backward_of<float>(a, first, last, dgain);
}

// --------------------------------------------------------------------------------------------------- rope

HWY_INLINE void rotate(float_vec even, float_vec odd, float_vec c, float_vec s, float_vec& new_even,
                       float_vec& new_odd) {
  new_even = hn::NegMulAdd(odd, s, hn::Mul(even, c));
  new_odd = hn::MulAdd(odd, c, hn::Mul(even, s));
}

/// Pairs [0, half) of one head in f32.
HWY_INLINE void rope_head(float* x, const float* cosine, const float* sine, float_vec sign, int64_t half) {
  const float_tag d;
  const auto l = static_cast<int64_t>(lanes());
  int64_t i = 0;
  for (; i + l <= half; i += l) {
    float_vec even;
    float_vec odd;
    hn::LoadInterleaved2(d, x + 2 * i, even, odd);
    rotate(even, odd, load(cosine + i), hn::Mul(load(sine + i), sign), even, odd);
    hn::StoreInterleaved2(even, odd, d, x + 2 * i);
  }
  const float way = hn::GetLane(sign);
  for (; i < half; ++i) {
    const float even = x[2 * i];
    const float odd = x[2 * i + 1];
    x[2 * i] = even * cosine[i] - odd * (sine[i] * way);
    x[2 * i + 1] = even * (sine[i] * way) + odd * cosine[i];
  }
}

/// In bf16 a pair is one 32-bit word: no shuffles at all.
template <class Half>
HWY_INLINE void rope_head(Half* x, const float* cosine, const float* sine, float_vec sign, int64_t half) {
  const float_tag d;
  const hn::RebindToUnsigned<float_tag> du;
  const auto upper = hn::Set(du, 0xffff0000U);
  for_vectors(0, half, [&](int64_t i, size_t n) {
    HWY_ALIGN uint32_t words[hn::MaxLanes(float_tag())] = {};
    const bool whole = n >= lanes();
    if (!whole)
      std::memcpy(words, x + 2 * i, n * 4);
    const auto pairs =
        whole ? hn::LoadU(du, reinterpret_cast<const uint32_t*>(x + 2 * i)) : hn::Load(du, words);
    float_vec even = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
    float_vec odd = hn::BitCast(d, hn::And(pairs, upper));
    rotate(even, odd, load_n(cosine + i, n), hn::Mul(load_n(sine + i, n), sign), even, odd);
    const auto joined = pairs_of(even, odd, x);
    if (whole) {
      hn::StoreU(joined, du, reinterpret_cast<uint32_t*>(x + 2 * i));
    } else {
      hn::Store(joined, du, words);
      std::memcpy(x + 2 * i, words, n * 4);
    }
  });
}

template <class Half>
void rope(const rope_args& a, int64_t first, int64_t last) {
  const auto sign = set(a.inverse ? -1.0F : 1.0F);
  by_type<Half>(a.x.type, [&]<class T>(T*) {
    for (int64_t t = first; t < last; ++t) {
      const int64_t position = a.positions.as<int32_t>()[t * a.positions.stride[0]];
      if (position < 0 || position >= a.cosine.shape[0])
        continue;
      for (int64_t h = 0; h < a.x.shape[1]; ++h)
        rope_head(row_of<T>(a.x, t) + h * a.x.stride[1], row_of<float>(a.cosine, position),
                  row_of<float>(a.sine, position), sign, a.x.shape[2] / 2);
    }
  });
}

// ---------------------------------------------------------------------------------------------- optimizer

void adamw(const adamw_item& item, const adamw_constants& k, float clip, bool zero_gradient, int64_t first,
           int64_t last) {
  float* w = item.weight.as<float>();
  float* gradient = item.gradient.as<float>();
  float* m = item.first_moment.as<float>();
  float* v = item.second_moment.as<float>();
  const auto decay = set(item.weight_decay);
  for_vectors(first, last, [&](int64_t i, size_t n) {
    const auto g = hn::Mul(set(clip), load_n(gradient + i, n));
    const auto new_m = hn::MulAdd(set(k.beta1), load_n(m + i, n), hn::Mul(set(k.one_minus_beta1), g));
    const auto new_v =
        hn::MulAdd(set(k.beta2), load_n(v + i, n), hn::Mul(hn::Mul(set(k.one_minus_beta2), g), g));
    const auto root = hn::Add(hn::Sqrt(hn::Mul(new_v, set(k.correction2))), set(k.eps));
    const auto step = hn::Div(hn::Mul(new_m, set(k.correction1)), root);
    const auto weight = load_n(w + i, n);
    store_n(hn::NegMulAdd(set(k.learning_rate), hn::MulAdd(decay, weight, step), weight), w + i, n);
    store_n(new_m, m + i, n);
    store_n(new_v, v + i, n);
    if (zero_gradient)
      store_n(set(0), gradient + i, n);
  });
}

double sum_of_squares(const float* x, int64_t count) {
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> half;
  const auto l = static_cast<int64_t>(hn::Lanes(dd));
  auto s0 = hn::Zero(dd);
  auto s1 = s0;
  auto s2 = s0;
  auto s3 = s0;
  int64_t i = 0;
  const auto square = [&](int64_t at, auto sum) {
    const auto y = hn::PromoteTo(dd, hn::LoadU(half, x + at));
    return hn::MulAdd(y, y, sum);
  };
  for (; i + 4 * l <= count; i += 4 * l) {
    s0 = square(i, s0);
    s1 = square(i + l, s1);
    s2 = square(i + 2 * l, s2);
    s3 = square(i + 3 * l, s3);
  }
  double sum = hn::GetLane(hn::SumOfLanes(dd, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  for (; i < count; ++i)
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

template <class Half>
constexpr row_kernels kernels_of{.store_block = store_block<Half>,
                                 .embedding = embedding<Half>,
                                 .embedding_backward = embedding_backward<Half>,
                                 .rms_norm = rms_norm<Half>,
                                 .rms_norm_backward = rms_norm_backward<Half>,
                                 .add_to = add_to,
                                 .rope = rope<Half>,
                                 .add = add<Half>,
                                 .convert = convert<Half>,
                                 .adamw = adamw,
                                 .sum_of_squares = sum_of_squares};

} // namespace HWY_NAMESPACE
} // namespace neuroshard::kernels::cpu
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace neuroshard::kernels::cpu {

const row_kernels& row_kernels_for(isa level) {
  if (level >= isa::avx512_bf16)
    return N_AVX3::kernels_of<N_AVX3::native_bf16>;
  if (level >= isa::avx512)
    return N_AVX3::kernels_of<bf16>;
  return level >= isa::avx2 ? N_AVX2::kernels_of<bf16> : N_SSE4::kernels_of<bf16>;
}

} // namespace neuroshard::kernels::cpu
#endif
