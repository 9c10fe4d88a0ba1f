#include "actors/inference_scheduler/batch_plan.hpp"

#include <algorithm>

namespace neuroshard {

prefill_plan plan_prefill(std::span<const uint32_t> remaining, size_t rows_max, uint32_t positions_max) {
  if (remaining.empty() || rows_max == 0)
    return {};
  if (remaining.front() > positions_max)
    return {1, positions_max, false};
  prefill_plan plan{1, remaining.front(), true};
  while (plan.rows < std::min(rows_max, remaining.size())) {
    const uint32_t length = std::max(plan.length, remaining[plan.rows]);
    if ((plan.rows + 1) * uint64_t{length} > positions_max)
      break;
    plan.length = length;
    ++plan.rows;
  }
  return plan;
}

} // namespace neuroshard
