#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <cmath>

namespace neuroshard::kernels::reference {

uint64_t rms_norm_backward_workspace(void*, const rms_norm_backward_args&) {
  return 0;
}

status rms_norm(void*, const rms_norm_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements x(a.x);
  const elements gain(a.gain);
  const elements out(a.out);
  const int64_t width = a.x.shape[1];
  // The norm reads the sum as it was rounded, so that the backward pass sees the same input.
  const elements input(a.residual ? a.sum : a.x);
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    if (a.residual)
      for (int64_t c = 0; c < width; ++c)
        input.set(t, c, x.get(t, c) + elements(a.residual).get(t, c));
    float squares = 0;
    for (int64_t c = 0; c < width; ++c)
      squares += input.get(t, c) * input.get(t, c);
    const float rstd = 1.0F / std::sqrt(squares / static_cast<float>(width) + a.eps);
    for (int64_t c = 0; c < width; ++c)
      out.set(t, c, input.get(t, c) * rstd * gain.get(c));
    if (a.rstd)
      a.rstd.as<float>()[t] = rstd;
  }
  return {};
}

// spec/model.md, section 2: dx = r (u g) - x r^3 mean(u g x), dg = sum over rows of u x r.
status rms_norm_backward(void*, const rms_norm_backward_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  const elements dy(a.dy);
  const elements x(a.x);
  const elements gain(a.gain);
  const elements dx(a.dx);
  float* dgain = a.dgain.as<float>();
  const int64_t width = a.x.shape[1];
  for (int64_t t = 0; t < a.x.shape[0]; ++t) {
    const float r = a.rstd.as<float>()[t];
    float mean = 0;
    for (int64_t c = 0; c < width; ++c)
      mean += dy.get(t, c) * gain.get(c) * x.get(t, c);
    mean /= static_cast<float>(width);
    for (int64_t c = 0; c < width; ++c) {
      dgain[c] += dy.get(t, c) * x.get(t, c) * r;
      const float gradient = r * (dy.get(t, c) * gain.get(c)) - x.get(t, c) * r * r * r * mean;
      dx.set(t, c, a.dresidual ? gradient + elements(a.dresidual).get(t, c) : gradient);
    }
  }
  return {};
}

} // namespace neuroshard::kernels::reference
