#pragma once

#include "kernels/core/status.hpp"
#include "kernels/text/fetch.hpp"
#include "kernels/text/mirror_fetch.hpp"
#include "kernels/text/progress.hpp"
#include "kernels/text/shards.hpp"
#include "kernels/text/tokenizer.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::text {

/// What a node knows at its start (`[data]` of spec/network.md section 9).
struct dataset_options {
  std::string corpus;          ///< text file or directory; used when `shards` is empty
  std::string shards;          ///< directory of ready-made shards, or the URL of a mirror
  std::string cache_directory; ///< `data_cache` in the data directory: where shards made here are kept
  std::string tokenizer_path;  ///< read when it exists, else learned from the corpus and written
  uint32_t vocab_size = 0;     ///< where learning stops, and the most that a tokenizer may have
  double held_out = 0.05;
  uint64_t storage_bytes_max = 100'000'000;
  std::shared_ptr<fetcher> mirror; ///< what reads a URL; without one a URL is `unsupported`
  retry_delays delays;             ///< between tries of a mirror
  /// One line about a mirror that fails, or works again; also from a thread of its own for as long as the
  /// dataset lives. Must not block. May be empty.
  std::function<void(const std::string& line)> tell;
};

/// A tokenizer and its shards, ready to draw from.
struct dataset {
  tokenizer tokens;
  std::shared_ptr<const shard_source> source; ///< to draw from
  std::shared_ptr<const shard_set> shards;    ///< the same, where it is a directory
  bool tokenizer_learned = false;             ///< made now, not loaded
  bool shards_built = false;                  ///< made now, not found in the cache
  std::vector<std::string> warnings;          ///< one line each, for the log
};

/// Loads or learns the tokenizer, and reuses or builds the shards. Blocks for as long as that takes (seconds
/// for the default corpus); runs in the caller's thread. Phases: "count-words", "learn-merges", "tokenize",
/// "write-shards", "check-shards", "fetch-manifest", "fetch-tokenizer". Of a mirror, manifest and tokenizer
/// are fetched here, for as long as it takes (`tell` says why it does; with the manifest of an earlier start
/// it goes on at once); its shards follow in the background, and `watch.cancel` must outlive the dataset. A
/// damaged shard made here is built again, a damaged ready-made one is left out, both with a warning. Errors
/// are one line that names the file or the key: `io` missing or unreadable, `corrupt` damaged,
/// `invalid_argument` too small or not fitting together, `unavailable` cancelled.
kernels::result<dataset> prepare_dataset(const dataset_options& how, const progress& watch = {});

} // namespace neuroshard::text
