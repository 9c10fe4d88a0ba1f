#pragma once

#include "actors/common/error.hpp"
#include "actors/identity/secret.hpp"
#include "kernels/core/sha256.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace neuroshard {

using public_key = std::array<uint8_t, 33>; ///< compressed secp256k1 point
using signature = std::array<uint8_t, 64>;  ///< r || s, big endian, s low

/// secp256k1 key pair.
struct key_pair {
  secret_key secret;
  public_key pub{};
};

/// The pair of a private key; refuses 0 and values from the group order on.
caf::expected<key_pair> make_key_pair(secret_key secret);

/// Wallet key: SHA-256 of the canonical token's bytes.
caf::expected<key_pair> wallet_key(std::string_view canonical_token);
/// Node key: the wallet key for instance 0, else SHA-256(wallet key || "ns-node" || instance as u32 BE).
caf::expected<key_pair> node_key(const key_pair& wallet, uint32_t instance);

/// `0x` and the first 40 hex digits of SHA-256 of the public key.
std::string address_of(const public_key& key);
/// First 16 hex digits of it: file names and display.
std::string wallet_id_of(const public_key& key);
/// First 32 hex digits of it.
std::string node_id_of(const public_key& key);

/// Lower-cases an address; nothing when it is none. The all-zero address is one: see is_zero_address.
std::optional<std::string> parse_address(std::string_view text);
bool is_zero_address(std::string_view address) noexcept;

/// What is signed: SHA-256(tag || "\n" || SHA-256(payload)).
kernels::digest signing_digest(std::string_view tag, std::string_view payload);
/// ECDSA with RFC 6979 nonces over a 32-byte digest; always low-S.
signature sign_digest(const key_pair& key, const kernels::digest& digest);
/// False for a bad key, a malformed or a high-S signature.
bool verify_digest(std::span<const uint8_t> key, std::span<const uint8_t> sig, const kernels::digest& digest);

signature sign(const key_pair& key, std::string_view tag, std::string_view payload);
bool verify(std::span<const uint8_t> key, std::span<const uint8_t> sig, std::string_view tag,
            std::string_view payload);

/// Bytes of a hex text of exactly `size` bytes, either case; false otherwise.
bool from_hex(std::string_view text, uint8_t* out, size_t size) noexcept;
/// Whether the text is exactly this many digits of lower-case hex.
bool is_lower_hex(std::string_view text, size_t digits) noexcept;
/// The digest that 64 digits of lower-case hex stand for, as kernels::to_hex writes it; nothing for any other
/// text.
std::optional<kernels::digest> digest_from_hex(std::string_view text) noexcept;

} // namespace neuroshard
