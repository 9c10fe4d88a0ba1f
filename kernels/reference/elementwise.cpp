#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <cmath>

namespace neuroshard::kernels::reference {

namespace {

int64_t row_or_first(int64_t id, int64_t rows) noexcept {
  return id >= 0 && id < rows ? id : 0;
}

float sigmoid(float z) noexcept {
  return 1.0F / (1.0F + std::exp(-z));
}

/// to = from, over the dimensions from `dim` on.
void convert_from(const tensor& from, const tensor& to, int dim, int64_t from_offset,
                  int64_t to_offset) noexcept {
  if (dim == from.rank) {
    elements(to).store(to_offset, elements(from).load(from_offset));
    return;
  }
  const auto d = static_cast<size_t>(dim);
  for (int64_t i = 0; i < from.shape[d]; ++i)
    convert_from(from, to, dim + 1, from_offset + i * from.stride[d], to_offset + i * to.stride[d]);
}

} // namespace

uint64_t embedding_backward_workspace(void*, const embedding_backward_args&) {
  return 0;
}

status embedding(void*, const embedding_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements table(a.table);
  const elements out(a.out);
  for (int64_t t = 0; t < a.ids.shape[0]; ++t) {
    const int64_t row = row_or_first(index_at(a.ids, t), a.table.shape[0]);
    for (int64_t c = 0; c < a.table.shape[1]; ++c)
      out.set(t, c, table.get(row, c));
  }
  return {};
}

status embedding_backward(void*, const embedding_backward_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  const elements dout(a.dout);
  const elements dtable(a.dtable);
  for (int64_t t = 0; t < a.ids.shape[0]; ++t) {
    const int64_t row = row_or_first(index_at(a.ids, t), a.dtable.shape[0]);
    for (int64_t c = 0; c < a.dtable.shape[1]; ++c)
      dtable.set(row, c, dtable.get(row, c) + dout.get(t, c));
  }
  return {};
}

// spec/model.md, section 2: x'[2i] = x[2i] cos - x[2i+1] sin, x'[2i+1] = x[2i] sin + x[2i+1] cos.
status rope(void*, const rope_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements x(a.x);
  const elements cosine(a.cosine);
  const elements sine(a.sine);
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    const int64_t position = index_at(a.positions, t);
    if (position < 0 || position >= a.cosine.shape[0])
      continue;
    for (int64_t h = 0; h < a.x.shape[1]; ++h)
      for (int64_t i = 0; i < a.x.shape[2] / 2; ++i) {
        const float c = cosine.get(position, i);
        const float s = a.inverse ? -sine.get(position, i) : sine.get(position, i);
        const float even = x.get(t, h, 2 * i);
        const float odd = x.get(t, h, 2 * i + 1);
        x.set(t, h, 2 * i, even * c - odd * s);
        x.set(t, h, 2 * i + 1, even * s + odd * c);
      }
  }
  return {};
}

status swiglu(void*, const swiglu_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements gate(a.gate);
  const elements up(a.up);
  const elements out(a.out);
  for (int64_t t = 0; t < a.gate.shape[0]; ++t)
    for (int64_t f = 0; f < a.gate.shape[1]; ++f) {
      const float z = gate.get(t, f);
      out.set(t, f, z * sigmoid(z) * up.get(t, f));
    }
  return {};
}

// silu'(z) = s + z s (1 - s) with s = sigmoid(z).
status swiglu_backward(void*, const swiglu_backward_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements gate(a.gate);
  const elements up(a.up);
  const elements dout(a.dout);
  const elements dgate(a.dgate);
  const elements dup(a.dup);
  for (int64_t t = 0; t < a.gate.shape[0]; ++t)
    for (int64_t f = 0; f < a.gate.shape[1]; ++f) {
      const float z = gate.get(t, f);
      const float u = up.get(t, f);
      const float upstream = dout.get(t, f);
      const float s = sigmoid(z);
      dgate.set(t, f, upstream * u * (s + z * s * (1.0F - s)));
      dup.set(t, f, upstream * z * s);
    }
  return {};
}

status convert(void*, const convert_args& a) {
  NEUROSHARD_TRY(check(a));
  convert_from(a.x, a.out, 0, 0, 0);
  return {};
}

status add(void*, const add_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements left(a.a);
  const elements right(a.b);
  const elements out(a.out);
  for (int64_t t = 0; t < a.a.shape[0]; ++t)
    for (int64_t c = 0; c < a.a.shape[1]; ++c)
      out.set(t, c, left.get(t, c) + right.get(t, c));
  return {};
}

} // namespace neuroshard::kernels::reference
