#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace neuroshard::kernels::reference {

uint64_t cross_entropy_workspace(void*, const cross_entropy_args&) {
  return 0;
}

status cross_entropy(void*, const cross_entropy_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  const elements logits(a.logits);
  double& loss_sum = *a.loss_sum.as<double>();
  for (int64_t t = 0; t < a.logits.shape[0]; ++t) {
    const int64_t label = index_at(a.labels, t);
    const bool counted = label >= 0 && label < a.valid_vocab;
    float largest = -std::numeric_limits<float>::infinity();
    float total = 0;
    if (counted) {
      for (int64_t c = 0; c < a.valid_vocab; ++c)
        largest = std::max(largest, logits.get(t, c));
      for (int64_t c = 0; c < a.valid_vocab; ++c)
        total += std::exp(logits.get(t, c) - largest);
      const float logsumexp = largest + std::log(total);
      loss_sum += static_cast<double>(logsumexp - logits.get(t, label));
    }
    if (a.loss_only)
      continue;
    for (int64_t c = 0; c < a.logits.shape[1]; ++c) {
      const bool part = counted && c < a.valid_vocab;
      const float probability = part ? std::exp(logits.get(t, c) - largest) / total : 0.0F;
      logits.set(t, c, part ? (probability - (c == label ? 1.0F : 0.0F)) * a.scale : 0.0F);
    }
  }
  return {};
}

} // namespace neuroshard::kernels::reference
