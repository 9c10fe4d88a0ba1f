#include "kernels/text/mirror_fetch.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
namespace fs = std::filesystem;

// The part of a file that has arrived, kept over breaks and restarts.
class partial_file {
public:
  explicit partial_file(std::string path)
      : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {}
  partial_file(const partial_file&) = delete;
  partial_file& operator=(const partial_file&) = delete;
  ~partial_file() { close(); }

  bool open() const noexcept { return fd_ >= 0; }
  uint64_t size() const noexcept {
    struct stat info {};
    return ::fstat(fd_, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
  }
  status cut(uint64_t to) {
    return ::ftruncate(fd_, static_cast<off_t>(to)) == 0 &&
                   ::lseek(fd_, static_cast<off_t>(to), SEEK_SET) >= 0
               ? status{}
               : file_error(path_, "cannot be written", errno);
  }
  status write(std::span<const uint8_t> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return file_error(path_, "cannot be written", errno);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return {};
  }
  status sync() { return ::fsync(fd_) == 0 ? status{} : file_error(path_, "cannot be written", errno); }
  void close() {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = -1;
  }
  void remove() {
    close();
    ::unlink(path_.c_str());
  }

private:
  std::string path_;
  int fd_;
};

status too_much(const std::string& url, uint64_t bytes) {
  return {code::corrupt, shown_url(url) + ": sends more than the " + std::to_string(bytes) +
                             " bytes that its manifest says"};
}

status too_little(const std::string& url, uint64_t got, uint64_t bytes) {
  return {code::unavailable, shown_url(url) + ": ended after " + std::to_string(got) + " of " +
                                 std::to_string(bytes) + " bytes"};
}

status other_hash(const std::string& url) {
  return {code::corrupt, shown_url(url) + ": its SHA-256 is not that of the manifest"};
}

void sync_directory(const std::string& path) {
  const auto parent = fs::path(path).parent_path();
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return;
  static_cast<void>(::fsync(fd));
  ::close(fd);
}

} // namespace

std::string shown_url(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos)
    return url;
  const size_t host = scheme + 3;
  const size_t at = url.substr(0, url.find('/', host)).rfind('@');
  return at == std::string::npos || at < host ? url : url.substr(0, host) + url.substr(at + 1);
}

std::chrono::milliseconds retry_delays::after(uint32_t failures) const noexcept {
  const uint32_t doublings = std::min(failures > 0 ? failures - 1 : 0, 20U);
  return std::min(most, first * (int64_t{1} << doublings));
}

result<std::string> fetch_text(fetcher& from, const std::string& url, uint64_t bytes_max,
                               const std::function<bool()>& cancelled) {
  std::string text;
  fetcher::sink sink;
  sink.begin = [&](uint64_t at) {
    return at == 0 ? status{}
                   : status{code::unavailable, shown_url(url) + ": answered with a part of it, unasked"};
  };
  sink.take = [&](std::span<const uint8_t> bytes) -> status {
    if (text.size() + bytes.size() > bytes_max)
      return {code::corrupt, shown_url(url) + ": is larger than the " + std::to_string(bytes_max) +
                                 " bytes that it may have"};
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  };
  NEUROSHARD_TRY(from.get(url, 0, sink, cancelled));
  return text;
}

result<std::shared_ptr<const mapped_file>> fetch_shard(fetcher& from, const std::string& url,
                                                       const std::string& path, const shard_entry& entry,
                                                       uint32_t vocab_size,
                                                       const std::function<bool()>& cancelled) {
  const uint64_t wanted = entry.tokens * sizeof(token_id);
  const std::string partial_path = path + ".part";
  partial_file partial(partial_path);
  if (!partial.open())
    return file_error(partial_path, "cannot be written", errno);
  uint64_t have = partial.size();
  if (have > wanted) { // of another manifest
    have = 0;
    NEUROSHARD_TRY(partial.cut(0));
  }
  if (have < wanted) {
    fetcher::sink sink;
    sink.begin = [&](uint64_t at) -> status {
      if (at > have)
        return {code::unavailable, shown_url(url) + ": answered with another part than was asked for"};
      have = at;
      return partial.cut(at);
    };
    sink.take = [&](std::span<const uint8_t> bytes) -> status {
      if (bytes.size() > wanted - have)
        return too_much(url, wanted);
      NEUROSHARD_TRY(partial.write(bytes));
      have += bytes.size();
      return {};
    };
    const status got = from.get(url, have, sink, cancelled);
    if (!got && got.why() == code::corrupt)
      partial.remove();
    if (!got)
      return got;
    if (have < wanted)
      return too_little(url, have, wanted);
  }
  NEUROSHARD_TRY(partial.sync());
  auto mapped = map_shard(partial_path, entry, vocab_size);
  if (!mapped) {
    const status why = mapped.status();
    if (why.why() == code::corrupt)
      partial.remove();
    const bool hash = why.message().find("SHA-256") != std::string::npos;
    return hash ? other_hash(url) : status{why.why(), shown_url(url) + ": " + why.message()};
  }
  if (::rename(partial_path.c_str(), path.c_str()) != 0)
    return file_error(path, "cannot be written", errno);
  sync_directory(path);
  return mapped;
}

result<std::vector<token_id>> fetch_tail(fetcher& from, const std::string& url, const shard_entry& entry,
                                         uint64_t tail, uint32_t vocab_size,
                                         const std::function<bool()>& cancelled) {
  const uint64_t wanted = entry.tokens * sizeof(token_id);
  const uint64_t tail_begins = wanted - tail * sizeof(token_id);
  std::vector<token_id> kept(tail);
  auto* const out = reinterpret_cast<uint8_t*>(kept.data());
  kernels::sha256 hash;
  uint64_t have = 0;
  fetcher::sink sink;
  sink.begin = [&](uint64_t at) -> status {
    return at == 0 ? status{}
                   : status{code::unavailable, shown_url(url) + ": answered with a part of it, unasked"};
  };
  sink.take = [&](std::span<const uint8_t> bytes) -> status {
    if (bytes.size() > wanted - have)
      return too_much(url, wanted);
    hash.update(bytes.data(), bytes.size());
    const uint64_t end = have + bytes.size();
    if (end > tail_begins) {
      const uint64_t skip = have < tail_begins ? tail_begins - have : 0;
      std::memcpy(out + (have + skip - tail_begins), bytes.data() + skip, bytes.size() - skip);
    }
    have = end;
    return {};
  };
  NEUROSHARD_TRY(from.get(url, 0, sink, cancelled));
  if (have < wanted)
    return too_little(url, have, wanted);
  if (kernels::to_hex(hash.finish()) != entry.sha256)
    return other_hash(url);
  for (const token_id id : kept)
    if (id >= vocab_size)
      return status{code::corrupt, shown_url(url) + ": holds token " + std::to_string(id) +
                                       ", the vocabulary has " + std::to_string(vocab_size)};
  return kept;
}

} // namespace neuroshard::text
