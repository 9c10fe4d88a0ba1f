#pragma once

#include "kernels/text/fetch.hpp"
#include "kernels/text/shards.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

/// What is read from a mirror, one file at a time, each within a size that is known before.
namespace neuroshard::text {

/// A URL for messages: without the user and password it may hold.
std::string shown_url(const std::string& url);

/// A whole small file. `corrupt` when it has more than `bytes_max` bytes, else what the fetcher says.
kernels::result<std::string> fetch_text(fetcher& from, const std::string& url, uint64_t bytes_max,
                                        const std::function<bool()>& cancelled);

/// Fetches a shard to `path`: into `<path>.part`, from where an earlier try broke off, then checks size,
/// SHA-256 and ids, syncs and renames it. `corrupt` when the mirror's file is not that of the manifest: what
/// was fetched is thrown away; `io` when it cannot be written; `unavailable` when there was a break: what is
/// here stays for the next try.
kernels::result<std::shared_ptr<const mapped_file>> fetch_shard(fetcher& from, const std::string& url,
                                                                const std::string& path,
                                                                const shard_entry& entry, uint32_t vocab_size,
                                                                const std::function<bool()>& cancelled);

/// Reads a whole shard, checks its SHA-256 and keeps only its last `tail` tokens, in memory. Errors as above.
kernels::result<std::vector<token_id>> fetch_tail(fetcher& from, const std::string& url,
                                                  const shard_entry& entry, uint64_t tail,
                                                  uint32_t vocab_size,
                                                  const std::function<bool()>& cancelled);

/// How long until the next try: doubling from `first` to `most`.
struct retry_delays {
  std::chrono::milliseconds first{1000};
  std::chrono::milliseconds most{60'000};
  std::chrono::milliseconds after(uint32_t failures) const noexcept;
};

} // namespace neuroshard::text
