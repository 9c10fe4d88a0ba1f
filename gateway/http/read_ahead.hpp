#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace neuroshard::http {

/// Bytes of a connection that have been read and not yet been parsed. Lane thread only.
class read_ahead {
public:
  const char* data() const noexcept { return bytes_.data() + begin_; }
  size_t size() const noexcept { return end_ - begin_; }
  bool empty() const noexcept { return begin_ == end_; }
  void consume(size_t n) noexcept { begin_ += n; }
  void clear() noexcept { begin_ = end_ = 0; }
  /// Empty lines before a request are allowed (RFC 9112, 2.2).
  void skip_line_ends() noexcept {
    while (begin_ < end_ && (bytes_[begin_] == '\r' || bytes_[begin_] == '\n'))
      ++begin_;
  }
  /// Room for more; none once `size_max` bytes wait. Valid until the next call.
  std::span<char> room(size_t size_max) {
    if (begin_ > 0) {
      std::copy(bytes_.begin() + static_cast<ptrdiff_t>(begin_),
                bytes_.begin() + static_cast<ptrdiff_t>(end_), bytes_.begin());
      end_ -= begin_;
      begin_ = 0;
    }
    if (end_ == bytes_.size()) {
      if (bytes_.size() >= size_max)
        return {};
      bytes_.resize(std::max<size_t>(bytes_.size() * 2, 4096));
    }
    return std::span<char>(bytes_).subspan(end_);
  }
  void filled(size_t n) noexcept { end_ += n; }

private:
  std::vector<char> bytes_;
  size_t begin_ = 0, end_ = 0;
};

} // namespace neuroshard::http
