#include "kernels/text/utf8_stream.hpp"

#include "kernels/text/utf8.hpp"

namespace neuroshard::text {

std::string utf8_stream::push(std::string_view bytes) {
  held_.append(bytes);
  const std::string_view text = held_;
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  while (at < text.size()) {
    const character c = read_character(text, at);
    if (c.valid) {
      out.append(text.substr(at, c.bytes));
      at += c.bytes;
      continue;
    }
    const invalid_part part = read_invalid(text, at);
    if (part.open)
      break;
    append_replacement(out);
    at += part.bytes;
  }
  held_.erase(0, at);
  return out;
}

std::string utf8_stream::finish() {
  std::string out;
  if (!held_.empty()) // what is held back is the start of one character
    append_replacement(out);
  held_.clear();
  return out;
}

std::string to_valid_utf8(std::string_view bytes) {
  utf8_stream stream;
  std::string out = stream.push(bytes);
  out += stream.finish();
  return out;
}

} // namespace neuroshard::text
