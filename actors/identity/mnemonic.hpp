#pragma once

#include "actors/common/error.hpp"
#include "actors/identity/secret.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

/// BIP39 in English, 12 to 24 words. The word list is that of the specification
/// (actors/identity/english_words.inc).
namespace neuroshard::mnemonic {

inline constexpr size_t word_count = 2048;

/// The word of an index below 2048.
std::string_view word(size_t index) noexcept;

/// NFKD, ASCII letters lower-cased, single spaces, none at the ends. Nothing (empty) when the text is not
/// UTF-8 or over 1 KiB.
secret_text normalized(std::string_view text);

/// Words of 16, 20, 24, 28 or 32 bytes of entropy; empty for another size.
secret_text from_entropy(std::span<const uint8_t> entropy);

/// Whether a normalized text is 12 (or 15, 18, 21, 24) words of the list with the right checksum.
bool valid(std::string_view normalized_words);

/// The 64-byte seed: PBKDF2-HMAC-SHA512 over normalized words, salt "mnemonic" + passphrase, 2,048 rounds.
/// Written to `out[64]`.
bool seed(std::string_view normalized_words, std::string_view passphrase, uint8_t* out);

} // namespace neuroshard::mnemonic
