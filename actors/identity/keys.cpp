#include "actors/identity/keys.hpp"

#include <openssl/evp.h>
#include <secp256k1.h>

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace neuroshard {

namespace {

struct context_end {
  void operator()(secp256k1_context* context) const noexcept { secp256k1_context_destroy(context); }
};

/// Made once, blinded against side channels, then only read: safe from any thread.
const secp256k1_context* context() {
  static const std::unique_ptr<secp256k1_context, context_end> instance = [] {
    std::unique_ptr<secp256k1_context, context_end> made(
        secp256k1_context_create(SECP256K1_CONTEXT_SIGN | SECP256K1_CONTEXT_VERIFY));
    std::array<uint8_t, 32> blinding;
    [[maybe_unused]] int made_blind = 0; // Without it signing is right all the same.
    if (::getrandom(blinding.data(), blinding.size(), 0) == static_cast<ssize_t>(blinding.size()))
      made_blind = secp256k1_context_randomize(made.get(), blinding.data());
    wipe(blinding.data(), blinding.size());
    return made;
  }();
  return instance.get();
}

/// SHA-256 of secret bytes: OpenSSL wipes its state.
void secret_sha256(const void* data, size_t bytes, uint8_t* out) {
  unsigned size = 0;
  if (EVP_Digest(data, bytes, out, &size, EVP_sha256(), nullptr) != 1)
    std::abort(); // No memory: a key must not be made of garbage.
}

std::string key_hash_hex(const public_key& key, size_t digits) {
  return kernels::to_hex(kernels::sha256::of(std::span<const uint8_t>(key))).substr(0, digits);
}

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

} // namespace

caf::expected<key_pair> make_key_pair(secret_key secret) {
  key_pair pair;
  secp256k1_pubkey point;
  if (secp256k1_ec_pubkey_create(context(), &point, secret.data()) != 1)
    return refuse(errc::invalid_request, "This token gives no valid key; choose another.");
  size_t size = pair.pub.size();
  secp256k1_ec_pubkey_serialize(context(), pair.pub.data(), &size, &point, SECP256K1_EC_COMPRESSED);
  pair.secret = std::move(secret);
  return pair;
}

caf::expected<key_pair> wallet_key(std::string_view canonical_token) {
  secret_key secret;
  secret_sha256(canonical_token.data(), canonical_token.size(), secret.data());
  return make_key_pair(std::move(secret));
}

caf::expected<key_pair> node_key(const key_pair& wallet, uint32_t instance) {
  if (instance == 0)
    return make_key_pair(wallet.secret.copy());
  static constexpr char tag[] = {'n', 's', '-', 'n', 'o', 'd', 'e'};
  std::array<uint8_t, 32 + sizeof(tag) + 4> text;
  std::memcpy(text.data(), wallet.secret.data(), 32);
  std::memcpy(text.data() + 32, tag, sizeof(tag));
  for (int i = 0; i < 4; ++i)
    text[32 + sizeof(tag) + i] = static_cast<uint8_t>(instance >> (24 - 8 * i));
  secret_key secret;
  secret_sha256(text.data(), text.size(), secret.data());
  wipe(text.data(), text.size());
  return make_key_pair(std::move(secret));
}

std::string address_of(const public_key& key) {
  return "0x" + key_hash_hex(key, 40);
}
std::string wallet_id_of(const public_key& key) {
  return key_hash_hex(key, 16);
}
std::string node_id_of(const public_key& key) {
  return key_hash_hex(key, 32);
}

std::optional<std::string> parse_address(std::string_view text) {
  if (text.size() != 42 || text[0] != '0' || text[1] != 'x')
    return std::nullopt;
  std::string made(text);
  for (size_t i = 2; i < made.size(); ++i) {
    const int value = hex_value(made[i]);
    if (value < 0)
      return std::nullopt;
    made[i] = "0123456789abcdef"[value];
  }
  return made;
}

bool is_zero_address(std::string_view address) noexcept {
  return address.size() == 42 && address.find_first_not_of('0', 2) == std::string_view::npos;
}

kernels::digest signing_digest(std::string_view tag, std::string_view payload) {
  const kernels::digest inner = kernels::sha256::of(payload);
  return kernels::sha256()
      .update(tag)
      .update(std::string_view("\n"))
      .update(std::span<const uint8_t>(inner))
      .finish();
}

signature sign_digest(const key_pair& key, const kernels::digest& digest) {
  secp256k1_ecdsa_signature made;
  // Fails only for an invalid key, and a key pair is made only of a valid one. The null nonce function is RFC
  // 6979.
  if (secp256k1_ecdsa_sign(context(), &made, digest.data(), key.secret.data(), nullptr, nullptr) != 1)
    std::abort();
  signature out;
  secp256k1_ecdsa_signature_serialize_compact(context(), out.data(), &made);
  return out;
}

bool verify_digest(std::span<const uint8_t> key, std::span<const uint8_t> sig,
                   const kernels::digest& digest) {
  if (key.size() != 33 || sig.size() != 64)
    return false;
  secp256k1_pubkey point;
  secp256k1_ecdsa_signature read;
  return secp256k1_ec_pubkey_parse(context(), &point, key.data(), key.size()) == 1 &&
         secp256k1_ecdsa_signature_parse_compact(context(), &read, sig.data()) == 1 &&
         // A high s is refused, so that a signature cannot be given a second form.
         secp256k1_ecdsa_signature_normalize(context(), nullptr, &read) == 0 &&
         secp256k1_ecdsa_verify(context(), &read, digest.data(), &point) == 1;
}

signature sign(const key_pair& key, std::string_view tag, std::string_view payload) {
  return sign_digest(key, signing_digest(tag, payload));
}

bool verify(std::span<const uint8_t> key, std::span<const uint8_t> sig, std::string_view tag,
            std::string_view payload) {
  return verify_digest(key, sig, signing_digest(tag, payload));
}

bool from_hex(std::string_view text, uint8_t* out, size_t size) noexcept {
  if (text.size() != 2 * size)
    return false;
  for (size_t i = 0; i < size; ++i) {
    const int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
    if (high < 0 || low < 0)
      return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

bool is_lower_hex(std::string_view text, size_t digits) noexcept {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::optional<kernels::digest> digest_from_hex(std::string_view text) noexcept {
  kernels::digest made{};
  if (!is_lower_hex(text, 2 * made.size()) || !from_hex(text, made.data(), made.size()))
    return std::nullopt;
  return made;
}

} // namespace neuroshard
