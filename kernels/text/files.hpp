#pragma once

#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

/// The file operations that tokenizer and shards need. Errors are `io` with the path and the system's reason.
namespace neuroshard::text {

/// `<path>: <what>: <reason of errno>`.
kernels::status file_error(const std::string& path, std::string_view what, int error_number);

/// A whole regular file; `invalid_argument` when it is larger than `bytes_max`.
kernels::result<std::string> read_file(const std::string& path, uint64_t bytes_max);

/// A regular file mapped read-only for as long as the object lives.
class mapped_file {
public:
  static kernels::result<std::shared_ptr<const mapped_file>> open(const std::string& path);
  ~mapped_file();
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  std::span<const uint8_t> bytes() const noexcept { return bytes_; }

private:
  mapped_file() = default;
  std::span<const uint8_t> bytes_;
};

/// Writes a file under a temporary name beside its own; `commit` syncs it to the disk and renames it, so that
/// a reader sees the old file or the whole new one. Without commit the temporary file is removed.
class atomic_file {
public:
  static kernels::result<atomic_file> make(std::string path);
  atomic_file(atomic_file&& other) noexcept;
  atomic_file& operator=(atomic_file&&) = delete;
  ~atomic_file();
  kernels::status write(const void* data, size_t bytes);
  kernels::status write(std::string_view text) { return write(text.data(), text.size()); }
  kernels::status commit();

private:
  atomic_file(std::string path, std::string temporary, int descriptor)
      : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}
  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

kernels::status write_file(const std::string& path, std::string_view content);

} // namespace neuroshard::text
