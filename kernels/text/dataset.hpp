#pragma once

#include "kernels/core/status.hpp"
#include "kernels/text/progress.hpp"
#include "kernels/text/shards.hpp"
#include "kernels/text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::text {

/// What a node knows at its start (`[data]` of spec/network.md section 9).
struct dataset_options {
  std::string corpus;          ///< text file or directory; used when `shards` is empty
  std::string shards;          ///< directory of ready-made shards
  std::string cache_directory; ///< `data_cache` in the data directory: where shards made here are kept
  std::string tokenizer_path;  ///< read when it exists, else learned from the corpus and written
  uint32_t vocab_size = 0;     ///< where learning stops, and the most that a tokenizer may have
  double held_out = 0.05;
  uint64_t storage_bytes_max = 100'000'000;
};

/// A tokenizer and its shards, ready to draw from.
struct dataset {
  tokenizer tokens;
  std::shared_ptr<const shard_set> shards;
  bool tokenizer_learned = false;    ///< made now, not loaded
  bool shards_built = false;         ///< made now, not found in the cache
  std::vector<std::string> warnings; ///< one line each, for the log
};

/// Loads or learns the tokenizer, and reuses or builds the shards. Blocks for as long as that takes (seconds
/// for the default corpus); runs in the caller's thread. Phases: "count-words", "learn-merges", "tokenize",
/// "write-shards", "check-shards". A damaged shard made here is built again, a damaged ready-made one is left
/// out, both with a warning. Errors are one line that names the file or the key: `io` missing or unreadable,
/// `corrupt` damaged, `invalid_argument` too small or not fitting together, `unavailable` cancelled.
kernels::result<dataset> prepare_dataset(const dataset_options& how, const progress& watch = {});

} // namespace neuroshard::text
