#include "actors/identity/token.hpp"

#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;

namespace {

// Worked out by worked_values.py.
constexpr const char* words =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
constexpr const char* words_token = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1";
constexpr const char* words_digest = "fc087959d669496c56e7a26d46052cdd173ba9885bc291d5f734b9ffe8d443de";

std::string reason_of(std::string_view text) {
  const auto token = parse_token(text);
  REQUIRE(!token);
  CHECK(code_of(token.error()) == errc::unauthorized);
  const auto what = problem_of(token.error());
  // What was typed may be nearly a secret: it is never repeated.
  if (text.size() > 3)
    CHECK(what.message.find(text) == std::string::npos);
  return what.reason;
}

} // namespace

TEST_CASE("the three forms of a token are told apart") {
  const auto hex = parse_token("ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef012345678A");
  REQUIRE(hex);
  CHECK(hex->form == token_form::hex);
  CHECK(hex->canonical.view() == "abcdef0123456789abcdef0123456789abcdef0123456789abcdef012345678a");
  CHECK(!hex->guessable());
  const auto word = parse_token(" correct-horse\n");
  REQUIRE(word);
  CHECK(word->form == token_form::word);
  CHECK(word->canonical.view() == "correct-horse");
  CHECK(word->guessable());
  const auto twelve = parse_token(words);
  REQUIRE(twelve);
  CHECK(twelve->form == token_form::mnemonic);
  CHECK(twelve->canonical.view() == words_token);
  CHECK(!twelve->guessable());
}

TEST_CASE("the words and the hex of one token are one identity") {
  const auto from_words = parse_token(words), from_hex = parse_token(words_token);
  REQUIRE(from_words);
  REQUIRE(from_hex);
  CHECK(equal_digests(token_digest(*from_words), token_digest(*from_hex)));
  CHECK(kernels::to_hex(token_digest(*from_words)) == words_digest);
  const auto other = parse_token("correct-horse");
  CHECK(!equal_digests(token_digest(*from_words), token_digest(*other)));
}

TEST_CASE("words are read whatever their case and spacing") {
  const auto token =
      parse_token("  Abandon abandon abandon\tabandon abandon abandon abandon  abandon abandon abandon "
                  "abandon\r\nABOUT\n");
  REQUIRE(token);
  CHECK(token->canonical.view() == words_token);
}

TEST_CASE("several words that are no mnemonic are an error, never a raw token") {
  CHECK(reason_of("abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon "
                  "abandon") == "checksum");
  CHECK(reason_of("abandon abandon") == "word_count");
  CHECK(reason_of("my secret phrase") == "word_count");
  CHECK(
      reason_of(
          "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abouts") ==
      "checksum");
  // 24 valid words are a mnemonic, but not a token.
  CHECK(reason_of("hamster diagram private dutch cause delay private meat slide toddler razor book happy "
                  "fancy gospel "
                  "tennis maple dilemma loan word shrug inflict delay length") == "word_count");
}

TEST_CASE("what is no token is refused") {
  CHECK(reason_of("") == "empty");
  CHECK(reason_of("  \n") == "empty");
  CHECK(reason_of("short12") == "length");
  CHECK(reason_of(std::string(129, 'x')) == "length");
  CHECK(reason_of("p\xc3\xa4sswort-lang") == "form");
  CHECK(reason_of(std::string("nul\0inside-it", 13)) == "form");
  CHECK(reason_of("bell\x07inside-it") == "form");
  CHECK(reason_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff") == "form");
  CHECK(reason_of(std::string(1 << 20, 'a') + " b") == "form");
  CHECK(parse_token(std::string(128, 'x')));
  CHECK(parse_token("12345678"));
  // 63 and 65 hex digits are just a word.
  CHECK(parse_token(std::string(63, 'a'))->form == token_form::word);
}

TEST_CASE("inspecting tells the form without deriving a key") {
  CHECK(*inspect_token(words) == token_form::mnemonic);
  CHECK(*inspect_token(words_token) == token_form::hex);
  CHECK(*inspect_token("correct-horse") == token_form::word);
  CHECK(!inspect_token("abandon about"));
}

TEST_CASE("a secret moves and copies only on purpose") {
  secret_text a("hunter2-hunter2");
  secret_text b = a.copy();
  secret_text c = std::move(a);
  CHECK(b.view() == c.view());
  CHECK(a.empty());
  c = secret_text("other");
  CHECK(c.view() == "other");
}
