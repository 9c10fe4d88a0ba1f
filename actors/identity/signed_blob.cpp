// The protobuf bytes of SignedBlob and Delegation, written by hand: both are signed or nested as bytes, and
// generated code is seen by gateway/grpc alone.
#include "actors/identity/node_identity.hpp"

#include <algorithm>
#include <functional>

namespace neuroshard {

namespace {

constexpr size_t blob_bytes_max = 64 * 1024;

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_bytes(std::string& out, uint32_t field, std::string_view bytes) {
  if (bytes.empty())
    return; // proto3 leaves defaults out
  put_varint(out, field << 3 | 2);
  put_varint(out, bytes.size());
  out.append(bytes);
}

void put_int(std::string& out, uint32_t field, int64_t value) {
  if (value == 0)
    return;
  put_varint(out, field << 3);
  put_varint(out, static_cast<uint64_t>(value));
}

template <size_t N>
std::string_view view_of(const std::array<uint8_t, N>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), N};
}

bool take_varint(std::string_view& in, uint64_t& out) {
  out = 0;
  for (int shift = 0; shift < 64 && !in.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(in.front());
    in.remove_prefix(1);
    if (shift == 63 && byte > 1)
      return false;
    out |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80)
      return true;
  }
  return false;
}

/// One field as read: a number, or bytes.
struct wire_field {
  uint32_t number = 0;
  bool is_bytes = false;
  uint64_t value = 0;
  std::string_view bytes;
};

/// Hands every field to `each`, which says whether it is in order. Fields of unknown number are passed too,
/// to be skipped.
bool read_fields(std::string_view in, const std::function<bool(const wire_field&)>& each) {
  if (in.size() > blob_bytes_max)
    return false;
  while (!in.empty()) {
    uint64_t key = 0;
    if (!take_varint(in, key) || (key >> 3) == 0 || (key >> 3) > 0x1fffffff)
      return false;
    wire_field field;
    field.number = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
    case 0:
      if (!take_varint(in, field.value))
        return false;
      break;
    case 2: {
      uint64_t size = 0;
      if (!take_varint(in, size) || size > in.size())
        return false;
      field.is_bytes = true;
      field.bytes = in.substr(0, size);
      in.remove_prefix(size);
      break;
    }
    default:
      return false;
    }
    if (!each(field))
      return false;
  }
  return true;
}

template <size_t N>
bool take_exactly(const wire_field& field, std::array<uint8_t, N>& out) {
  if (!field.is_bytes || field.bytes.size() != N)
    return false;
  std::copy(field.bytes.begin(), field.bytes.end(), out.begin());
  return true;
}

caf::error not_signed(std::string message, std::string reason) {
  problem what;
  what.message = std::move(message);
  what.reason = std::move(reason);
  return refuse(errc::unauthorized, std::move(what));
}

} // namespace

std::string encode_delegation(const delegation& from) {
  std::string out;
  put_bytes(out, 1, view_of(from.node_key));
  put_bytes(out, 2, from.address);
  put_int(out, 3, from.issued_unix_ms);
  put_int(out, 4, from.expires_unix_ms);
  return out;
}

caf::expected<delegation> decode_delegation(std::string_view bytes) {
  delegation made;
  bool has_key = false;
  const bool ok = read_fields(bytes, [&](const wire_field& field) {
    switch (field.number) {
    case 1:
      return has_key = take_exactly(field, made.node_key);
    case 2: {
      const auto address = field.is_bytes ? parse_address(field.bytes) : std::nullopt;
      if (!address || *address != field.bytes)
        return false;
      made.address = *address;
      return true;
    }
    case 3:
      made.issued_unix_ms = static_cast<int64_t>(field.value);
      return !field.is_bytes;
    case 4:
      made.expires_unix_ms = static_cast<int64_t>(field.value);
      return !field.is_bytes;
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
  put_bytes(out, 1, from.payload);
  put_bytes(out, 2, view_of(from.key));
  put_bytes(out, 3, view_of(from.sig));
  put_bytes(out, 4, from.delegation);
  return out;
}

caf::expected<signed_blob> decode_signed_blob(std::string_view bytes) {
  signed_blob made;
  bool has_key = false, has_signature = false;
  const bool ok = read_fields(bytes, [&](const wire_field& field) {
    switch (field.number) {
    case 1:
      made.payload = field.bytes;
      return field.is_bytes;
    case 2:
      return has_key = take_exactly(field, made.key);
    case 3:
      return has_signature = take_exactly(field, made.sig);
    case 4:
      made.delegation = field.bytes;
      return field.is_bytes;
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
  if (inner->expires_unix_ms <= now_unix_ms)
    return not_signed("The delegation has expired.", "bad_delegation");
  signer.address = inner->address;
  return signer;
}

} // namespace neuroshard
