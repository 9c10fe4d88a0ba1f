#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard {

/// Looks for stop strings in bytes that arrive piece by piece, and holds back what may be the start of one.
/// Empty stop strings are ignored. One per generation.
class stop_matcher {
public:
  explicit stop_matcher(std::vector<std::string> stops);

  /// Takes the next bytes; returns those that are certain now. After a match it returns what came before the
  /// match, `stopped` is true, and everything later is dropped. Of several matches in the bytes at hand the
  /// one that begins first counts.
  std::string push(std::string_view bytes);
  /// The text ends without a match: what was held back.
  std::string finish();

  bool stopped() const noexcept { return stopped_; }
  size_t held() const noexcept {
    return held_.size();
  } ///< bytes, always fewer than the longest stop string has

private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

} // namespace neuroshard
