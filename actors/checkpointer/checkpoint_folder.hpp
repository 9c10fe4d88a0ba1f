#pragma once

#include "actors/checkpointer/checkpoint_manifest.hpp"
#include "actors/checkpointer/prune_plan.hpp"

#include <string>
#include <vector>

namespace neuroshard {

/// One directory that looks like a checkpoint by its name.
struct folder_entry {
  std::string id;
  uint64_t inner_step = 0;
  uint64_t line = 0; ///< `taken_over` of its state; the highest of all where it cannot be read
};

/// Directories of checkpoints in `folder`, the newest first: those since the weights of others were last
/// taken, then those before, each by inner step. A folder that is missing is empty. Reads their manifests.
std::vector<folder_entry> list_folder(const std::string& folder);
/// Removes directories that were still being written when a process ended; returns how many.
size_t remove_unfinished(const std::string& folder);
/// Renames a damaged checkpoint to `<id>.damaged` (with a number when that is taken); returns the new name.
kernels::result<std::string> set_aside(const std::string& folder, const std::string& id);
/// Removes checkpoints of this architecture and tokenizer (hash in hex) that the policy does not keep;
/// returns their ids. Others, which this node cannot use, and those whose manifest cannot be read, are left
/// alone and not counted. With `policy.storage_bytes` 0 the limit is 10 % of what the disk would have free
/// without them.
std::vector<std::string> prune_folder(const std::string& folder, const model::architecture& of,
                                      const std::string& tokenizer, prune_policy policy, int64_t now_unix_us);

} // namespace neuroshard
