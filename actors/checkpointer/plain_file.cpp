#include "actors/checkpointer/plain_file.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace neuroshard {

using kernels::code;
using kernels::status;

namespace {

/// One write call moves at most this much, as some file systems refuse more than 2 GiB.
constexpr size_t piece_bytes_max = size_t{256} << 20;

status failed(code why, const std::string& path, const char* doing, int error) {
  return {why, std::string("cannot ") + doing + " " + path + ": " + std::strerror(error)};
}

} // namespace

plain_file::plain_file(plain_file&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

plain_file& plain_file::operator=(plain_file&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  return *this;
}

plain_file::~plain_file() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

kernels::result<plain_file> plain_file::create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0)
    return failed(code::io, path, "create", errno);
  return plain_file{descriptor, path};
}

kernels::result<plain_file> plain_file::open(const std::string& path) {
  // O_NONBLOCK: a named pipe put in the place of the file must not hang the start.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENXIO;
    return failed(missing ? code::corrupt : code::io, path, "open", errno);
  }
  plain_file file{descriptor, path};
  struct stat found {};
  if (::fstat(descriptor, &found) != 0)
    return failed(code::io, path, "look at", errno);
  if (!S_ISREG(found.st_mode))
    return status(code::corrupt, path + " is no regular file");
  return file;
}

kernels::result<plain_file> plain_file::open_to_append(const std::string& path) {
  const int descriptor =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (descriptor < 0)
    return failed(code::io, path, "open", errno);
  plain_file file{descriptor, path};
  struct stat found {};
  if (::fstat(descriptor, &found) != 0)
    return failed(code::io, path, "look at", errno);
  if (!S_ISREG(found.st_mode))
    return status(code::io, path + " is no regular file");
  return file;
}

status plain_file::truncate(uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0)
    return failed(code::io, path_, "cut off", errno);
  return {};
}

status plain_file::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(descriptor_, bytes.data(), std::min(bytes.size(), piece_bytes_max));
    if (done < 0) {
      if (errno == EINTR)
        continue;
      return failed(code::io, path_, "write", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return {};
}

status plain_file::read(uint64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t done =
        ::pread(descriptor_, to.data(), std::min(to.size(), piece_bytes_max), static_cast<off_t>(offset));
    if (done < 0) {
      if (errno == EINTR)
        continue;
      return failed(code::corrupt, path_, "read", errno);
    }
    if (done == 0)
      return {code::corrupt, path_ + " ends too early"};
    offset += static_cast<uint64_t>(done);
    to = to.subspan(static_cast<size_t>(done));
  }
  return {};
}

kernels::result<uint64_t> plain_file::size() const {
  struct stat found {};
  if (::fstat(descriptor_, &found) != 0)
    return failed(code::io, path_, "look at", errno);
  return static_cast<uint64_t>(found.st_size);
}

status plain_file::sync_and_close() {
  status outcome;
  if (::fsync(descriptor_) != 0)
    outcome = failed(code::io, path_, "sync", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0 && outcome.ok())
    outcome = failed(code::io, path_, "close", errno);
  return outcome;
}

status sync_directory(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    return failed(code::io, path, "open", errno);
  status outcome;
  if (::fsync(descriptor) != 0)
    outcome = failed(code::io, path, "sync", errno);
  ::close(descriptor);
  return outcome;
}

status make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::path grown;
  for (const auto& part : std::filesystem::path(path)) {
    grown /= part;
    if (grown.empty() || std::filesystem::is_directory(grown, error))
      continue;
    if (::mkdir(grown.c_str(), 0700) != 0) {
      if (errno != EEXIST)
        return failed(code::io, grown.string(), "create directory", errno);
      continue;
    }
    // Its own name must be on the disk too, or a checkpoint in it is lost with it.
    const auto above = grown.parent_path();
    NEUROSHARD_TRY(sync_directory(above.empty() ? std::string(".") : above.string()));
  }
  if (!std::filesystem::is_directory(path, error))
    return {code::io, path + " is no directory"};
  return {};
}

kernels::result<std::string> read_small_file(const std::string& path, uint64_t bytes_max) {
  auto file = plain_file::open(path);
  if (!file.ok())
    return file.status();
  auto bytes = file->size();
  if (!bytes.ok())
    return bytes.status();
  if (*bytes > bytes_max)
    return status(code::corrupt, path + " is longer than " + std::to_string(bytes_max) + " bytes");
  std::string text(*bytes, '\0');
  if (auto read = file->read(0, std::as_writable_bytes(std::span(text))); !read.ok())
    return read;
  return text;
}

status replace_directory(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0)
    return {};
  if (errno == EINVAL ||
      errno == ENOSYS) { // a file system without the flags; rename itself keeps a full directory
    if (::rename(from.c_str(), to.c_str()) == 0)
      return {};
  } else if (errno == EEXIST &&
             ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    return remove_tree(from);
  }
  if (errno != EEXIST && errno != ENOTEMPTY && errno != EINVAL)
    return failed(code::io, from, "rename", errno);
  // No exchange here: the old one is out of the way for a moment. A crash in it costs this checkpoint, not
  // the one before.
  NEUROSHARD_TRY(remove_tree(to));
  if (::rename(from.c_str(), to.c_str()) != 0)
    return failed(code::io, from, "rename", errno);
  return {};
}

status remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error)
    return {code::io, "cannot remove " + path + ": " + error.message()};
  return {};
}

} // namespace neuroshard
