#include "actors/identity/node_identity.hpp"
#include "actors/identity/wire.hpp"

namespace neuroshard {

namespace {

caf::error not_signed(std::string message, std::string reason) {
  problem what;
  what.message = std::move(message);
  what.reason = std::move(reason);
  return refuse(errc::unauthorized, std::move(what));
}

} // namespace

std::string encode_delegation(const delegation& from) {
  std::string out;
  wire::put_bytes(out, 1, wire::view_of(from.node_key));
  wire::put_bytes(out, 2, from.address);
  wire::put_int(out, 3, from.issued_unix_ms);
  wire::put_int(out, 4, from.expires_unix_ms);
  return out;
}

caf::expected<delegation> decode_delegation(std::string_view bytes) {
  delegation made;
  bool has_key = false;
  const bool ok = wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return has_key = wire::take_exactly(field, made.node_key);
    case 2: {
      const auto address = field.is_bytes() ? parse_address(field.bytes) : std::nullopt;
      if (!address || *address != field.bytes)
        return false;
      made.address = *address;
      return true;
    }
    case 3:
      made.issued_unix_ms = static_cast<int64_t>(field.value);
      return field.is_number();
    case 4:
      made.expires_unix_ms = static_cast<int64_t>(field.value);
      return field.is_number();
    default:
      return true;
    }
  });
  if (!ok || !has_key || made.address.empty())
    return refuse(errc::invalid_request, "The delegation is malformed.");
  return made;
}

std::string encode_signed_blob(const signed_blob& from) {
  std::string out;
  wire::put_bytes(out, 1, from.payload);
  wire::put_bytes(out, 2, wire::view_of(from.key));
  wire::put_bytes(out, 3, wire::view_of(from.sig));
  wire::put_bytes(out, 4, from.delegation);
  return out;
}

caf::expected<signed_blob> decode_signed_blob(std::string_view bytes) {
  signed_blob made;
  bool has_key = false, has_signature = false;
  const bool ok = wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      made.payload = field.bytes;
      return field.is_bytes();
    case 2:
      return has_key = wire::take_exactly(field, made.key);
    case 3:
      return has_signature = wire::take_exactly(field, made.sig);
    case 4:
      made.delegation = field.bytes;
      return field.is_bytes();
    default:
      return true;
    }
  });
  if (!ok || !has_key || !has_signature)
    return refuse(errc::invalid_request, "The signed object is malformed.");
  return made;
}

caf::expected<blob_signer> verify_blob(const signed_blob& blob, std::string_view tag, int64_t now_unix_ms) {
  if (!verify(blob.key, blob.sig, tag, blob.payload))
    return not_signed("The signature is not valid.", "bad_signature");
  blob_signer signer{node_id_of(blob.key), address_of(blob.key)};
  if (blob.delegation.empty())
    return signer;
  const auto outer = decode_signed_blob(blob.delegation);
  if (!outer || !outer->delegation.empty() || !verify(outer->key, outer->sig, delegation_tag, outer->payload))
    return not_signed("The delegation is not signed by a wallet.", "bad_delegation");
  const auto inner = decode_delegation(outer->payload);
  if (!inner || inner->node_key != blob.key || inner->address != address_of(outer->key))
    return not_signed("The delegation is not for this node key.", "bad_delegation");
  // In 128 bits: both are the sender's numbers.
  if (static_cast<__int128>(inner->expires_unix_ms) - inner->issued_unix_ms > delegation_ms)
    return not_signed("The delegation is for more than 30 days.", "bad_delegation");
  if (inner->expires_unix_ms <= now_unix_ms)
    return not_signed("The delegation has expired.", "bad_delegation");
  signer.address = inner->address;
  return signer;
}

} // namespace neuroshard
