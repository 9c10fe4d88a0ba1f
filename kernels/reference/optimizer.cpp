#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace neuroshard::kernels::reference {

namespace {

/// 1 / (1 - beta^t), which undoes the bias of moments that started at 0.
float bias_correction(float beta, uint64_t t) noexcept {
  return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(t))));
}

} // namespace

uint64_t grad_norm_workspace(void*, const grad_norm_args&) {
  return 0;
}

status adamw(void*, const adamw_args& a) {
  NEUROSHARD_TRY(check(a));
  const float clip = *a.clip.as<float>();
  const float first_correction = bias_correction(a.beta1, a.t);
  const float second_correction = bias_correction(a.beta2, a.t);
  for (const adamw_item& item : a.items) {
    float* w = item.weight.as<float>();
    float* gradient = item.gradient.as<float>();
    float* m = item.first_moment.as<float>();
    float* v = item.second_moment.as<float>();
    for (int64_t i = 0; std::isfinite(clip) && i < item.weight.elements(); ++i) {
      const float g = clip * gradient[i];
      m[i] = a.beta1 * m[i] + (1.0F - a.beta1) * g;
      v[i] = a.beta2 * v[i] + (1.0F - a.beta2) * g * g;
      const float step = m[i] * first_correction / (std::sqrt(v[i] * second_correction) + a.eps);
      w[i] -= a.learning_rate * (step + item.weight_decay * w[i]);
    }
    if (a.zero_gradient)
      std::fill_n(gradient, item.weight.elements(), 0.0F);
  }
  return {};
}

status grad_norm(void*, const grad_norm_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  double sum = 0;
  for (const tensor& gradient : a.gradients)
    for (int64_t i = 0; i < gradient.elements(); ++i) {
      const double g = gradient.as<float>()[i];
      sum += g * g;
    }
  *a.sum_sq.as<double>() += sum;
  return {};
}

status clip_factor(void*, const clip_factor_args& a) {
  NEUROSHARD_TRY(check(a));
  const double sum = *a.sum_sq.as<double>();
  float& factor = *a.factor.as<float>();
  if (!std::isfinite(sum))
    factor = std::numeric_limits<float>::quiet_NaN();
  else
    factor =
        sum == 0 ? 1.0F : static_cast<float>(std::min(1.0, static_cast<double>(a.norm_max) / std::sqrt(sum)));
  return {};
}

} // namespace neuroshard::kernels::reference
