#pragma once

#include "actors/checkpointer/checkpoint_reader.hpp"
#include "actors/checkpointer/transfer_manifest.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace neuroshard {

/// What of a checkpoint is served.
struct served_part {
  std::vector<std::string> units; ///< empty: all that the checkpoint has, without the tokenizer
  bool optimizer = false;         ///< moments and all outer-loop state
  bool velocity = false;
};

/// A part of a checkpoint on disk as one stream without gaps: weights and state by unit, in hash order, then
/// the tokenizer. Blocks. Its files stay open, so it can be read when the checkpoint is pruned.
class checkpoint_source {
public:
  /// `invalid_argument`: the checkpoint has no such unit.
  static kernels::result<checkpoint_source> open(checkpoint_reader reader, const served_part& part);

  const checkpoint_manifest& manifest() const noexcept { return reader_.manifest(); }
  uint64_t total_bytes() const noexcept { return total_bytes_; }

  /// Reads the next piece and compares the checksum of each tensor that ends in it; true once all was read.
  /// `corrupt`: a stored tensor does not match.
  kernels::result<bool> verify_piece(std::span<std::byte> piece);
  /// The manifest of the stream, once all is verified.
  kernels::result<transfer_manifest> describe(const std::string& author_node_id, bool own_state) const;

  /// Bytes of the stream. Where a tensor has been read from its first byte to its last in order, its checksum
  /// is compared: `corrupt` when the disk has changed its mind.
  kernels::status read(uint64_t offset, std::span<std::byte> to);

private:
  struct piece_of_stream {
    std::string name;
    std::string file;
    uint64_t file_offset = 0;
    transfer_tensor entry;
  };
  /// How far a tensor was read in order.
  struct checking {
    size_t index = 0;
    uint64_t done = 0;
    kernels::sha256 hash;
  };
  explicit checkpoint_source(checkpoint_reader reader) : reader_(std::move(reader)) {}
  void add(const std::string& name, const tensor_record& record);
  void add_tokenizer();
  size_t index_at(uint64_t offset) const;
  kernels::status check_end(const checking& at) const;

  checkpoint_reader reader_;
  std::vector<piece_of_stream> pieces_;
  uint64_t total_bytes_ = 0;
  checking verified_;
  kernels::sha256 whole_;
  std::optional<kernels::digest> whole_hash_;
  std::optional<checking> reading_;
};

} // namespace neuroshard
