#include "kernels/text/files.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

// Closes what it holds.
class descriptor {
public:
  explicit descriptor(int fd) noexcept : fd_(fd) {}
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;
  ~descriptor() {
    if (fd_ >= 0)
      ::close(fd_);
  }
  int get() const noexcept { return fd_; }

private:
  int fd_;
};

// Opens a regular file for reading and tells its size. O_NONBLOCK: a named pipe must not stop the node.
result<uint64_t> size_of(const std::string& path, int fd) {
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0)
    return file_error(path, "cannot be read", errno);
  if (!S_ISREG(info.st_mode))
    return status{code::io, path + ": is not a regular file"};
  return static_cast<uint64_t>(info.st_size);
}

int open_for_reading(const std::string& path) {
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

} // namespace

status file_error(const std::string& path, std::string_view what, int error_number) {
  std::string message = path;
  message.append(": ").append(what).append(": ").append(std::generic_category().message(error_number));
  return {code::io, std::move(message)};
}

result<std::string> read_file(const std::string& path, uint64_t bytes_max) {
  const descriptor file(open_for_reading(path));
  const auto size = size_of(path, file.get());
  if (!size)
    return size.status();
  if (*size > bytes_max)
    return status{code::invalid_argument, path + ": has " + std::to_string(*size) + " bytes, at most " +
                                              std::to_string(bytes_max) + " are read"};
  std::string content(*size, '\0');
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t n = ::read(file.get(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return file_error(path, "cannot be read", errno);
    if (n == 0)
      break; // cut while it was read
    done += static_cast<size_t>(n);
  }
  content.resize(done);
  return content;
}

result<std::shared_ptr<const mapped_file>> mapped_file::open(const std::string& path) {
  const descriptor file(open_for_reading(path));
  const auto size = size_of(path, file.get());
  if (!size)
    return size.status();
  std::shared_ptr<mapped_file> made(new mapped_file);
  if (*size > 0) {
    void* at = ::mmap(nullptr, *size, PROT_READ, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED)
      return file_error(path, "cannot be mapped", errno);
    made->bytes_ = {static_cast<const uint8_t*>(at), *size};
  }
  return std::shared_ptr<const mapped_file>(std::move(made));
}

mapped_file::~mapped_file() {
  if (!bytes_.empty())
    ::munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

result<atomic_file> atomic_file::make(std::string path) {
  std::string temporary = path + ".tmp" + std::to_string(::getpid());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0)
    return file_error(path, "cannot be written", errno);
  return atomic_file(std::move(path), std::move(temporary), fd);
}

atomic_file::atomic_file(atomic_file&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

atomic_file::~atomic_file() {
  if (descriptor_ < 0)
    return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

status atomic_file::write(const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(descriptor_, at, bytes);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return file_error(path_, "cannot be written", errno);
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return {};
}

status atomic_file::commit() {
  const int fd = std::exchange(descriptor_, -1);
  const bool synced = ::fsync(fd) == 0;
  const int sync_error = errno;
  const bool closed = ::close(fd) == 0;
  if (!synced || !closed) {
    ::unlink(temporary_.c_str());
    return file_error(path_, "cannot be written", synced ? errno : sync_error);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error_number = errno;
    ::unlink(temporary_.c_str());
    return file_error(path_, "cannot be written", error_number);
  }
  // The new name is on the disk only when its directory is.
  const auto parent = std::filesystem::path(path_).parent_path();
  const descriptor directory(
      ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0)
    static_cast<void>(::fsync(directory.get()));
  return {};
}

status write_file(const std::string& path, std::string_view content) {
  auto file = atomic_file::make(path);
  if (!file)
    return file.status();
  NEUROSHARD_TRY(file->write(content));
  return file->commit();
}

} // namespace neuroshard::text
