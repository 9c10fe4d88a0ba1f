#include "kernels/core/check.hpp"
#include "kernels/core/sampling.hpp"
#include "kernels/reference/reference.hpp"

namespace neuroshard::kernels::reference {

uint64_t sample_workspace(void*, const sample_args& a) {
  return static_cast<uint64_t>(a.logits.shape[1]) * sizeof(candidate);
}

status sample(void* queue, const sample_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = sample_workspace(queue, a)}));
  const auto columns = static_cast<size_t>(a.logits.shape[1]);
  for (int64_t t = 0; t < a.logits.shape[0]; ++t) {
    const float* row = a.logits.as<float>() + t * a.logits.stride[0];
    const sampled drawn =
        sample_row(std::span(row, columns), a.params[static_cast<size_t>(t)],
                   std::span(a.workspace.as<candidate>(), columns), static_cast<bool>(a.logprobs));
    a.ids.as<int32_t>()[t] = drawn.id;
    if (a.logprobs)
      a.logprobs.as<float>()[t] = drawn.logprob;
  }
  return {};
}

} // namespace neuroshard::kernels::reference
