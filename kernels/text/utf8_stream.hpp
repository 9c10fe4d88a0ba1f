#pragma once

#include <string>
#include <string_view>

namespace neuroshard::text {

/// Turns the bytes of tokens into text while they arrive: a token may end inside a character, and a reader
/// must never see half of one. Bytes that are no UTF-8 become U+FFFD, one for each maximal invalid part, so
/// that the concatenation of everything returned equals `decode_text` of all tokens. Not thread-safe; one per
/// stream.
class utf8_stream {
public:
  /// Takes the next bytes; returns the text that is certain now, which may be empty.
  std::string push(std::string_view bytes);

  /// Ends the text: an incomplete character becomes U+FFFD. The stream can be used again afterwards.
  std::string finish();

  /// Bytes held back, at most 3.
  size_t held() const noexcept { return held_.size(); }

private:
  std::string held_;
};

/// All of `bytes` as valid UTF-8.
std::string to_valid_utf8(std::string_view bytes);

} // namespace neuroshard::text
