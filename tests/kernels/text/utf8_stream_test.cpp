#include "kernels/text/utf8_stream.hpp"

#include "kernels/text/utf8.hpp"
#include "tests/kernels/text/random_text.hpp"
#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;
using text::utf8_stream;

TEST_CASE("a character that arrives byte by byte appears once it is whole") {
  utf8_stream stream;
  CHECK(stream.push("a\xF0\x9F") == "a");
  CHECK(stream.held() == 2);
  CHECK(stream.push("\x98") == "");
  CHECK(stream.push("\x80z") == "\xF0\x9F\x98\x80z");
  CHECK(stream.finish() == "");
}

TEST_CASE("what stays incomplete becomes one replacement character at the end") {
  utf8_stream stream;
  CHECK(stream.push("x\xE4\xB8") == "x");
  CHECK(stream.finish() == "\xEF\xBF\xBD");
  CHECK(stream.push("\xE4") == "");
  CHECK(stream.push("b") == "\xEF\xBF\xBD"
                            "b");
  CHECK(stream.finish() == "");
}

TEST_CASE("bytes that can begin no character are not held back") {
  utf8_stream stream;
  for (const char* bad : {"\x80", "\xC0", "\xC1", "\xF5", "\xFF"})
    CHECK(stream.push(bad) == "\xEF\xBF\xBD");
  CHECK(stream.push("\xED\xA0") == "\xEF\xBF\xBD\xEF\xBF\xBD"); // a surrogate
  CHECK(stream.push("\xE0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD"); // overlong
  CHECK(stream.push("\xF4\x90") == "\xEF\xBF\xBD\xEF\xBF\xBD"); // above U+10FFFF
  CHECK(stream.held() == 0);
}

TEST_CASE("maximal invalid parts become one replacement each") {
  CHECK(text::to_valid_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                            "b\x80"
                            "c") == "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                                    "b\xEF\xBF\xBD"
                                    "c"); // the example of Unicode 15, table 3-8
}

TEST_CASE("however bytes are cut, the streamed text is the whole text and valid at each step") {
  test::random_source random(30);
  for (int round = 0; round < 300; ++round) {
    std::string input;
    for (uint64_t i = random.below(60); i > 0; --i)
      input += random.below(3) == 0 ? random.bytes(1)
                                    : test::utf8_of(static_cast<uint32_t>(random.below(0xD800)) +
                                                    (random.below(2) == 0 ? 0 : 0xE000));
    utf8_stream stream;
    std::string joined;
    for (size_t at = 0; at < input.size();) {
      const size_t n = 1 + random.below(4);
      const std::string part = stream.push(std::string_view(input).substr(at, n));
      for (size_t i = 0; i < part.size();) {
        const auto c = text::read_character(part, i);
        REQUIRE(c.valid);
        i += c.bytes;
      }
      CHECK(stream.held() <= 3);
      joined += part;
      at += n;
    }
    joined += stream.finish();
    CHECK(joined == text::to_valid_utf8(input));
  }
}

TEST_CASE("valid text goes through unchanged") {
  std::string all;
  for (uint32_t c = 0; c <= 0x10FFFF; c += 13)
    if (c < 0xD800 || c > 0xDFFF)
      all += test::utf8_of(c);
  CHECK(text::to_valid_utf8(all) == all);
}
