#pragma once

#include "kernels/text/progress.hpp"
#include "kernels/text/shards.hpp"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace neuroshard::text {

/// Makes a directory of shards out of tokenized documents: they are first spooled to one temporary file,
/// then, when their number is known, split into held-out file and shards. Each file is written to a temporary
/// name, synced and renamed, the manifest last, so that a directory with a manifest is complete. Not
/// thread-safe.
///
/// Training documents are shuffled by a permutation that depends on their number alone: the sources of a
/// corpus follow one another in it, and a node that reads shard after shard must not meet them one by one.
class shard_writer {
public:
  struct options {
    std::string directory;            ///< made if missing; older shards in it are removed by `finish`
    double held_out = 0.05;           ///< share of the tokens, (0, 0.5]
    uint64_t tokens_max = UINT64_MAX; ///< what `add` takes in all, EOS included
    std::string tokenizer_hash;
    std::string corpus_fingerprint;
  };

  static kernels::result<shard_writer> make(options how);
  shard_writer(shard_writer&&) noexcept;
  shard_writer& operator=(shard_writer&&) noexcept;
  ~shard_writer(); ///< removes the temporary file

  /// Adds a document and an EOS after it. False when tokens_max is reached: then the document was cut to the
  /// room there was, or left out, and so are all further ones.
  kernels::result<bool> add(std::span<const token_id> document, std::string_view source);
  uint64_t tokens() const noexcept;

  /// Splits, writes and returns the manifest. `invalid_argument` when there are fewer than 4 tokens in all.
  kernels::result<shard_manifest> finish(uint64_t bytes_left_out = 0, const progress& watch = {});

private:
  struct state;
  explicit shard_writer(std::unique_ptr<state> held);
  std::unique_ptr<state> state_;
};

} // namespace neuroshard::text
