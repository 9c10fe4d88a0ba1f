#include "actors/peer_manager/node_info.hpp"

#include "actors/identity/wire.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t host_bytes_max = 253;
constexpr size_t word_bytes_max = 64;
constexpr uint32_t layers_max = 65'536;
constexpr size_t units_max = 1'024;
constexpr size_t roles_max = 16;
constexpr uint32_t port_max = 65'535;

caf::error malformed_node(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

bool is_host(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '-' || c == ':' || c == '_';
  };
  return text.size() <= host_bytes_max && std::all_of(text.begin(), text.end(), allowed);
}

bool is_word(std::string_view text) {
  const auto printable = [](char c) { return c > 0x20 && c <= 0x7e; };
  return text.size() <= word_bytes_max && std::all_of(text.begin(), text.end(), printable);
}

/// "embed", "head" or "layer.N" without leading zeros.
bool is_unit(std::string_view text) {
  if (text == "embed" || text == "head")
    return true;
  constexpr std::string_view prefix = "layer.";
  if (!text.starts_with(prefix))
    return false;
  const auto digits = text.substr(prefix.size());
  return !digits.empty() && digits.size() <= 5 && (digits == "0" || digits.front() != '0') &&
         std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

template <size_t N>
bool take_digest(const wire::field& from, std::optional<std::array<uint8_t, N>>& out) {
  if (from.is_bytes() && from.bytes.empty())
    return true;
  return wire::take_exactly(from, out.emplace());
}

bool take_role(const wire::field& from, std::vector<node_role>& out) {
  const auto add = [&](uint64_t number) {
    if (number >= 1 && number <= 3 && out.size() < roles_max)
      out.push_back(static_cast<node_role>(number));
  };
  if (from.is_number()) {
    add(from.value);
    return true;
  }
  if (!from.is_bytes() || from.bytes.size() > roles_max)
    return false;
  for (const char c : from.bytes) // packed; every known role is one byte
    add(static_cast<uint8_t>(c));
  return true;
}

bool take_unit(const wire::field& from, std::vector<unit_state>& out) {
  if (!from.is_bytes() || out.size() == units_max)
    return false;
  auto& unit = out.emplace_back();
  std::optional<kernels::digest> hash;
  const bool read = wire::read_fields(from.bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_text(field, unit.unit);
    case 2:
      return take_digest(field, hash);
    case 3:
      return take_digest(field, unit.velocity_hash);
    default:
      return true;
    }
  });
  if (!read || !hash || !is_unit(unit.unit))
    return false;
  unit.unit_hash = *hash;
  return true;
}

/// Nothing, or what is out of its bounds.
caf::error check_node(const node_description& of) {
  if (!is_lower_hex(of.node_id, 32))
    return malformed_node("node_id", "A node id is 32 hex digits.");
  if (const auto address = parse_address(of.wallet_address); !address || *address != of.wallet_address)
    return malformed_node("wallet_address", "The wallet's address is not one.");
  if (!is_host(of.host))
    return malformed_node("host", "A host is an IP address or a name of at most 253 characters.");
  if (of.grpc_port > port_max || of.http_port > port_max || (of.grpc_port == 0 && !of.host.empty()))
    return malformed_node("grpc_port", "A port is 1 to 65535.");
  if (of.sequence == 0)
    return malformed_node("sequence", "The sequence number is missing.");
  if (of.layer_begin > of.layer_end || of.layer_end > layers_max)
    return malformed_node("layer_end", "The range of layers is out of range.");
  if (!is_word(of.device) || !is_word(of.software_version))
    return malformed_node("device", "Device and version are words of at most 64 characters.");
  if (!of.architecture_id.empty() && !is_lower_hex(of.architecture_id, 16))
    return malformed_node("architecture_id", "An architecture id is 16 hex digits.");
  if (!(of.utilization >= 0 && of.utilization <= 1))
    return malformed_node("utilization", "The utilization is 0 to 1.");
  if (!(of.ms_per_layer >= 0) || !std::isfinite(of.ms_per_layer))
    return malformed_node("ms_per_layer", "The time for a layer is not negative and finite.");
  return {};
}

} // namespace

std::string encode_node_info(const node_description& from) {
  std::string out;
  wire::put_bytes(out, 1, from.node_id);
  wire::put_bytes(out, 2, from.wallet_address);
  wire::put_bytes(out, 3, from.host);
  wire::put_unsigned(out, 4, from.grpc_port);
  wire::put_unsigned(out, 5, from.http_port);
  if (from.tls_cert_sha256)
    wire::put_bytes(out, 6, wire::view_of(*from.tls_cert_sha256));
  wire::put_unsigned(out, 7, from.sequence);
  std::string roles;
  for (const auto role : from.roles)
    roles.push_back(static_cast<char>(role));
  wire::put_bytes(out, 8, roles);
  wire::put_unsigned(out, 9, from.layer_begin);
  wire::put_unsigned(out, 10, from.layer_end);
  wire::put_unsigned(out, 11, from.has_embedding);
  wire::put_unsigned(out, 12, from.has_lm_head);
  wire::put_unsigned(out, 13, from.memory_total_mb);
  wire::put_unsigned(out, 14, from.memory_free_mb);
  wire::put_bytes(out, 15, from.device);
  wire::put_unsigned(out, 16, from.queue_depth);
  wire::put_float(out, 17, from.utilization);
  wire::put_unsigned(out, 18, from.accepting);
  wire::put_unsigned(out, 19, from.training);
  wire::put_unsigned(out, 20, from.model_version);
  wire::put_bytes(out, 21, from.architecture_id);
  wire::put_bytes(out, 22, from.software_version);
  wire::put_float(out, 23, from.ms_per_layer);
  for (const auto& unit : from.units) {
    std::string one;
    wire::put_bytes(one, 1, unit.unit);
    wire::put_bytes(one, 2, wire::view_of(unit.unit_hash));
    if (unit.velocity_hash)
      wire::put_bytes(one, 3, wire::view_of(*unit.velocity_hash));
    wire::put_bytes(out, 24, one);
  }
  if (from.economics_hash)
    wire::put_bytes(out, 25, wire::view_of(*from.economics_hash));
  wire::put_unsigned(out, 50, from.max_layers);
  return out;
}

caf::expected<node_description> decode_node_info(std::string_view bytes) {
  node_description made;
  const bool read = wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_text(field, made.node_id);
    case 2:
      return wire::take_text(field, made.wallet_address);
    case 3:
      return wire::take_text(field, made.host);
    case 4:
      return wire::take_number(field, made.grpc_port);
    case 5:
      return wire::take_number(field, made.http_port);
    case 6:
      return take_digest(field, made.tls_cert_sha256);
    case 7:
      return wire::take_number(field, made.sequence);
    case 8:
      return take_role(field, made.roles);
    case 9:
      return wire::take_number(field, made.layer_begin);
    case 10:
      return wire::take_number(field, made.layer_end);
    case 11:
      return wire::take_flag(field, made.has_embedding);
    case 12:
      return wire::take_flag(field, made.has_lm_head);
    case 13:
      return wire::take_number(field, made.memory_total_mb);
    case 14:
      return wire::take_number(field, made.memory_free_mb);
    case 15:
      return wire::take_text(field, made.device);
    case 16:
      return wire::take_number(field, made.queue_depth);
    case 17:
      return wire::take_float(field, made.utilization);
    case 18:
      return wire::take_flag(field, made.accepting);
    case 19:
      return wire::take_flag(field, made.training);
    case 20:
      return wire::take_number(field, made.model_version);
    case 21:
      return wire::take_text(field, made.architecture_id);
    case 22:
      return wire::take_text(field, made.software_version);
    case 23:
      return wire::take_float(field, made.ms_per_layer);
    case 24:
      return take_unit(field, made.units);
    case 25:
      return take_digest(field, made.economics_hash);
    case 50:
      return wire::take_number(field, made.max_layers);
    default:
      return true;
    }
  });
  if (!read)
    return malformed_node("node", "What the node says of itself is malformed.");
  std::sort(made.roles.begin(), made.roles.end());
  made.roles.erase(std::unique(made.roles.begin(), made.roles.end()), made.roles.end());
  if (auto wrong = check_node(made))
    return wrong;
  return made;
}

signed_node_ptr sign_node(const node_identity& by, node_description what) {
  auto made = std::make_shared<signed_node>();
  made->blob = by.sign_as_node(node_tag, encode_node_info(what));
  made->what = std::move(what);
  return made;
}

caf::expected<signed_node_ptr> read_node(signed_blob blob, int64_t now_unix_ms) {
  auto what = decode_node_info(blob.payload);
  if (!what)
    return what.error();
  const auto signer = verify_blob(blob, node_tag, now_unix_ms);
  if (!signer)
    return signer.error();
  if (signer->node_id != what->node_id || signer->address != what->wallet_address) {
    problem wrong;
    wrong.message = "The node's word is signed by another.";
    wrong.field = "node";
    wrong.reason = "wrong_signer";
    return refuse(errc::unauthorized, std::move(wrong));
  }
  return signed_node_ptr{std::make_shared<signed_node>(signed_node{std::move(*what), std::move(blob)})};
}

} // namespace neuroshard
