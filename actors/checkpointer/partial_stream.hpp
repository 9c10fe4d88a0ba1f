#pragma once

#include "actors/checkpointer/plain_file.hpp"
#include "actors/checkpointer/transfer_manifest.hpp"

#include <caf/expected.hpp>

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace neuroshard {

/// A stream of another node on its way to the disk: directory `<sha256 of the stream>.part` with the bytes,
/// the checksums of the chunks they came in, and the manifest. It goes on at its last good chunk after a
/// break of the connection, of the process or of the machine, and with bytes of another node whose stream is
/// the same. Blocks.
class partial_stream {
public:
  /// Opens or makes one; of what is there, chunks that match their checksum count. Precondition: the manifest
  /// has passed check().
  static kernels::result<partial_stream> open(const std::string& folder, const signed_blob& blob,
                                              transfer_manifest manifest);

  const transfer_manifest& manifest() const noexcept { return manifest_; }
  uint64_t received() const noexcept { return received_; }
  bool complete() const noexcept { return received_ == manifest_.total_bytes; }
  const std::string& directory() const noexcept { return directory_; }

  /// Appends a chunk. Refusals: invalid_request with reason `chunk` (not where it belongs, too long, not its
  /// checksum); data_loss `tensor` when a tensor that is complete now does not match the manifest: then what
  /// came of it is forgotten; storage.
  caf::error append(uint64_t offset, std::string_view data, const kernels::digest& sha256);
  /// Forces everything to the disk and gives the directory its final name, `<...>.ready`. data_loss when the
  /// whole does not match: then nothing of it is left.
  caf::expected<std::string> finish();

private:
  partial_stream() = default;
  kernels::status load();
  /// Hashes bytes that are on the disk already; false when a tensor that ends in them is wrong, then
  /// `good_bytes` is where it begins.
  bool count(std::string_view data, uint64_t& good_bytes);
  kernels::status cut(uint64_t bytes);

  std::string directory_;
  transfer_manifest manifest_;
  plain_file data_;
  plain_file chunks_;
  uint64_t received_ = 0;
  kernels::sha256 whole_;
  kernels::sha256 tensor_;
  size_t tensor_index_ = 0;
};

/// A stream that is here whole, and whose every checksum was compared when it came.
class stored_stream {
public:
  /// Reads the manifest anew. `corrupt` when it is damaged, or the length is not what it says.
  static kernels::result<stored_stream> open(const std::string& directory);

  const signed_blob& blob() const noexcept { return blob_; }
  const transfer_manifest& manifest() const noexcept { return manifest_; }
  const std::string& directory() const noexcept { return directory_; }
  const transfer_tensor* find(std::string_view name) const;
  /// Reads one tensor and compares its checksum. `to` has `tensor.length` bytes.
  kernels::status read(const transfer_tensor& tensor, std::span<std::byte> to) const;

private:
  stored_stream() = default;
  std::string directory_;
  signed_blob blob_;
  transfer_manifest manifest_;
  plain_file data_;
};

inline constexpr std::string_view partial_suffix = ".part";
inline constexpr std::string_view ready_suffix = ".ready";

/// The directory of a stream that is here whole, or would be.
std::string ready_directory(const std::string& folder, const transfer_manifest& manifest);

/// Directories of streams in the folder, of one of the two suffixes, oldest first; with the bytes they have.
struct stream_directory {
  std::string path;
  uint64_t bytes = 0;
  int64_t written_unix_us = 0;
};
std::vector<stream_directory> list_streams(const std::string& folder, std::string_view suffix);

} // namespace neuroshard
