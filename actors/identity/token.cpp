#include "actors/identity/token.hpp"

#include "actors/identity/mnemonic.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>

namespace neuroshard {

namespace {

constexpr size_t words_of_a_token = 12;
constexpr size_t word_chars_min = 8;
constexpr size_t word_chars_max = 128;

bool is_blank(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
bool is_hex(char c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_blank(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back()))
    text.remove_suffix(1);
  return text;
}

caf::error bad_token(std::string message, std::string reason) {
  problem what;
  what.message = std::move(message);
  what.field = "token";
  what.reason = std::move(reason);
  return refuse(errc::unauthorized, std::move(what));
}

bool has_blank(std::string_view text) noexcept {
  return std::any_of(text.begin(), text.end(), is_blank);
}

} // namespace

caf::expected<token_form> inspect_token(std::string_view text) {
  text = trimmed(text);
  if (text.empty())
    return bad_token("The token is empty.", "empty");
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (ascii) {
    if (text.size() == 64 && std::all_of(text.begin(), text.end(), is_hex))
      return token_form::hex;
    if (text.size() < word_chars_min || text.size() > word_chars_max)
      return bad_token("A token of one word has 8 to 128 characters.", "length");
    return token_form::word;
  }
  const secret_text words = mnemonic::normalized(text);
  if (!has_blank(words.view()))
    return bad_token(
        "A token is 64 hex digits, 12 words, or one word of 8 to 128 printable ASCII characters.", "form");
  const auto blanks = std::count(words.view().begin(), words.view().end(), ' ');
  if (static_cast<size_t>(blanks) + 1 != words_of_a_token)
    return bad_token("A token of several words has 12 of them.", "word_count");
  if (!mnemonic::valid(words.view()))
    return bad_token(
        "The 12 words are not a valid mnemonic: a word is not on the list or their checksum is wrong.",
        "checksum");
  return token_form::mnemonic;
}

caf::expected<access_token> parse_token(std::string_view text) {
  const auto form = inspect_token(text);
  if (!form)
    return form.error();
  text = trimmed(text);
  access_token token;
  token.form = *form;
  if (*form == token_form::word) {
    token.canonical = secret_text(text);
    return token;
  }
  std::array<char, 64> hex;
  if (*form == token_form::hex) {
    std::transform(text.begin(), text.end(), hex.begin(),
                   [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c; });
  } else {
    const secret_text words = mnemonic::normalized(text);
    std::array<uint8_t, 64> seed;
    if (!mnemonic::seed(words.view(), "", seed.data()))
      return refuse(errc::internal, "The words could not be turned into a key.");
    static constexpr char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 32; ++i) {
      hex[2 * i] = digits[seed[i] >> 4];
      hex[2 * i + 1] = digits[seed[i] & 15];
    }
    wipe(seed.data(), seed.size());
  }
  token.canonical = secret_text(std::string_view(hex.data(), hex.size()));
  wipe(hex.data(), hex.size());
  return token;
}

kernels::digest token_digest(const access_token& token) {
  return kernels::sha256::of(token.canonical.view());
}

bool equal_digests(const kernels::digest& a, const kernels::digest& b) noexcept {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

secret_text new_mnemonic(random_source& random) {
  std::array<uint8_t, 16> entropy;
  random.fill(entropy.data(), entropy.size());
  secret_text words = mnemonic::from_entropy(entropy);
  wipe(entropy.data(), entropy.size());
  return words;
}

} // namespace neuroshard
