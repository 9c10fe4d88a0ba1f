#include "tests/kernels/op_cases.hpp"

#include <initializer_list>

// Matrix products: y = x W^T and its two gradients. Oracles are the plain sums; the gradients are those of
// the same sum.
namespace neuroshard::kernels::testing {

namespace {

struct product_shape {
  int64_t t, k, n;
};

// Rows, inner and outer sizes of 0, 1, odd, around 16 and past one tile of any backend, or one piece of a
// contraction.
constexpr std::initializer_list<product_shape> shapes{
    {0, 7, 5},  {1, 1, 1},      {1, 64, 96},   {7, 33, 17},   {16, 64, 48},
    {5, 1, 40}, {65, 100, 130}, {3, 300, 257}, {131, 72, 64}, {40, 530, 112},
};

double tolerance_of(dtype out) {
  return out == dtype::bf16 ? 1e-2 : 1e-5;
}

std::string label(const char* op, const product_shape& s, dtype type, const std::string& more) {
  return std::string(op) + " " + name_of(type) + " T" + std::to_string(s.t) + " K" + std::to_string(s.k) +
         " N" + std::to_string(s.n) + more;
}

struct forward_options {
  dtype act, out, weight;
  weight_use use;
  bool accumulate;
  int64_t gap;
};

op_case linear_case(const product_shape& s, const forward_options& o, numbers& random) {
  op_case c;
  c.name = label("linear", s, o.act,
                 std::string(o.accumulate ? " +=" : "") + (o.out == o.act ? "" : " to f32") +
                     (o.use == weight_use::train ? " train" : " serve") + (o.gap > 0 ? " strided" : ""));
  c.operands.push_back(input("x", o.act, {s.t, s.k}, random.many(s.t * s.k), o.gap));
  c.operands.push_back(input("w", o.weight, {s.n, s.k}, random.many(s.n * s.k)));
  // The master copy is f32; what is multiplied is its rounding to the type of the activations.
  c.operands.back().values = rounded(c.operands.back().values, o.act);
  c.operands.push_back(
      o.accumulate ? accumulated("out", o.out, {s.t, s.n}, random.many(s.t * s.n), tolerance_of(o.out), o.gap)
                   : output("out", o.out, {s.t, s.n}, tolerance_of(o.out), o.gap));
  c.run = [=](call& call) -> status {
    auto weight = call.prepared(call[1], o.act, o.use);
    NEUROSHARD_TRY(weight.status());
    linear_args a{call[0], *weight, o.use, s.n, call[2], o.accumulate, {}};
    a.workspace = call.scratch(call.ops().linear_workspace(call.device(), a));
    return call.ops().linear(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    for (int64_t t = 0; t < s.t; ++t)
      for (int64_t n = 0; n < s.n; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < s.k; ++k)
          sum += v[0][static_cast<size_t>(t * s.k + k)] * v[1][static_cast<size_t>(n * s.k + k)];
        double& out = v[2][static_cast<size_t>(t * s.n + n)];
        out = o.accumulate ? out + sum : sum;
      }
  };
  return c;
}

op_case input_gradient_case(const product_shape& s, dtype act, bool accumulate, int64_t gap,
                            numbers& random) {
  op_case c;
  c.name = label("linear_backward_input", s, act,
                 std::string(accumulate ? " +=" : "") + (gap > 0 ? " strided" : ""));
  c.operands.push_back(input("dy", act, {s.t, s.n}, random.many(s.t * s.n), gap));
  c.operands.push_back(input("w", act, {s.n, s.k}, random.many(s.n * s.k)));
  c.operands.push_back(
      accumulate ? accumulated("dx", act, {s.t, s.k}, random.many(s.t * s.k), tolerance_of(act), gap)
                 : output("dx", act, {s.t, s.k}, tolerance_of(act), gap));
  c.run = [=](call& call) -> status {
    auto weight = call.prepared(call[1], act, weight_use::train);
    NEUROSHARD_TRY(weight.status());
    linear_backward_input_args a{call[0], *weight, s.k, call[2], accumulate, {}};
    a.workspace = call.scratch(call.ops().linear_backward_input_workspace(call.device(), a));
    return call.ops().linear_backward_input(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    for (int64_t t = 0; t < s.t; ++t)
      for (int64_t k = 0; k < s.k; ++k) {
        double sum = 0;
        for (int64_t n = 0; n < s.n; ++n)
          sum += v[0][static_cast<size_t>(t * s.n + n)] * v[1][static_cast<size_t>(n * s.k + k)];
        double& out = v[2][static_cast<size_t>(t * s.k + k)];
        out = accumulate ? out + sum : sum;
      }
  };
  return c;
}

op_case weight_gradient_case(const product_shape& s, dtype act, int64_t gap, numbers& random) {
  op_case c;
  c.name = label("linear_backward_weight", s, act, gap > 0 ? " strided" : "");
  c.operands.push_back(input("dy", act, {s.t, s.n}, random.many(s.t * s.n), gap));
  c.operands.push_back(input("x", act, {s.t, s.k}, random.many(s.t * s.k), gap));
  c.operands.push_back(accumulated("dw", dtype::f32, {s.n, s.k}, random.many(s.n * s.k), 1e-5));
  c.run = [=](call& call) -> status {
    linear_backward_weight_args a{call[0], call[1], call[2], {}};
    a.workspace = call.scratch(call.ops().linear_backward_weight_workspace(call.device(), a));
    return call.ops().linear_backward_weight(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t k = 0; k < s.k; ++k)
        for (int64_t t = 0; t < s.t; ++t)
          v[2][static_cast<size_t>(n * s.k + k)] +=
              v[0][static_cast<size_t>(t * s.n + n)] * v[1][static_cast<size_t>(t * s.k + k)];
  };
  return c;
}

} // namespace

void add_linear_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const product_shape& s : shapes) {
      const bool odd = (s.t + s.k + s.n) % 2 != 0;
      const int64_t gap = odd ? 3 : 0;
      for (const weight_use use : {weight_use::train, weight_use::serve}) {
        to.push_back(linear_case(s, {act, act, dtype::f32, use, false, gap}, random));
        to.push_back(linear_case(s, {act, act, act, use, true, gap}, random));
      }
      if (act == dtype::bf16)
        to.push_back(linear_case(s, {act, dtype::f32, dtype::f32, weight_use::serve, odd, 0}, random));
      for (const bool accumulate : {false, true})
        to.push_back(input_gradient_case(s, act, accumulate, gap, random));
      to.push_back(weight_gradient_case(s, act, gap, random));
    }
}

} // namespace neuroshard::kernels::testing
