#include "gateway/config/data_dir.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <system_error>
#include <thread>

namespace neuroshard {

namespace {

std::string why(int error) {
  return std::generic_category().message(error);
}

start_error refuse_dir(std::string line) {
  return {exit_code::data_directory, std::move(line)};
}

/// mkdir -p with mode 0700 for what is made.
bool make_directories(const std::string& path) {
  for (size_t at = 1; at != std::string::npos;) {
    at = path.find('/', at + 1);
    const std::string part = path.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      // A parent that exists but may not be written is fine as long as the next part exists.
      struct stat info {};
      const int error = errno;
      if (::stat(part.c_str(), &info) != 0) {
        errno = error;
        return false;
      }
    }
  }
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return false;
  if (!S_ISDIR(info.st_mode)) {
    errno = ENOTDIR;
    return false;
  }
  return true;
}

bool write_all(int fd, std::string_view content) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    content.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

lock_holder read_holder(int fd) {
  lock_holder holder;
  char text[512];
  const ssize_t n = ::pread(fd, text, sizeof text, 0);
  if (n <= 0)
    return holder;
  const std::string_view content(text, static_cast<size_t>(n));
  const size_t line = content.find('\n');
  if (line == std::string_view::npos)
    return holder;
  std::from_chars(content.data(), content.data() + line, holder.pid);
  const std::string_view rest = content.substr(line + 1);
  holder.url = std::string(rest.substr(0, rest.find('\n')));
  return holder;
}

std::string describe(const lock_holder& holder) {
  if (holder.pid <= 0)
    return "another process";
  return fmt::format("process {}{}", holder.pid, holder.url.empty() ? std::string() : ", " + holder.url);
}

} // namespace

std::string data_paths::checkpoints(const std::string& wallet_id, int64_t instance) const {
  return fmt::format("{}/checkpoints/{}-{}", root, wallet_id, instance);
}

std::optional<lock_holder> who_holds(const data_paths& paths) {
  const int fd = ::open(paths.lock().c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return std::nullopt;
  std::optional<lock_holder> holder;
  if (::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    holder = read_holder(fd);
  ::close(fd);
  return holder;
}

start_result<data_dir> data_dir::open(const std::string& root) {
  data_paths paths{root};
  if (!make_directories(root))
    return refuse_dir(fmt::format("{}: cannot make the data directory: {}", root, why(errno)));
  struct stat info {};
  if (::stat(root.c_str(), &info) != 0)
    return refuse_dir(fmt::format("{}: cannot be read: {}", root, why(errno)));
  // The directory holds the wallet's key: nobody else may look in.
  if ((info.st_mode & 077) != 0 && ::chmod(root.c_str(), 0700) != 0)
    return refuse_dir(fmt::format("{}: has mode {:04o} and cannot be set to 0700: {}", root,
                                  static_cast<unsigned>(info.st_mode & 07777), why(errno)));
  const int fd = ::open(paths.lock().c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return refuse_dir(fmt::format("{}: the data directory is not writable: {}", root, why(errno)));
  // `who_holds` takes the lock for a moment to ask; that must not turn a start away.
  bool locked = false;
  for (int attempt = 0; attempt < 10 && !locked; ++attempt) {
    if (attempt > 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (!locked && errno != EWOULDBLOCK && errno != EINTR)
      break;
  }
  if (!locked) {
    const int error = errno;
    const lock_holder holder = read_holder(fd);
    ::close(fd);
    if (error != EWOULDBLOCK)
      return refuse_dir(fmt::format("{}: cannot be locked: {}", root, why(error)));
    return refuse_dir(
        fmt::format("{}: the data directory is in use by {}; stop it, or use another --data-dir", root,
                    describe(holder)));
  }
  data_dir dir(paths, fd);
  dir.sign("");
  for (const std::string& sub :
       {paths.checkpoints(), paths.data_cache(), paths.training_logs(), paths.logs(), paths.tls()})
    if (!make_directories(sub))
      return refuse_dir(fmt::format("{}: cannot be made: {}", sub, why(errno)));
  return dir;
}

data_dir::data_dir(data_dir&& other) noexcept
    : paths_(std::move(other.paths_)), fd_(std::exchange(other.fd_, -1)) {}

data_dir& data_dir::operator=(data_dir&& other) noexcept {
  std::swap(paths_, other.paths_);
  std::swap(fd_, other.fd_);
  return *this;
}

data_dir::~data_dir() {
  if (fd_ < 0)
    return;
  // The file stays: removing it would let two processes lock two files of one name.
  if (::ftruncate(fd_, 0) != 0) {
    // Only its text is out of date then; the lock goes with the descriptor.
  }
  ::close(fd_);
}

void data_dir::sign(const std::string& url) {
  const std::string content = fmt::format("{}\n{}\n", ::getpid(), url.substr(0, 256));
  if (::ftruncate(fd_, 0) == 0 && ::lseek(fd_, 0, SEEK_SET) == 0 && write_all(fd_, content))
    ::fsync(fd_);
}

start_result<done> write_file_atomically(const std::string& path, std::string_view content, mode_t mode) {
  const std::string temporary = path + ".tmp";
  const auto failed = [&](int error) {
    ::unlink(temporary.c_str());
    return refuse_dir(fmt::format("{}: cannot be written: {}", path, why(error)));
  };
  // What an interrupted write left behind may have another mode.
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  if (fd < 0)
    return failed(errno);
  const bool written = ::fchmod(fd, mode) == 0 && write_all(fd, content) && ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  if (!written)
    return failed(error);
  if (::rename(temporary.c_str(), path.c_str()) != 0)
    return failed(errno);
  const size_t slash = path.rfind('/');
  const int parent = ::open(slash == std::string::npos ? "." : path.substr(0, slash + 1).c_str(),
                            O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent >= 0) {
    ::fsync(parent);
    ::close(parent);
  }
  return done{};
}

start_result<std::string> read_file_bounded(const std::string& path, size_t limit) {
  // O_NONBLOCK: a FIFO under the name must not hang the start.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0)
    return refuse_dir(fmt::format("{}: cannot be read: {}", path, why(errno)));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    return refuse_dir(fmt::format("{}: is not a regular file", path));
  }
  std::string text;
  char buffer[16384];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      return refuse_dir(fmt::format("{}: cannot be read: {}", path, why(error)));
    }
    if (n == 0)
      break;
    if (text.size() + static_cast<size_t>(n) > limit) {
      ::close(fd);
      return refuse_dir(fmt::format("{}: is larger than {} bytes", path, limit));
    }
    text.append(buffer, static_cast<size_t>(n));
  }
  ::close(fd);
  return text;
}

} // namespace neuroshard
