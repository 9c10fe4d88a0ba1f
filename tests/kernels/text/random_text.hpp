#pragma once

#include "kernels/core/philox.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

/// Random input for the text tests. The seed comes from NEUROSHARD_TEST_SEED, else it is 1; it is printed, so
/// that a failure can be replayed.
namespace neuroshard::test {

inline uint64_t seed() {
  static const uint64_t value = [] {
    const char* given = std::getenv("NEUROSHARD_TEST_SEED");
    const uint64_t s = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
    std::printf("NEUROSHARD_TEST_SEED=%llu\n", static_cast<unsigned long long>(s));
    return s;
  }();
  return value;
}

class random_source {
public:
  explicit random_source(uint64_t stream) : key_(seed() * 1'000'003 + stream) {}
  uint64_t below(uint64_t n) { return kernels::philox_below(key_, counter_++, 0, n); }

  std::string bytes(size_t n) {
    std::string out(n, '\0');
    for (char& c : out)
      c = static_cast<char>(below(256));
    return out;
  }

  /// Text of few words, so that pairs repeat.
  std::string words(size_t n) {
    static const char* const pieces[] = {
        "the",      "then",         "there", "a",    "aaa",  "Ab",    "bab", " ",   " ",
        " ",        "  ",           "\n",    "\r\n", "'ll",  "don't", "12",  "345", "...",
        "\xC3\xA9", "\xE4\xB8\xAD", "!?",    "\t",   "\xFF", "e",     "s",   "ing", "\xF0\x9F\x98\x80"};
    std::string out;
    for (size_t i = 0; i < n; ++i)
      out += pieces[below(std::size(pieces))];
    return out;
  }

private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

/// The UTF-8 form of a code point.
inline std::string utf8_of(uint32_t c) {
  std::string out;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 63));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
  return out;
}

} // namespace neuroshard::test
