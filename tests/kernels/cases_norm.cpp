#include "tests/kernels/op_cases.hpp"

#include <cmath>

// RMSNorm with and without a residual; its gradient is the central difference of the forward formula in
// double.
namespace neuroshard::kernels::testing {

namespace {

constexpr double eps = 1e-6;

struct matrix_shape {
  int64_t rows, width;
};

const std::vector<matrix_shape> shapes{{0, 8}, {1, 1}, {1, 64}, {7, 33}, {16, 48}, {21, 130}};

double rstd_of(const double* row, size_t width) {
  double squares = 0;
  for (size_t c = 0; c < width; ++c)
    squares += row[c] * row[c];
  return 1 / std::sqrt(squares / static_cast<double>(width) + eps);
}

std::vector<double> norm_of(const std::vector<double>& x, const std::vector<double>& gain) {
  std::vector<double> out(x.size());
  for (size_t first = 0; first < x.size(); first += gain.size()) {
    const double r = rstd_of(x.data() + first, gain.size());
    for (size_t c = 0; c < gain.size(); ++c)
      out[first + c] = x[first + c] * r * gain[c];
  }
  return out;
}

std::string label(const char* op, const matrix_shape& s, dtype type, const char* more) {
  return std::string(op) + " " + name_of(type) + " [" + std::to_string(s.rows) + "," +
         std::to_string(s.width) + "]" + more;
}

enum class residual { none, apart, in_place };

op_case norm_case(const matrix_shape& s, dtype act, residual with, numbers& random) {
  const int64_t n = s.rows * s.width;
  op_case c;
  c.name =
      label("rms_norm", s, act,
            with == residual::none ? "" : (with == residual::apart ? " residual" : " residual in place"));
  c.operands = {input("x", act, {s.rows, s.width}, random.many(n, -2, 2), 3),
                input("residual", act, {s.rows, s.width}, random.many(n), 3),
                input("gain", dtype::f32, {s.width}, random.many(s.width, 0.5, 1.5)),
                output("sum", act, {s.rows, s.width}, 0, 3),
                output("out", act, {s.rows, s.width}, act == dtype::bf16 ? 1e-2 : 2e-6, 1),
                output("rstd", dtype::f32, {s.rows}, 2e-6)};
  if (with == residual::in_place)
    c.operands[3].alias_of = 1;
  if (with == residual::none) { // what is not part of the call stays as it is
    c.operands[3] = c.operands[1];
    c.operands[3].is = role::accumulated;
  }
  c.run = [=](call& call) {
    rms_norm_args a{call[0], call[1], call[3], call[2], call[4], call[5], static_cast<float>(eps)};
    if (with == residual::none)
      a.residual = a.sum = {};
    return call.ops().rms_norm(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    std::vector<double> normed = v[0];
    if (with != residual::none) {
      for (size_t i = 0; i < normed.size(); ++i)
        normed[i] = rounded(rounded(v[0][i] + v[1][i], dtype::f32), act);
      v[3] = normed;
    }
    v[4] = norm_of(normed, v[2]);
    for (size_t t = 0; t < v[5].size(); ++t)
      v[5][t] = rstd_of(normed.data() + t * v[2].size(), v[2].size());
  };
  return c;
}

op_case norm_backward_case(const matrix_shape& s, dtype act, residual with, numbers& random) {
  const int64_t n = s.rows * s.width;
  op_case c;
  c.name =
      label("rms_norm_backward", s, act,
            with == residual::none ? "" : (with == residual::apart ? " residual" : " residual in place"));
  const auto x = rounded(random.many(n, -2, 2), act);
  std::vector<double> rstd;
  for (int64_t t = 0; t < s.rows; ++t)
    rstd.push_back(rstd_of(x.data() + t * s.width, static_cast<size_t>(s.width)));
  // With one column the gradient of x is almost nothing next to its terms, so that only its size can be asked
  // for.
  const double loose = s.width == 1 ? 1 : (act == dtype::bf16 ? 1e-2 : 1e-5);
  c.operands = {
      input("dy", act, {s.rows, s.width}, random.many(n), 3),
      input("x", act, {s.rows, s.width}, x, 1),
      input("gain", dtype::f32, {s.width}, random.many(s.width, 0.5, 1.5)),
      input("rstd", dtype::f32, {s.rows}, rstd),
      input("dresidual", act, {s.rows, s.width}, random.many(n), 5),
      output("dx", act, {s.rows, s.width}, with == residual::none ? loose : std::min(loose, 1e-2), 5),
      accumulated("dgain", dtype::f32, {s.width}, random.many(s.width), 1e-5)};
  if (with == residual::in_place)
    c.operands[5].alias_of = 4;
  c.run = [=](call& call) {
    rms_norm_backward_args a{call[0], call[1], call[2], call[3], call[4], call[5], call[6], {}};
    if (with == residual::none)
      a.dresidual = {};
    a.workspace = call.scratch(call.ops().rms_norm_backward_workspace(call.device(), a));
    return call.ops().rms_norm_backward(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    const auto gain = v[2];
    const auto dgain = numeric_gradient([&](const auto& g) { return norm_of(v[1], g); }, gain, v[0]);
    for (size_t i = 0; i < dgain.size(); ++i)
      v[6][i] += dgain[i];
    // Rows do not see each other, so each is differentiated alone.
    for (size_t first = 0; first < v[1].size(); first += gain.size()) {
      const auto row = [&](const std::vector<double>& m) {
        return std::vector<double>(m.begin() + static_cast<std::ptrdiff_t>(first),
                                   m.begin() + static_cast<std::ptrdiff_t>(first + gain.size()));
      };
      const auto dx =
          numeric_gradient([&](const auto& one) { return norm_of(one, gain); }, row(v[1]), row(v[0]));
      for (size_t i = 0; i < dx.size(); ++i)
        v[5][first + i] = dx[i] + (with == residual::none ? 0 : v[4][first + i]);
    }
  };
  return c;
}

} // namespace

void add_norm_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const matrix_shape& s : shapes)
      for (const residual with : {residual::none, residual::apart, residual::in_place}) {
        to.push_back(norm_case(s, act, with, random));
        to.push_back(norm_backward_case(s, act, with, random));
      }
}

} // namespace neuroshard::kernels::testing
