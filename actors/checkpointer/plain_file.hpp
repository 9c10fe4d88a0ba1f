#pragma once

#include "kernels/core/status.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace neuroshard {

/// A file descriptor with its owner. All functions block; they belong to detached actors and tools. Every
/// failure names the path.
class plain_file {
public:
  plain_file() noexcept = default;
  plain_file(plain_file&& other) noexcept;
  plain_file& operator=(plain_file&& other) noexcept;
  ~plain_file();

  /// A new file, mode 0600; `io` when it exists.
  static kernels::result<plain_file> create(const std::string& path);
  /// An existing regular file, never through a link. `corrupt` when it is missing or something else than a
  /// file, `io` when it may not be read.
  static kernels::result<plain_file> open(const std::string& path);

  /// A file that is read and appended to, made (mode 0600) when it is missing; never through a link.
  static kernels::result<plain_file> open_to_append(const std::string& path);

  explicit operator bool() const noexcept { return descriptor_ >= 0; }
  /// Appends all of `bytes`.
  kernels::status write(std::span<const std::byte> bytes);
  /// Fills `to` from `offset`; `corrupt` when the file ends before that or the disk cannot read it.
  kernels::status read(uint64_t offset, std::span<std::byte> to) const;
  kernels::result<uint64_t> size() const;
  /// Cuts the file off after so many bytes.
  kernels::status truncate(uint64_t bytes);
  /// Forces what was written to the disk, then closes.
  kernels::status sync_and_close();
  const std::string& path() const noexcept { return path_; }

private:
  plain_file(int descriptor, std::string path) noexcept : descriptor_(descriptor), path_(std::move(path)) {}
  int descriptor_ = -1;
  std::string path_;
};

/// Forces a directory's entries (names made, renamed, removed in it) to the disk.
kernels::status sync_directory(const std::string& path);
/// Makes a directory (mode 0700) and those above it.
kernels::status make_directories(const std::string& path);
/// A whole small file; `corrupt` when it is missing or longer than `bytes_max`.
kernels::result<std::string> read_small_file(const std::string& path, uint64_t bytes_max);
/// Moves directory `from` to `to` in one step of the file system; an existing `to` is exchanged and then
/// removed.
kernels::status replace_directory(const std::string& from, const std::string& to);
/// Removes a directory with everything in it; links are removed, never followed.
kernels::status remove_tree(const std::string& path);

} // namespace neuroshard
