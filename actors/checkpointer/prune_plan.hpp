#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard {

/// A checkpoint as the rules of pruning see it.
struct stored_checkpoint {
  std::string id;
  uint64_t inner_step = 0;
  int64_t unix_us = 0;
  uint64_t bytes = 0;
  bool at_outer_step = false; ///< made where a round ended
};

struct prune_policy {
  uint32_t keep = 5;          ///< newest ones
  uint32_t hours = 3;         ///< and the newest of each of so many clock hours
  uint64_t storage_bytes = 0; ///< fewer are kept when over; 0: no limit
};

/// Names of the checkpoints to remove, oldest first (spec training.md section 11). `newest_first` is in the
/// order of list_folder. The newest and the newest of an outer step always stay, the one
/// of the outer step before while there is room.
std::vector<std::string> plan_pruning(const std::vector<stored_checkpoint>& newest_first,
                                      const prune_policy& policy, int64_t now_unix_us);

} // namespace neuroshard
