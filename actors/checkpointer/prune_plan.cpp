#include "actors/checkpointer/prune_plan.hpp"

#include <algorithm>
#include <set>

namespace neuroshard {

namespace {

constexpr int64_t hour_us = 3'600'000'000;

} // namespace

std::vector<std::string> plan_pruning(const std::vector<stored_checkpoint>& newest_first,
                                      const prune_policy& policy, int64_t now_unix_us) {
  const size_t count = newest_first.size();
  std::vector<bool> stays(count, false);
  std::vector<bool> always(count, false);
  const int64_t hour_now = now_unix_us / hour_us;
  std::set<int64_t> hours_seen;
  for (size_t i = 0; i < count; ++i) {
    const int64_t hour = newest_first[i].unix_us / hour_us;
    const bool in_hours = hour <= hour_now && hour_now - hour <= static_cast<int64_t>(policy.hours);
    stays[i] = i < policy.keep || (in_hours && hour != hour_now && !hours_seen.contains(hour));
    hours_seen.insert(hour);
  }
  if (count > 0)
    always[0] = true;
  // The one before the last is what nodes ask for whose records of this one are late.
  size_t outer_seen = 0;
  for (size_t i = 0; i < count && outer_seen < 2; ++i)
    if (newest_first[i].at_outer_step)
      (outer_seen++ == 0 ? always : stays)[i] = true;
  uint64_t bytes = 0;
  for (size_t i = 0; i < count; ++i)
    if (stays[i] || always[i])
      bytes += newest_first[i].bytes;
  for (size_t i = count; i-- > 0 && policy.storage_bytes != 0 && bytes > policy.storage_bytes;) {
    if (!stays[i] || always[i])
      continue;
    stays[i] = false;
    bytes -= newest_first[i].bytes;
  }
  std::vector<std::string> removed;
  for (size_t i = count; i-- > 0;)
    if (!stays[i] && !always[i])
      removed.push_back(newest_first[i].id);
  return removed;
}

} // namespace neuroshard
