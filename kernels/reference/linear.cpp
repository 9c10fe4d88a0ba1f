#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

namespace neuroshard::kernels::reference {

namespace {

/// The prepared weight is the plain matrix [N,K] in the type of the activations.
tensor plain_weight(const tensor& prepared, dtype act, int64_t n, int64_t k) noexcept {
  return make_tensor(prepared.data, act, {n, k});
}

float read(float value) noexcept {
  return value;
}
float read(bf16 value) noexcept {
  return to_f32(value);
}

/// out[T,N] (+)= x[T,K] * w[N,K]^T, the sum in ascending k.
template <class Element>
void product(const tensor& x, const tensor& w, const tensor& out, bool accumulate) noexcept {
  const elements result(out);
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    const Element* row = x.as<Element>() + t * x.stride[0];
    for (int64_t n = 0; n < w.shape[0]; ++n) {
      const Element* weights = w.as<Element>() + n * w.stride[0];
      float sum = 0;
      for (int64_t k = 0; k < x.shape[1]; ++k)
        sum += read(row[k]) * read(weights[k]);
      result.set(t, n, accumulate ? result.get(t, n) + sum : sum);
    }
  }
}

} // namespace

uint64_t prepared_bytes(void*, int64_t n, int64_t k, dtype act, weight_use) {
  return static_cast<uint64_t>(n) * static_cast<uint64_t>(k) * size_of(act);
}

uint64_t linear_workspace(void*, const linear_args&) {
  return 0;
}
uint64_t linear_backward_input_workspace(void*, const linear_backward_input_args&) {
  return 0;
}
uint64_t linear_backward_weight_workspace(void*, const linear_backward_weight_args&) {
  return 0;
}

status prepare_weight(void* queue, const prepare_weight_args& a) {
  const int64_t n = a.weight.shape[0];
  const int64_t k = a.weight.shape[1];
  NEUROSHARD_TRY(check(a, {.prepared = prepared_bytes(queue, n, k, a.act, a.use)}));
  const elements from(a.weight);
  const elements to(plain_weight(a.prepared, a.act, n, k));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < k; ++j)
      to.set(i, j, from.get(i, j));
  return {};
}

status linear(void* queue, const linear_args& a) {
  const int64_t k = a.x.shape[1];
  NEUROSHARD_TRY(check(a, {.prepared = prepared_bytes(queue, a.out_features, k, a.x.type, a.use)}));
  const tensor w = plain_weight(a.weight, a.x.type, a.out_features, k);
  if (a.x.type == dtype::bf16)
    product<bf16>(a.x, w, a.out, a.accumulate);
  else
    product<float>(a.x, w, a.out, a.accumulate);
  return {};
}

status linear_backward_input(void* queue, const linear_backward_input_args& a) {
  const int64_t n = a.dy.shape[1];
  NEUROSHARD_TRY(
      check(a, {.prepared = prepared_bytes(queue, n, a.in_features, a.dy.type, weight_use::train)}));
  const elements dy(a.dy);
  const elements w(plain_weight(a.weight, a.dy.type, n, a.in_features));
  const elements dx(a.dx);
  for (int64_t t = 0; t < a.dy.shape[0]; ++t)
    for (int64_t k = 0; k < a.in_features; ++k) {
      float sum = 0;
      for (int64_t i = 0; i < n; ++i)
        sum += dy.get(t, i) * w.get(i, k);
      dx.set(t, k, a.accumulate ? dx.get(t, k) + sum : sum);
    }
  return {};
}

status linear_backward_weight(void*, const linear_backward_weight_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  const elements dy(a.dy);
  const elements x(a.x);
  const elements dw(a.dw);
  for (int64_t n = 0; n < a.dw.shape[0]; ++n)
    for (int64_t k = 0; k < a.dw.shape[1]; ++k) {
      float sum = 0;
      for (int64_t t = 0; t < a.dy.shape[0]; ++t)
        sum += dy.get(t, n) * x.get(t, k);
      dw.set(n, k, dw.get(n, k) + sum);
    }
  return {};
}

} // namespace neuroshard::kernels::reference
