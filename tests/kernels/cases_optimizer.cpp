#include "tests/kernels/op_cases.hpp"

#include <cmath>
#include <limits>

// AdamW over several tensors at once, the norm of their gradients, and the factor that clips them.
namespace neuroshard::kernels::testing {

namespace {

const std::vector<int64_t> lengths{1, 7, 64, 1000, 0};

op_case adamw_case(uint64_t step, double clip, bool zero_gradient, numbers& random) {
  op_case c;
  c.name = "adamw t" + std::to_string(step) + " clip " + std::to_string(clip) +
           (zero_gradient ? "" : " keeps gradients");
  c.operands = {input("clip", dtype::f32, {1}, {clip})};
  std::vector<float> decay;
  for (const int64_t n : lengths) {
    decay.push_back(decay.size() % 2 == 0 ? 0.1F : 0.0F);
    c.operands.push_back(accumulated("weight", dtype::f32, {n}, random.many(n), 1e-6));
    c.operands.push_back(accumulated("gradient", dtype::f32, {n}, random.many(n), 0));
    c.operands.push_back(accumulated("first_moment", dtype::f32, {n}, random.many(n, -0.1, 0.1), 1e-6));
    c.operands.push_back(accumulated("second_moment", dtype::f32, {n}, random.many(n, 0, 0.01), 1e-6));
  }
  constexpr float rate = 0.01F;
  constexpr float beta1 = 0.9F;
  constexpr float beta2 = 0.95F;
  constexpr float eps = 1e-8F;
  c.run = [=](call& call) {
    std::vector<adamw_item> items;
    for (size_t i = 0; i < decay.size(); ++i)
      items.push_back({call[4 * i + 1], call[4 * i + 2], call[4 * i + 3], call[4 * i + 4], decay[i]});
    return call.ops().adamw(call.on.impl(), {items, call[0], rate, beta1, beta2, eps, step, zero_gradient});
  };
  c.oracle = [=](values& v) {
    for (size_t i = 0; i < decay.size(); ++i)
      for (size_t j = 0; j < v[4 * i + 1].size(); ++j) {
        double& w = v[4 * i + 1][j];
        double& m = v[4 * i + 3][j];
        double& s = v[4 * i + 4][j];
        const double g = v[0][0] * v[4 * i + 2][j];
        if (zero_gradient)
          v[4 * i + 2][j] = 0;
        if (!std::isfinite(v[0][0]))
          continue;
        m = double{beta1} * m + (1 - double{beta1}) * g;
        s = double{beta2} * s + (1 - double{beta2}) * g * g;
        const double t = static_cast<double>(step);
        w -= double{rate} * (m / (1 - std::pow(double{beta1}, t)) /
                                 (std::sqrt(s / (1 - std::pow(double{beta2}, t))) + double{eps}) +
                             double{decay[i]} * w);
      }
  };
  return c;
}

op_case grad_norm_case(double spoil, numbers& random) {
  op_case c;
  c.name = "grad_norm " + std::to_string(spoil);
  c.operands = {accumulated("sum_sq", dtype::f64, {1}, {0.25}, 1e-12)};
  for (const int64_t n : lengths)
    c.operands.push_back(input("gradient", dtype::f32, {n}, random.many(n, -3, 3)));
  if (spoil != 0)
    c.operands[3].values[5] = spoil;
  c.run = [](call& call) {
    const std::vector<tensor> gradients(call.operands.begin() + 1, call.operands.end());
    grad_norm_args a{gradients, call[0], {}};
    a.workspace = call.scratch(call.ops().grad_norm_workspace(call.device(), a));
    return call.ops().grad_norm(call.on.impl(), a);
  };
  c.oracle = [](values& v) {
    for (size_t i = 1; i < v.size(); ++i)
      for (const double g : v[i])
        v[0][0] += g * g;
  };
  return c;
}

op_case clip_factor_case(double sum_sq, double factor) {
  op_case c;
  c.name = "clip_factor of " + std::to_string(sum_sq);
  c.operands = {input("sum_sq", dtype::f64, {1}, {sum_sq}), output("factor", dtype::f32, {1}, 1e-6)};
  c.run = [](call& call) { return call.ops().clip_factor(call.on.impl(), {call[0], 1.0F, call[1]}); };
  c.oracle = [=](values& v) { v[1][0] = factor; };
  return c;
}

} // namespace

void add_optimizer_cases(std::vector<op_case>& to, uint64_t seed) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double infinity = std::numeric_limits<double>::infinity();
  numbers random(seed);
  for (const uint64_t step : {uint64_t{1}, uint64_t{2}, uint64_t{1000}, uint64_t{1} << 40})
    to.push_back(adamw_case(step, 0.5, true, random));
  to.push_back(adamw_case(3, 1, false, random));
  to.push_back(adamw_case(3, nan, true, random));
  to.push_back(adamw_case(3, infinity, false, random));
  to.push_back(grad_norm_case(0, random));
  to.push_back(grad_norm_case(nan, random));
  to.push_back(grad_norm_case(-infinity, random));
  for (const auto& [sum, factor] : {std::pair{0.0, 1.0}, std::pair{0.25, 1.0}, std::pair{16.0, 0.25},
                                    std::pair{1e-30, 1.0}, std::pair{nan, nan}, std::pair{infinity, nan}})
    to.push_back(clip_factor_case(sum, factor));
}

} // namespace neuroshard::kernels::testing
