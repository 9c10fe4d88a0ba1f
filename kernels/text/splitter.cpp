#include "kernels/text/splitter.hpp"

#include "kernels/text/utf8.hpp"

namespace neuroshard::text {
namespace {

constexpr int numbers_max = 3;

struct seen {
  character_class is;
  uint8_t bytes;
};

seen look(std::string_view text, size_t at) noexcept {
  const character c = read_character(text, at);
  return {classify(c), c.bytes};
}

char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

// The length of the contraction that begins at `at`, or 0.
size_t contraction(std::string_view text, size_t at) noexcept {
  if (text[at] != '\'' || at + 1 >= text.size())
    return 0;
  const char first = lower(text[at + 1]);
  if (first == 's' || first == 't' || first == 'd' || first == 'm')
    return 2;
  if (at + 2 >= text.size())
    return 0;
  const char second = lower(text[at + 2]);
  const bool two =
      (first == 'l' && second == 'l') || (first == 'v' && second == 'e') || (first == 'r' && second == 'e');
  return two ? 3 : 0;
}

// Passes over all characters of one class.
size_t skip(std::string_view text, size_t at, character_class which) noexcept {
  while (at < text.size()) {
    const seen s = look(text, at);
    if (s.is != which)
      break;
    at += s.bytes;
  }
  return at;
}

size_t others_end(std::string_view text, size_t at) noexcept {
  return skip(text, skip(text, at, character_class::other), character_class::newline);
}

size_t white_space_end(std::string_view text, size_t at) noexcept {
  size_t after_newline = at; // end of the last newline of the run
  size_t last = at;          // where its last character begins
  size_t end = at;
  while (end < text.size()) {
    const seen s = look(text, end);
    if (s.is != character_class::space && s.is != character_class::newline)
      break;
    last = end;
    end += s.bytes;
    if (s.is == character_class::newline)
      after_newline = end;
  }
  if (after_newline > at)
    return after_newline;
  if (end == text.size() || last == at)
    return end;
  return last;
}

} // namespace

size_t piece_end(std::string_view text, size_t at) noexcept {
  if (const size_t n = contraction(text, at); n != 0)
    return at + n;
  const seen first = look(text, at);
  const size_t second_at = at + first.bytes;
  switch (first.is) {
  case character_class::letter:
    return skip(text, second_at, character_class::letter);
  case character_class::number: {
    size_t end = second_at;
    for (int n = 1; n < numbers_max && end < text.size(); ++n) {
      const seen s = look(text, end);
      if (s.is != character_class::number)
        break;
      end += s.bytes;
    }
    return end;
  }
  case character_class::newline:
    return white_space_end(text, at);
  case character_class::space:
  case character_class::other:
    break;
  }
  if (second_at < text.size()) {
    const seen second = look(text, second_at);
    if (second.is == character_class::letter)
      return skip(text, second_at + second.bytes, character_class::letter);
    if (text[at] == ' ' && second.is == character_class::other)
      return others_end(text, second_at);
  }
  return first.is == character_class::other ? others_end(text, at) : white_space_end(text, at);
}

} // namespace neuroshard::text
