#include "actors/gradient_exchanger/exchange_records.hpp"

#include "actors/gradient_exchanger/delta_codec.hpp"
#include "actors/identity/wire.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t reason_bytes_max = 64;

caf::error malformed_record(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

bool is_reason(std::string_view text) {
  return !text.empty() && text.size() <= reason_bytes_max &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

bool take_member(const wire::field& from, set_refusal& into) {
  bool hashed = false;
  const bool read = from.is_bytes() && wire::read_fields(from.bytes, [&](const wire::field& field) {
                      switch (field.number) {
                      case 1:
                        return wire::take_text(field, into.node_id);
                      case 2:
                        hashed = wire::take_exactly(field, into.content_hash);
                        return hashed;
                      case 3:
                        return wire::take_text(field, into.reason);
                      default:
                        return true;
                      }
                    });
  return read && hashed && is_lower_hex(into.node_id, 32);
}

std::string encode_member(const std::string& node_id, const kernels::digest& hash, std::string_view reason) {
  std::string out;
  wire::put_bytes(out, 1, node_id);
  wire::put_bytes(out, 2, wire::view_of(hash));
  wire::put_bytes(out, 3, reason);
  return out;
}

/// Nothing, or the field of a manifest that is out of bounds. `hashes`: fields 4 and 13 were there.
caf::error check_manifest_form(const delta_manifest& of, bool hashes) {
  if (!is_unit_name(of.unit))
    return malformed_record("unit", "A unit is embed, layer.N or head.");
  if (!hashes)
    return malformed_record("base_unit_hash", "A hash is missing.");
  if (!is_lower_hex(of.architecture_id, 16))
    return malformed_record("architecture_id", "An architecture id is 16 hex digits.");
  if (!is_lower_hex(of.node_id, 32))
    return malformed_record("node_id", "A node id is 32 hex digits.");
  if (of.part_sha256.empty() || of.part_sha256.size() > delta_parts_max)
    return malformed_record("part_sha256", "A contribution has 1 to 4096 parts.");
  if (of.content_hash != content_hash_of(of.part_sha256))
    return malformed_record("content_hash", "The content hash is not that of the parts' hashes.");
  return {};
}

caf::error check_set_form(const delta_set& of, bool hashed) {
  if (!is_unit_name(of.unit))
    return malformed_record("unit", "A unit is embed, layer.N or head.");
  if (!hashed)
    return malformed_record("base_unit_hash", "The hash of the unit is missing.");
  if (!is_lower_hex(of.collector, 32))
    return malformed_record("collector", "A node id is 32 hex digits.");
  for (size_t i = 1; i < of.members.size(); ++i)
    if (of.members[i - 1].node_id >= of.members[i].node_id)
      return malformed_record("members", "The members of a set ascend by node id, none twice.");
  return {};
}

/// `wrong_signer` unless the record speaks of who signed it.
caf::error check_signer(const signed_blob& blob, std::string_view tag, int64_t now_unix_ms,
                        const std::string& node_id) {
  const auto signer = verify_blob(blob, tag, now_unix_ms);
  if (!signer)
    return signer.error();
  if (signer->node_id == node_id)
    return {};
  problem what;
  what.message = "The record is signed by another node than it names.";
  what.reason = "wrong_signer";
  return refuse(errc::unauthorized, std::move(what));
}

} // namespace

bool is_unit_name(std::string_view text) {
  constexpr std::string_view prefix = "layer.";
  if (text == "embed" || text == "head")
    return true;
  if (!text.starts_with(prefix))
    return false;
  const auto digits = text.substr(prefix.size());
  return !digits.empty() && digits.size() <= 5 && (digits == "0" || digits.front() != '0') &&
         std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

kernels::digest content_hash_of(std::span<const kernels::digest> part_sha256) {
  kernels::sha256 hash;
  for (const auto& part : part_sha256)
    hash.update(part);
  return hash.finish();
}

void seal_parts(delta_manifest& into, std::span<const delta_part> parts) {
  into.part_sha256.clear();
  for (const auto& part : parts)
    into.part_sha256.push_back(kernels::sha256::of(*part));
  into.content_hash = content_hash_of(into.part_sha256);
}

bool is_part(const delta_manifest& of, uint32_t part, std::string_view bytes) {
  return part < of.part_sha256.size() && bytes.size() <= delta_part_bytes_max &&
         kernels::sha256::of(bytes) == of.part_sha256[part];
}

std::string encode_delta_manifest(const delta_manifest& from) {
  std::string out;
  wire::put_bytes(out, 1, from.unit);
  wire::put_unsigned(out, 2, from.round);
  wire::put_unsigned(out, 3, from.base_round);
  wire::put_bytes(out, 4, wire::view_of(from.base_unit_hash));
  wire::put_bytes(out, 5, from.architecture_id);
  wire::put_bytes(out, 6, from.node_id);
  wire::put_unsigned(out, 7, from.inner_steps);
  wire::put_unsigned(out, 8, from.batches);
  wire::put_unsigned(out, 9, from.tokens);
  wire::put_double(out, 10, from.loss);
  wire::put_unsigned(out, 11, static_cast<uint64_t>(from.encoding));
  for (const auto& part : from.part_sha256)
    wire::put_bytes(out, 12, wire::view_of(part));
  wire::put_bytes(out, 13, wire::view_of(from.content_hash));
  wire::put_int(out, 14, from.created_unix_ms);
  return out;
}

caf::expected<delta_manifest> decode_delta_manifest(std::string_view payload) {
  delta_manifest made;
  uint64_t encoding = 0;
  bool base_hash = false;
  bool content_hash = false;
  const auto take = [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_text(field, made.unit);
    case 2:
      return wire::take_number(field, made.round);
    case 3:
      return wire::take_number(field, made.base_round);
    case 4:
      return base_hash = wire::take_exactly(field, made.base_unit_hash);
    case 5:
      return wire::take_text(field, made.architecture_id);
    case 6:
      return wire::take_text(field, made.node_id);
    case 7:
      return wire::take_number(field, made.inner_steps);
    case 8:
      return wire::take_number(field, made.batches);
    case 9:
      return wire::take_number(field, made.tokens);
    case 10:
      return wire::take_double(field, made.loss);
    case 11:
      return wire::take_number(field, encoding);
    case 12:
      return made.part_sha256.size() < delta_parts_max &&
             wire::take_exactly(field, made.part_sha256.emplace_back());
    case 13:
      return content_hash = wire::take_exactly(field, made.content_hash);
    case 14:
      return wire::take_number(field, made.created_unix_ms);
    default:
      return true;
    }
  };
  if (!wire::read_fields(payload, take, exchange_record_bytes_max))
    return malformed_record("manifest", "The manifest of a contribution is malformed.");
  if (encoding < 1 || encoding > 4)
    return malformed_record("encoding", "The encoding of a contribution is unknown.");
  made.encoding = static_cast<delta_encoding>(encoding);
  if (auto wrong = check_manifest_form(made, base_hash && content_hash))
    return wrong;
  return made;
}

std::string encode_delta_set(const delta_set& from) {
  std::string out;
  wire::put_bytes(out, 1, from.unit);
  wire::put_unsigned(out, 2, from.round);
  wire::put_bytes(out, 3, wire::view_of(from.base_unit_hash));
  wire::put_bytes(out, 4, from.collector);
  for (const auto& member : from.members)
    wire::put_bytes(out, 5, encode_member(member.node_id, member.content_hash, {}));
  for (const auto& refusal : from.refused)
    wire::put_bytes(out, 6, encode_member(refusal.node_id, refusal.content_hash, refusal.reason));
  wire::put_int(out, 7, from.created_unix_ms);
  return out;
}

caf::expected<delta_set> decode_delta_set(std::string_view payload) {
  delta_set made;
  bool hashed = false;
  const auto take = [&](const wire::field& field) {
    set_refusal member;
    switch (field.number) {
    case 1:
      return wire::take_text(field, made.unit);
    case 2:
      return wire::take_number(field, made.round);
    case 3:
      return hashed = wire::take_exactly(field, made.base_unit_hash);
    case 4:
      return wire::take_text(field, made.collector);
    case 5:
      if (made.members.size() == set_members_max || !take_member(field, member))
        return false;
      made.members.push_back({std::move(member.node_id), member.content_hash});
      return true;
    case 6:
      if (made.refused.size() == set_members_max || !take_member(field, member) || !is_reason(member.reason))
        return false;
      made.refused.push_back(std::move(member));
      return true;
    case 7:
      return wire::take_number(field, made.created_unix_ms);
    default:
      return true;
    }
  };
  if (!wire::read_fields(payload, take, exchange_record_bytes_max))
    return malformed_record("set", "The set of contributions is malformed.");
  if (auto wrong = check_set_form(made, hashed))
    return wrong;
  return made;
}

std::string encode_round_end(const round_end& from) {
  std::string out;
  wire::put_unsigned(out, 1, from.round);
  wire::put_bytes(out, 2, from.architecture_id);
  wire::put_bytes(out, 3, from.node_id);
  wire::put_unsigned(out, 4, from.inner_steps);
  wire::put_int(out, 5, from.created_unix_ms);
  return out;
}

caf::expected<round_end> decode_round_end(std::string_view payload) {
  round_end made;
  const bool read = wire::read_fields(payload, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_number(field, made.round);
    case 2:
      return wire::take_text(field, made.architecture_id);
    case 3:
      return wire::take_text(field, made.node_id);
    case 4:
      return wire::take_number(field, made.inner_steps);
    case 5:
      return wire::take_number(field, made.created_unix_ms);
    default:
      return true;
    }
  });
  if (!read)
    return malformed_record("round_end", "The end of a round is malformed.");
  if (!is_lower_hex(made.architecture_id, 16))
    return malformed_record("architecture_id", "An architecture id is 16 hex digits.");
  if (!is_lower_hex(made.node_id, 32))
    return malformed_record("node_id", "A node id is 32 hex digits.");
  return made;
}

signed_blob sign_delta_manifest(const node_identity& by, const delta_manifest& what) {
  return by.sign_as_node(delta_tag, encode_delta_manifest(what));
}
signed_blob sign_delta_set(const node_identity& by, const delta_set& what) {
  return by.sign_as_node(set_tag, encode_delta_set(what));
}
signed_blob sign_round_end(const node_identity& by, const round_end& what) {
  return by.sign_as_node(round_tag, encode_round_end(what));
}

caf::expected<delta_manifest> open_delta_manifest(const signed_blob& blob, int64_t now_unix_ms) {
  auto what = decode_delta_manifest(blob.payload);
  if (what)
    if (auto wrong = check_signer(blob, delta_tag, now_unix_ms, what->node_id))
      return wrong;
  return what;
}
caf::expected<delta_set> open_delta_set(const signed_blob& blob, int64_t now_unix_ms) {
  auto what = decode_delta_set(blob.payload);
  if (what)
    if (auto wrong = check_signer(blob, set_tag, now_unix_ms, what->collector))
      return wrong;
  return what;
}
caf::expected<round_end> open_round_end(const signed_blob& blob, int64_t now_unix_ms) {
  auto what = decode_round_end(blob.payload);
  if (what)
    if (auto wrong = check_signer(blob, round_tag, now_unix_ms, what->node_id))
      return wrong;
  return what;
}

} // namespace neuroshard
