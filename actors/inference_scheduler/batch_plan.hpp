#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace neuroshard {

/// What the next PREFILL call computes: positions of the first `rows` generations that wait, padded to
/// `length` positions each.
struct prefill_plan {
  size_t rows = 0;
  uint32_t length = 0;  ///< of the longest row
  bool is_last = false; ///< the rows' prompts end with this call, so that it samples their first tokens
};

/// `remaining[i]`: positions that generation i, in order of arrival, still has to prefill (at least 1). A
/// prompt longer than `positions_max` goes alone, chunk by chunk; shorter ones go together as long as rows x
/// longest fits and there is room for their rows.
prefill_plan plan_prefill(std::span<const uint32_t> remaining, size_t rows_max, uint32_t positions_max);

} // namespace neuroshard
