#include "actors/identity/mnemonic.hpp"

#include <openssl/evp.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string>

namespace neuroshard::mnemonic {

namespace {

constexpr std::array<std::string_view, word_count> words = {
#include "actors/identity/english_words.inc"
};

constexpr size_t text_bytes_max = 1024;
constexpr size_t bits_per_word = 11;

std::optional<size_t> index_of(std::string_view word) {
  // The list of the specification is sorted.
  const auto at = std::lower_bound(words.begin(), words.end(), word);
  if (at == words.end() || *at != word)
    return std::nullopt;
  return static_cast<size_t>(at - words.begin());
}

bool sha256_of(const uint8_t* data, size_t bytes, uint8_t* out) {
  unsigned size = 0;
  return EVP_Digest(data, bytes, out, &size, EVP_sha256(), nullptr) == 1;
}

/// The indices of the words, at most 24; empty when one is not on the list or their number is wrong.
std::vector<size_t> indices_of(std::string_view text) {
  if (text.ends_with(' '))
    return {};
  std::vector<size_t> found;
  found.reserve(25);
  while (!text.empty() && found.size() < 25) {
    const size_t end = std::min(text.find(' '), text.size());
    const auto index = index_of(text.substr(0, end));
    if (!index)
      return {};
    found.push_back(*index);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (found.size() < 12 || found.size() > 24 || found.size() % 3 != 0)
    return {};
  return found;
}

/// A buffer that is wiped when it goes.
struct wiped_bytes {
  std::array<uint8_t, 64> bytes{};
  ~wiped_bytes() { wipe(bytes.data(), bytes.size()); }
};

} // namespace

std::string_view word(size_t index) noexcept {
  return words[index % word_count];
}

secret_text normalized(std::string_view text) {
  if (text.size() > text_bytes_max)
    return {};
  utf8proc_uint8_t* mapped = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &mapped, options);
  if (size < 0)
    return {};
  // One pass in place: what is written never overtakes what is read.
  size_t kept = 0;
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    char c = static_cast<char>(mapped[i]);
    if (c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f')
      c = ' ';
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
    if (c == ' ' && (kept == 0 || mapped[kept - 1] == ' '))
      continue;
    mapped[kept++] = static_cast<utf8proc_uint8_t>(c);
  }
  if (kept > 0 && mapped[kept - 1] == ' ')
    --kept;
  secret_text made(std::string_view(reinterpret_cast<const char*>(mapped), kept));
  wipe(mapped, static_cast<size_t>(size));
  std::free(mapped);
  return made;
}

secret_text from_entropy(std::span<const uint8_t> entropy) {
  if (entropy.size() < 16 || entropy.size() > 32 || entropy.size() % 4 != 0)
    return {};
  wiped_bytes bits; // Entropy, then the first byte of its hash: as many checksum bits as are wanted.
  std::copy(entropy.begin(), entropy.end(), bits.bytes.begin());
  wiped_bytes hash;
  if (!sha256_of(entropy.data(), entropy.size(), hash.bytes.data()))
    return {};
  bits.bytes[entropy.size()] = hash.bytes[0];
  const size_t count = entropy.size() * 3 / 4;
  std::array<char, 24 * 9> text;
  size_t at = 0;
  for (size_t w = 0; w < count; ++w) {
    size_t index = 0;
    for (size_t bit = w * bits_per_word; bit < (w + 1) * bits_per_word; ++bit)
      index = index << 1 | ((bits.bytes[bit / 8] >> (7 - bit % 8)) & 1U);
    if (w > 0)
      text[at++] = ' ';
    at = static_cast<size_t>(std::copy(words[index].begin(), words[index].end(), text.begin() + at) -
                             text.begin());
  }
  secret_text made(std::string_view(text.data(), at));
  wipe(text.data(), text.size());
  return made;
}

bool valid(std::string_view normalized_words) {
  auto indices = indices_of(normalized_words);
  if (indices.empty())
    return false;
  wiped_bytes bits;
  size_t bit = 0;
  for (const size_t index : indices)
    for (size_t i = 0; i < bits_per_word; ++i, ++bit)
      if ((index >> (bits_per_word - 1 - i)) & 1U)
        bits.bytes[bit / 8] = static_cast<uint8_t>(bits.bytes[bit / 8] | (1U << (7 - bit % 8)));
  const size_t entropy_bytes = indices.size() * 4 / 3;
  const size_t checksum_bits = indices.size() / 3;
  wipe(indices.data(), indices.size() * sizeof(size_t));
  wiped_bytes hash;
  if (!sha256_of(bits.bytes.data(), entropy_bytes, hash.bytes.data()))
    return false;
  const auto mask = static_cast<uint8_t>(0xff << (8 - checksum_bits));
  return (bits.bytes[entropy_bytes] & mask) == (hash.bytes[0] & mask);
}

bool seed(std::string_view normalized_words, std::string_view passphrase, uint8_t* out) {
  const std::string salt = "mnemonic" + std::string(passphrase);
  return PKCS5_PBKDF2_HMAC(normalized_words.data(), static_cast<int>(normalized_words.size()),
                           reinterpret_cast<const unsigned char*>(salt.data()), static_cast<int>(salt.size()),
                           2048, EVP_sha512(), 64, out) == 1;
}

} // namespace neuroshard::mnemonic
