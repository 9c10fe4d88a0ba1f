#include "actors/identity/node_identity.hpp"

namespace neuroshard {

caf::expected<node_identity> node_identity::make(const access_token& token, uint32_t instance,
                                                 int64_t now_unix_ms) {
  node_identity made;
  auto wallet = wallet_key(token.canonical.view());
  if (!wallet)
    return wallet.error();
  auto node = node_key(*wallet, instance);
  if (!node)
    return node.error();
  made.wallet_ = std::move(*wallet);
  made.node_ = std::move(*node);
  made.instance_ = instance;
  made.address_ = address_of(made.wallet_.pub);
  made.wallet_id_ = wallet_id_of(made.wallet_.pub);
  made.node_id_ = node_id_of(made.node_.pub);
  made.token_digest_ = neuroshard::token_digest(token);
  if (instance > 0) {
    signed_blob blob;
    blob.payload =
        encode_delegation({made.node_.pub, made.address_, now_unix_ms, now_unix_ms + delegation_ms});
    blob.key = made.wallet_.pub;
    blob.sig = sign(made.wallet_, delegation_tag, blob.payload);
    made.delegation_ = encode_signed_blob(blob);
  }
  return made;
}

signature node_identity::sign_as_wallet(std::string_view tag, std::string_view payload) const {
  return sign(wallet_, tag, payload);
}

signed_blob node_identity::sign_as_node(std::string_view tag, std::string payload) const {
  signed_blob blob;
  blob.sig = sign(node_, tag, payload);
  blob.payload = std::move(payload);
  blob.key = node_.pub;
  blob.delegation = delegation_;
  return blob;
}

} // namespace neuroshard
