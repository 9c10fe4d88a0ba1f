#pragma once

#include "kernels/core/status.hpp"
#include "kernels/text/tokenizer.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace neuroshard::text {

/// A run of tokens that may lie in several pieces of mapped files, read as one. Does not own the memory.
class token_view {
public:
  void append(std::span<const token_id> piece);
  uint64_t size() const noexcept { return size_; }
  /// Copies out.size() tokens from position `from`. Precondition: from + out.size() <= size().
  void copy(uint64_t from, std::span<token_id> out) const noexcept;

private:
  std::vector<std::span<const token_id>> pieces_;
  uint64_t size_ = 0;
};

/// The training tokens of one shard. They stay where they are for as long as the lease is held.
struct shard_lease {
  std::span<const token_id> tokens;
  std::shared_ptr<const void> owner;
};

enum class shard_presence : uint8_t {
  here,    ///< can be read now
  coming,  ///< is fetched, or will be
  failing, ///< was tried several times; it is tried again, but nobody should wait for it
};

/// Where a data loader takes shards from: a directory (`shard_set`), or a mirror of which some shards are
/// here at a time (`shard_mirror`). Which shards there are and how long they are is known from the beginning
/// and never changes. No call blocks on anything but a short lock; any thread may call.
class shard_source {
public:
  virtual ~shard_source() = default;

  /// A directory or a URL, for messages.
  virtual const std::string& name() const noexcept = 0;
  /// Ids that may be assigned and drawn, ascending. A place is an index into it.
  virtual std::span<const uint64_t> training_ids() const noexcept = 0;
  /// Tokens of a shard that may be drawn; what is held out is not among them.
  virtual uint64_t training_size(size_t place) const noexcept = 0;
  /// Bytes of the largest shard file.
  virtual uint64_t shard_bytes_max() const noexcept = 0;
  /// `unavailable`, with the reason, as long as the shard is not here.
  virtual kernels::result<shard_lease> lease(size_t place) const = 0;
  virtual shard_presence presence(size_t) const { return shard_presence::here; }
  /// Tells which shard is in use: it stays here, and those after it (in the order of places, the first after
  /// the last) are fetched as room allows.
  virtual void expect(size_t) const {}
  /// How many shards can be here at once.
  virtual size_t room() const noexcept { return training_ids().size(); }
  /// Held-out tokens, empty as long as they are not here. Valid for as long as the source lives.
  virtual token_view held_out() const = 0;

protected:
  shard_source() = default;
  shard_source(const shard_source&) = default;
  shard_source(shard_source&&) = default;
  shard_source& operator=(const shard_source&) = default;
  shard_source& operator=(shard_source&&) = default;
};

} // namespace neuroshard::text
