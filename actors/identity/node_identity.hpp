#pragma once

#include "actors/common/clock.hpp"
#include "actors/identity/keys.hpp"
#include "actors/identity/token.hpp"

#include <cstdint>
#include <string>

namespace neuroshard {

/// What stays provable after a connection is gone (spec/grpc-api.md section 2); the codec of gateway/grpc
/// turns it into the message.
struct signed_blob {
  std::string payload; ///< bytes as received; never serialized again
  public_key key{};
  signature sig{};
  std::string
      delegation; ///< serialized SignedBlob of a Delegation, empty when the node key is the wallet key
};

/// A wallet lets a node key sign for it until it expires.
struct delegation {
  public_key node_key{};
  std::string address;
  int64_t issued_unix_ms = 0;
  int64_t expires_unix_ms = 0;
};

inline constexpr std::string_view delegation_tag = "neuroshard-delegate-v1";
inline constexpr int64_t delegation_days = 30;
inline constexpr int64_t delegation_ms = delegation_days * 86'400'000;

/// Protobuf bytes of messages Delegation and SignedBlob, fields in order. The readers refuse unknown wire
/// types, wrong lengths and more than 64 KiB.
std::string encode_delegation(const delegation& from);
caf::expected<delegation> decode_delegation(std::string_view bytes);
std::string encode_signed_blob(const signed_blob& from);
caf::expected<signed_blob> decode_signed_blob(std::string_view bytes);

/// Whose word a blob is.
struct blob_signer {
  std::string node_id;
  std::string address; ///< the wallet: from the delegation, else of the node key itself
};
/// Checks signature and delegation (signed by the wallet it names, for this node key, for at most 30 days,
/// not expired at now_unix_ms). Refusal: unauthorized with reason `bad_signature` or `bad_delegation`.
caf::expected<blob_signer> verify_blob(const signed_blob& blob, std::string_view tag, int64_t now_unix_ms);

/// The node's keys. Immutable and thread safe after it is made; secrets are wiped when it goes.
class node_identity {
public:
  /// `now_unix_ms` dates the delegation of an instance above 0.
  static caf::expected<node_identity> make(const access_token& token, uint32_t instance, int64_t now_unix_ms);

  const std::string& address() const noexcept { return address_; }
  const std::string& wallet_id() const noexcept { return wallet_id_; }
  const std::string& node_id() const noexcept { return node_id_; }
  uint32_t instance() const noexcept { return instance_; }
  const kernels::digest& token_digest() const noexcept { return token_digest_; }
  const public_key& wallet_public_key() const noexcept { return wallet_.pub; }
  const public_key& node_public_key() const noexcept { return node_.pub; }

  /// Signs with the wallet key: transactions of the node's own book.
  signature sign_as_wallet(std::string_view tag, std::string_view payload) const;
  /// Signs with the node key, delegation enclosed: what goes to other nodes.
  signed_blob sign_as_node(std::string_view tag, std::string payload) const;

private:
  node_identity() = default;
  key_pair wallet_;
  key_pair node_;
  std::string address_;
  std::string wallet_id_;
  std::string node_id_;
  std::string delegation_;
  kernels::digest token_digest_{};
  uint32_t instance_ = 0;
};

} // namespace neuroshard
