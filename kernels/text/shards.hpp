#pragma once

#include "kernels/core/status.hpp"
#include "kernels/text/files.hpp"
#include "kernels/text/progress.hpp"
#include "kernels/text/shard_source.hpp"
#include "kernels/text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::text {

inline constexpr uint64_t shard_tokens_full = 2'500'000;
inline constexpr uint32_t shard_format_version = 1;
inline constexpr uint64_t manifest_bytes_max = uint64_t{64} << 20;
inline constexpr uint32_t shards_min = 8; ///< training shards that a local corpus is cut into at least
/// With fewer shards, and no held-out file, the tail of each shard is held out instead of the last shard.
inline constexpr uint32_t mirror_shards_for_holdout = 20;

/// One line of the manifest.
struct shard_entry {
  uint64_t id = 0;
  uint64_t tokens = 0;
  std::string sha256; ///< 64 lower-case hex digits, of the file
  std::string source; ///< where the text came from, for people
};

/// `manifest.json` of a directory of shards.
struct shard_manifest {
  uint32_t format_version = shard_format_version;
  uint64_t total_tokens = 0;          ///< of the training shards
  std::vector<shard_entry> shards;    ///< ascending ids
  std::string tokenizer_hash;         ///< 64 hex
  std::optional<shard_entry> heldout; ///< `heldout.bin`: only where the shards were made from a local corpus
  std::string corpus_fingerprint;     ///< 64 hex, or empty: as `heldout`
  uint64_t documents = 0;             ///< documents in the shards and the held-out file, 0 = unknown
  double held_out_share = 0;          ///< what the split was asked for, 0 = unknown
  uint64_t bytes_left_out = 0;        ///< corpus bytes that the storage limit left no room for

  std::string to_json() const;
  /// Hostile input: `corrupt`, with `name` in front of the message.
  static kernels::result<shard_manifest> parse(std::string_view json, std::string_view name);
};

/// `shard_<id>.bin`.
std::string shard_file_name(uint64_t id);

/// Maps a shard's file and checks it against its line of the manifest: `io` when it cannot be read, `corrupt`
/// (naming the file) when size, checksum or an id (at or above `vocab_size`) is wrong.
kernels::result<std::shared_ptr<const mapped_file>> map_shard(const std::string& path,
                                                              const shard_entry& entry, uint32_t vocab_size);
/// All tokens of a mapped shard.
std::span<const token_id> tokens_of(const mapped_file& shard);
/// How many of a shard's tokens are held out where its tail is.
uint64_t tail_tokens(uint64_t tokens, double held_out);

/// The shards of a directory, mapped into memory read-only. Immutable after `open`; any thread may read.
class shard_set final : public shard_source {
public:
  struct options {
    uint32_t vocab_size = vocab_size_max; ///< ids at or above it make a shard corrupt
    std::string tokenizer_hash =
        {};                 ///< 64 hex; another one in the manifest is `invalid_argument`; empty = any
    double held_out = 0.05; ///< share held out where there is no held-out file
    bool leave_out_corrupt =
        false; ///< go on without damaged shards (each gives a warning) instead of failing
    const progress* watch = nullptr; ///< reports "check-shards"
  };

  /// Reads the manifest and checks size, checksum and ids of every file. `io` when the directory or the
  /// manifest is missing, `corrupt` (naming the file) when something does not match.
  static kernels::result<shard_set> open(const std::string& directory, const options& how);

  /// Ids that may be assigned and drawn, ascending.
  std::span<const uint64_t> training_ids() const noexcept override { return training_ids_; }
  /// The training tokens of shard training_ids()[place]; what is held out is not in it.
  std::span<const token_id> training_tokens(size_t place) const noexcept { return training_[place]; }
  const token_view& heldout() const noexcept { return heldout_; }
  const shard_manifest& manifest() const noexcept { return manifest_; }
  const std::string& directory() const noexcept { return directory_; }
  const std::string& name() const noexcept override { return directory_; }
  uint64_t training_size(size_t place) const noexcept override { return training_[place].size(); }
  /// Never fails: every shard is here. The set owns the tokens, so the lease needs the set to live.
  kernels::result<shard_lease> lease(size_t place) const override {
    return shard_lease{training_[place], {}};
  }
  token_view held_out() const override { return heldout_; }
  uint64_t training_tokens_total() const noexcept;
  uint64_t shard_bytes_max() const noexcept override;
  /// One line for each shard left out.
  const std::vector<std::string>& warnings() const noexcept { return warnings_; }

private:
  std::string directory_;
  shard_manifest manifest_;
  std::vector<std::shared_ptr<const void>> mappings_; ///< keep the pages that the spans below point to
  std::vector<uint64_t> training_ids_;
  std::vector<std::span<const token_id>> training_;
  token_view heldout_;
  std::vector<std::string> warnings_;
};

} // namespace neuroshard::text
