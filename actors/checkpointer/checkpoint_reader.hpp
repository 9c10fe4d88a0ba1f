#pragma once

#include "actors/checkpointer/checkpoint_manifest.hpp"
#include "actors/checkpointer/plain_file.hpp"

#include <map>
#include <span>
#include <string>

namespace neuroshard {

/// One checkpoint on disk, taken as hostile input: every length is checked before anything is allocated or
/// read by it. Blocks. Errors: `corrupt` damaged, cut short or not what its name says; `unsupported` of a
/// later format; `io` the system refuses.
class checkpoint_reader {
public:
  /// Reads and checks the manifest, the directory's name and the lengths of all files; no tensor yet.
  static kernels::result<checkpoint_reader> open(const std::string& directory);

  const checkpoint_manifest& manifest() const noexcept { return manifest_; }
  const std::string& directory() const noexcept { return directory_; }
  /// Bytes of all files, the manifest's too.
  uint64_t bytes() const noexcept { return bytes_; }

  /// Reads every byte once, a piece at a time, and compares all checksums; the gaps between tensors must be
  /// zero.
  kernels::status verify() const;
  /// Reads one tensor and compares its checksum. `to` has `tensor.length` bytes.
  kernels::status read(const tensor_record& tensor, std::span<std::byte> to) const;
  /// Bytes of one of the files as they lie there; nothing is compared. They stay readable when the directory
  /// is renamed or removed.
  kernels::status read_bytes(const std::string& file, uint64_t offset, std::span<std::byte> to) const;

private:
  checkpoint_reader() = default;
  kernels::status verify_tensor(const tensor_record& tensor, uint64_t gap_from,
                                std::span<std::byte> piece) const;
  std::string directory_;
  checkpoint_manifest manifest_;
  std::map<std::string, plain_file> files_;
  uint64_t bytes_ = 0;
};

} // namespace neuroshard
