#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/error.hpp"
#include "actors/identity/secret.hpp"
#include "kernels/core/sha256.hpp"

#include <string_view>

namespace neuroshard {

/// The three ways to write an access token (spec/economics.md section 2).
enum class token_form : uint8_t { hex, mnemonic, word };

/// A token in its canonical form: 64 lower-case hex digits, or the one word.
struct access_token {
  secret_text canonical;
  token_form form{};
  /// One word can be guessed: warn loudly at start.
  bool guessable() const noexcept { return form == token_form::word; }
};

/// Says which form a text has, without the 2,048 rounds that turn words into a seed; for 12 words the
/// checksum is verified. Blanks around it are ignored. Refusal: unauthorized, never naming the text.
caf::expected<token_form> inspect_token(std::string_view text);

/// Reads a token in any form; 12 words cost about a millisecond. Refusal as inspect_token.
caf::expected<access_token> parse_token(std::string_view text);

/// SHA-256 of the canonical token: what requests are recognized by.
kernels::digest token_digest(const access_token& token);
/// Compares in constant time.
bool equal_digests(const kernels::digest& a, const kernels::digest& b) noexcept;

/// Makes a new wallet: 12 words from 128 random bits.
secret_text new_mnemonic(random_source& random);

} // namespace neuroshard
