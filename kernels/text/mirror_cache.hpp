#pragma once

#include "kernels/text/shards.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// Files of a mirror's cache, and what is held out of a mirror.
namespace neuroshard::text {

/// Which shards are trained on and what is held out (spec/training.md section 9).
struct held_out_plan {
  std::vector<shard_entry> training; ///< ascending ids
  std::optional<shard_entry> whole;  ///< a file that is held out; none: the tail of each training shard
  std::string file;                  ///< its name on the mirror and in the cache
};
held_out_plan plan_held_out(const shard_manifest& manifest);

/// The held-out tail of a shard that may not be here itself: `tail_<id>.bin` holds the SHA-256 of the shard,
/// that of the tail, and the tail's tokens.
std::string tail_file_name(uint64_t id);
uint64_t tail_file_bytes(uint64_t tokens);
kernels::status save_tail(const std::string& directory, const shard_entry& of,
                          std::span<const token_id> tail);
/// `corrupt` when the file is not that of this shard with this many tokens.
kernels::result<std::shared_ptr<const mapped_file>>
load_tail(const std::string& directory, const shard_entry& of, uint64_t tokens, uint32_t vocab_size);
std::span<const token_id> tail_of(const mapped_file& tail);

/// Makes the directory; removes shards, tails and parts of them that are not wanted, and the manifest of a
/// local corpus, whose shards are among them. Other files stay. Returns which of the wanted are here.
kernels::result<std::vector<std::string>> clean_cache(const std::string& directory,
                                                      const std::vector<std::string>& wanted);
/// It does not matter whether it was there.
void remove_file(const std::string& path);

} // namespace neuroshard::text
