#include "kernels/text/utf8.hpp"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <memory>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

// Combining marks in a row that are ordered together; see normalize_nfc.
constexpr int marks_max = 256;

uint8_t byte_at(std::string_view text, size_t at) noexcept {
  return static_cast<uint8_t>(text[at]);
}

// What may follow a lead byte (Unicode 15, table 3-7): the length of the sequence and the range of its second
// byte, which is narrower after E0, ED, F0 and F4 (overlong forms, surrogates, beyond U+10FFFF).
struct lead {
  uint8_t bytes;
  uint8_t second_min;
  uint8_t second_max;
};

lead lead_of(uint8_t b) noexcept {
  if (b < 0x80)
    return {1, 0, 0};
  if (b >= 0xC2 && b <= 0xDF)
    return {2, 0x80, 0xBF};
  if (b >= 0xE0 && b <= 0xEF)
    return {3, static_cast<uint8_t>(b == 0xE0 ? 0xA0 : 0x80), static_cast<uint8_t>(b == 0xED ? 0x9F : 0xBF)};
  if (b >= 0xF0 && b <= 0xF4)
    return {4, static_cast<uint8_t>(b == 0xF0 ? 0x90 : 0x80), static_cast<uint8_t>(b == 0xF4 ? 0x8F : 0xBF)};
  return {0, 0, 0};
}

// How many bytes of the sequence that begins at `at` are there and legal, at least 1.
size_t legal_bytes(std::string_view text, size_t at, const lead& l) noexcept {
  size_t n = 1;
  while (n < l.bytes && at + n < text.size()) {
    const uint8_t b = byte_at(text, at + n);
    const bool legal = n == 1 ? b >= l.second_min && b <= l.second_max : b >= 0x80 && b <= 0xBF;
    if (!legal)
      break;
    ++n;
  }
  return n;
}

constexpr std::array<character_class, 128> ascii_classes() {
  std::array<character_class, 128> table{};
  for (int c = 0; c < 128; ++c) {
    auto& entry = table[static_cast<size_t>(c)];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
      entry = character_class::letter;
    else if (c >= '0' && c <= '9')
      entry = character_class::number;
    else if (c == '\n' || c == '\r')
      entry = character_class::newline;
    else if (c == ' ' || c == '\t' || c == '\v' || c == '\f')
      entry = character_class::space;
    else
      entry = character_class::other;
  }
  return table;
}

constexpr auto ascii_table = ascii_classes();

// White_Space beyond ASCII (Unicode 15, PropList.txt).
bool is_wide_space(uint32_t c) noexcept {
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Normalizes a stretch of valid UTF-8 that needs no character before or after it.
status append_normalized(std::string_view valid, std::string& out) {
  utf8proc_uint8_t* made = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(valid.data()),
                              static_cast<utf8proc_ssize_t>(valid.size()), &made,
                              static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> guard(made, &std::free);
  if (n == UTF8PROC_ERROR_NOMEM)
    return {code::out_of_memory, "no memory to normalize text"};
  if (n < 0)
    out.append(valid); // cannot happen with valid UTF-8; the text as it is loses nothing
  else
    out.append(reinterpret_cast<const char*>(made), static_cast<size_t>(n));
  return {};
}

} // namespace

character read_character(std::string_view text, size_t at) noexcept {
  const uint8_t first = byte_at(text, at);
  if (first < 0x80)
    return {first, 1, true};
  const lead l = lead_of(first);
  if (l.bytes == 0 || legal_bytes(text, at, l) < l.bytes)
    return {0xFFFD, 1, false};
  uint32_t value = first & (0xFFU >> (l.bytes + 1));
  for (size_t i = 1; i < l.bytes; ++i)
    value = (value << 6) | (byte_at(text, at + i) & 0x3FU);
  return {value, l.bytes, true};
}

invalid_part read_invalid(std::string_view text, size_t at) noexcept {
  const lead l = lead_of(byte_at(text, at));
  if (l.bytes == 0)
    return {1, false};
  const size_t n = legal_bytes(text, at, l);
  return {static_cast<uint8_t>(n), n < l.bytes && at + n == text.size()};
}

character_class classify(const character& c) noexcept {
  if (!c.valid)
    return character_class::letter;
  if (c.code_point < 128)
    return ascii_table[c.code_point];
  if (is_wide_space(c.code_point))
    return character_class::space;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c.code_point))) {
  case UTF8PROC_CATEGORY_LU:
  case UTF8PROC_CATEGORY_LL:
  case UTF8PROC_CATEGORY_LT:
  case UTF8PROC_CATEGORY_LM:
  case UTF8PROC_CATEGORY_LO:
    return character_class::letter;
  case UTF8PROC_CATEGORY_ND:
  case UTF8PROC_CATEGORY_NL:
  case UTF8PROC_CATEGORY_NO:
    return character_class::number;
  default:
    return character_class::other;
  }
}

void append_replacement(std::string& out) {
  out.append("\xEF\xBF\xBD");
}

result<std::string> normalize_nfc(std::string_view text) {
  // ASCII is in every normal form and combines with nothing before it, so text splits safely before an ASCII
  // character; the one before a stretch of others may still take up a combining mark and goes with them.
  std::string out;
  out.reserve(text.size());
  size_t done = 0; // everything before it is in `out`
  for (size_t at = 0; at < text.size();) {
    if (byte_at(text, at) < 0x80) {
      ++at;
      continue;
    }
    const size_t start = at > done && byte_at(text, at - 1) < 0x80 ? at - 1 : at;
    out.append(text.substr(done, start - done));
    done = start;
    int marks = 0;
    while (at < text.size() && byte_at(text, at) >= 0x80) {
      const character c = read_character(text, at);
      if (!c.valid)
        break;
      const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c.code_point));
      marks = property->combining_class != 0 ? marks + 1 : 0;
      if (marks > marks_max)
        break;
      at += c.bytes;
    }
    if (at > done)
      NEUROSHARD_TRY(append_normalized(text.substr(done, at - done), out));
    done = at;
    if (marks <= marks_max && at < text.size() && byte_at(text, at) >= 0x80) {
      out.push_back(text[at]); // not UTF-8: kept as it is
      done = ++at;
    }
  }
  out.append(text.substr(done));
  return out;
}

} // namespace neuroshard::text
