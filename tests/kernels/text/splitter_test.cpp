#include "kernels/text/splitter.hpp"

#include "kernels/text/utf8.hpp"
#include "tests/kernels/text/random_text.hpp"
#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;

namespace {

using strings = std::vector<std::string>;

strings pieces(std::string_view text) {
  strings out;
  text::for_each_piece(text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}

} // namespace

TEST_CASE("words take the one blank before them") {
  CHECK(pieces("In the beginning") == strings{"In", " the", " beginning"});
  CHECK(pieces("a  b") == strings{"a", " ", " b"});
  CHECK(pieces("a   b") == strings{"a", "  ", " b"});
  CHECK(pieces("\tx") == strings{"\tx"});
  CHECK(pieces("(hello) _x") == strings{"(hello", ")", " _", "x"});
}

TEST_CASE("contractions are pieces in any case") {
  CHECK(pieces("don't I'LL we've You'Re he'd I'm it'S") ==
        strings{"don", "'t", " I", "'LL", " we", "'ve", " You", "'Re", " he", "'d", " I", "'m", " it", "'S"});
  CHECK(pieces("'") == strings{"'"});
  CHECK(pieces("'l") == strings{"'l"});
  CHECK(pieces("'lx") == strings{"'lx"});
  CHECK(pieces("'llx") == strings{"'ll", "x"});
  CHECK(pieces("o'clock") == strings{"o", "'clock"});
  CHECK(pieces("x '") == strings{"x", " '"});
}

TEST_CASE("numbers come in threes and take no blank") {
  CHECK(pieces("1234567") == strings{"123", "456", "7"});
  CHECK(pieces("in 1611.") == strings{"in", " ", "161", "1", "."});
  CHECK(pieces("x2y") == strings{"x", "2", "y"});
  CHECK(pieces("\xD9\xA1\xD9\xA2\xC2\xBD\xE2\x85\xA7") ==
        strings{"\xD9\xA1\xD9\xA2\xC2\xBD", "\xE2\x85\xA7"});
}

TEST_CASE("punctuation takes a blank before and newlines after") {
  CHECK(pieces("wait ...\n\nno") == strings{"wait", " ...\n\n", "no"});
  CHECK(pieces("end.\r\n next") == strings{"end", ".\r\n", " next"});
  CHECK(pieces("a\t!") == strings{"a", "\t", "!"});
  CHECK(pieces("!!x") == strings{"!!", "x"});
  CHECK(pieces("!x") == strings{"!x"});
  CHECK(pieces("  !") == strings{" ", " !"});
}

TEST_CASE("white space ends at its last newline") {
  CHECK(pieces("a \n \n  b") == strings{"a", " \n \n", " ", " b"});
  CHECK(pieces("a\n") == strings{"a", "\n"});
  CHECK(pieces("\nx") == strings{"\n", "x"});
}

TEST_CASE("trailing white space is one piece") {
  CHECK(pieces("a   ") == strings{"a", "   "});
  CHECK(pieces("  ") == strings{"  "});
  CHECK(pieces("a\n  ") == strings{"a", "\n", "  "});
}

TEST_CASE("letters of all scripts, wide blanks and emoji are told apart") {
  CHECK(pieces("caf\xC3\xA9 \xCE\xB1\xCE\xB2") == strings{"caf\xC3\xA9", " \xCE\xB1\xCE\xB2"});
  CHECK(pieces("\xE4\xB8\xAD\xE6\x96\x87\xE3\x80\x82") ==
        strings{"\xE4\xB8\xAD\xE6\x96\x87", "\xE3\x80\x82"});
  CHECK(pieces("a\xE3\x80\x80\xE3\x80\x80"
               "b") == strings{"a", "\xE3\x80\x80",
                               "\xE3\x80\x80"
                               "b"});
  CHECK(pieces("hi \xF0\x9F\x98\x80\xF0\x9F\x98\x80") == strings{"hi", " \xF0\x9F\x98\x80\xF0\x9F\x98\x80"});
}

TEST_CASE("bytes that are no UTF-8 are letters of their own") {
  CHECK(pieces("a\xFF\x80z 1") == strings{"a\xFF\x80z", " ", "1"});
  CHECK(pieces(" \xED\xA0\x80!") == strings{" \xED\xA0\x80", "!"});
  CHECK(pieces("\xE4\xB8") == strings{"\xE4\xB8"});
}

TEST_CASE("pieces concatenated are the text, for any bytes") {
  test::random_source random(1);
  for (int round = 0; round < 300; ++round) {
    const std::string input =
        round % 2 == 0 ? random.bytes(random.below(200)) : random.words(random.below(100));
    std::string joined;
    text::for_each_piece(input, [&](std::string_view piece) {
      REQUIRE(!piece.empty());
      joined += piece;
    });
    CHECK(joined == input);
  }
}

TEST_CASE("normalization composes, keeps invalid bytes and bounds runs of marks") {
  CHECK(*text::normalize_nfc("e\xCC\x81t\xC3\xA9") == "\xC3\xA9t\xC3\xA9");
  CHECK(*text::normalize_nfc("plain") == "plain");
  CHECK(*text::normalize_nfc("") == "");
  CHECK(*text::normalize_nfc("e\xFF\xCC\x81x\xC3") == "e\xFF\xCC\x81x\xC3");
  CHECK(*text::normalize_nfc("\xE2\x84\xAB\xCC\xA7"
                             "a") == "\xC3\x85\xCC\xA7"
                                     "a");
  CHECK(*text::normalize_nfc("q\xCC\x87\xCC\xA3") == "q\xCC\xA3\xCC\x87"); // canonical order
  CHECK(*text::normalize_nfc(std::string("a\0b", 3)) == std::string("a\0b", 3));
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i)
    marks += i % 2 == 0 ? "\xCC\x87" : "\xCC\xA3";
  CHECK(text::normalize_nfc(marks)->size() > 300'000); // quadratic ordering would take minutes
}

TEST_CASE("normalizing in stretches equals normalizing at once") {
  // An ASCII letter before a mark belongs to the stretch; text that is normalized stays as it is.
  test::random_source random(2);
  for (int round = 0; round < 200; ++round) {
    std::string input;
    for (uint64_t i = random.below(40); i > 0; --i)
      input += random.below(2) == 0 ? test::utf8_of(0x41 + static_cast<uint32_t>(random.below(50)))
                                    : test::utf8_of(0x300 + static_cast<uint32_t>(random.below(0x40)));
    const std::string once = *text::normalize_nfc(input);
    CHECK(*text::normalize_nfc(once) == once);
  }
}
