#include "actors/peer_manager/layer_map.hpp"

#include "actors/identity/wire.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <utility>

namespace neuroshard {

namespace {

using namespace map_rules;

constexpr std::string_view layer_prefix = "layer.";
/// What is adopted from one of whom nothing is known yet must leave room for those who follow.
constexpr uint64_t unsettled_version_max = uint64_t{1} << 32;

caf::error malformed_map(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = "malformed";
  return refuse(errc::invalid_request, std::move(what));
}

bool take_map_digest(const wire::field& from, std::optional<kernels::digest>& out) {
  if (from.is_bytes() && from.bytes.empty())
    return true;
  return wire::take_exactly(from, out.emplace());
}

bool take_holders(const wire::field& from, std::vector<unit_holders>& out) {
  if (!from.is_bytes() || out.size() == layers_max + 2)
    return false;
  auto& unit = out.emplace_back();
  return wire::read_fields(from.bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_text(field, unit.unit);
    case 2:
      if (!field.is_bytes() || unit.holders.size() == holders_max || !is_lower_hex(field.bytes, 32))
        return false;
      unit.holders.emplace_back(field.bytes);
      return true;
    case 3:
      return take_map_digest(field, unit.unit_hash);
    default:
      return true;
    }
  });
}

/// Units in order, holders ascending, each one's layers side by side and its ends at their layers.
bool is_well_formed(const std::vector<unit_holders>& layers) {
  if (layers.size() < 3 || layers.front().unit != "embed" || layers.back().unit != "head")
    return false;
  std::map<std::string_view, uint32_t> last;
  const auto layers_count = static_cast<uint32_t>(layers.size() - 2);
  for (uint32_t i = 0; i < layers.size(); ++i) {
    const auto& unit = layers[i];
    if (i > 0 && i <= layers_count && unit.unit != unit_of_layer(i - 1))
      return false;
    for (size_t k = 1; k < unit.holders.size(); ++k)
      if (!(unit.holders[k - 1] < unit.holders[k]))
        return false;
    for (const auto& id : unit.holders) {
      const auto [at, fresh] = last.emplace(id, i);
      if (!fresh && std::exchange(at->second, i) + 1 != i)
        return false;
      if (fresh && i == layers_count + 1)
        return false; // the head alone
    }
  }
  const auto& first = layers[1].holders;
  return std::includes(first.begin(), first.end(), layers[0].holders.begin(), layers[0].holders.end());
}

} // namespace

std::string unit_of_layer(uint32_t layer) {
  return std::string(layer_prefix) + std::to_string(layer);
}

uint32_t layers_of(const layer_map& map) noexcept {
  return map.layers.size() < 2 ? 0 : static_cast<uint32_t>(map.layers.size() - 2);
}

held_range range_in(const layer_map& map, std::string_view node_id) {
  held_range found;
  const uint32_t layers = layers_of(map);
  for (uint32_t i = 0; i < map.layers.size(); ++i) {
    const auto& holders = map.layers[i].holders;
    if (std::find(holders.begin(), holders.end(), node_id) == holders.end())
      continue;
    if (i == 0) {
      found.embed = true;
    } else if (i == layers + 1) {
      found.head = true;
    } else {
      if (found.end == 0)
        found.begin = i - 1;
      found.end = i;
    }
  }
  return found;
}

bool complete(const layer_map& map) noexcept {
  return !map.layers.empty() && std::none_of(map.layers.begin(), map.layers.end(),
                                             [](const auto& unit) { return unit.holders.empty(); });
}

bool names_only(const layer_map& map, std::string_view node_id) noexcept {
  return std::all_of(map.layers.begin(), map.layers.end(), [&](const auto& unit) {
    return std::all_of(unit.holders.begin(), unit.holders.end(),
                       [&](const auto& id) { return id == node_id; });
  });
}

size_t nodes_in(const layer_map& map) {
  std::set<std::string_view> ids;
  for (const auto& unit : map.layers)
    ids.insert(unit.holders.begin(), unit.holders.end());
  return ids.size();
}

std::string architecture_id_of(const layer_map& map) {
  return kernels::to_hex(kernels::sha256::of(map.architecture)).substr(0, 16);
}

std::string encode_layer_map(const layer_map& from) {
  std::string out;
  wire::put_unsigned(out, 1, from.version);
  wire::put_bytes(out, 2, from.architecture);
  wire::put_bytes(out, 3, from.training);
  for (const auto& unit : from.layers) {
    std::string one;
    wire::put_bytes(one, 1, unit.unit);
    for (const auto& id : unit.holders)
      wire::put_bytes(one, 2, id);
    if (unit.unit_hash)
      wire::put_bytes(one, 3, wire::view_of(*unit.unit_hash));
    wire::put_bytes(out, 4, one);
  }
  wire::put_unsigned(out, 5, from.model_version);
  if (from.model_hash)
    wire::put_bytes(out, 6, wire::view_of(*from.model_hash));
  return out;
}

caf::expected<layer_map> decode_layer_map(std::string_view bytes) {
  layer_map made;
  const bool read = wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return wire::take_number(field, made.version);
    case 2:
      return wire::take_text(field, made.architecture);
    case 3:
      return wire::take_text(field, made.training);
    case 4:
      return take_holders(field, made.layers);
    case 5:
      return wire::take_number(field, made.model_version);
    case 6:
      return take_map_digest(field, made.model_hash);
    default:
      return true;
    }
  });
  if (!read)
    return malformed_map("layer_map", "The layer map is malformed.");
  if (made.version == 0 || made.version > version_max)
    return malformed_map("layer_map.version", "The version of a layer map is 1 to 2^62.");
  if (made.architecture.size() > text_bytes_max || made.training.size() > text_bytes_max)
    return malformed_map("layer_map.architecture", "Architecture and parameters have at most 4,096 bytes.");
  if (!is_well_formed(made.layers))
    return malformed_map(
        "layer_map.layers",
        "A layer map names every unit once, in order, and gives a node layers side by side.");
  return made;
}

signed_map_ptr sign_map(const node_identity& by, layer_map what) {
  auto made = std::make_shared<signed_map>();
  made->blob = by.sign_as_node(map_tag, encode_layer_map(what));
  made->what = std::move(what);
  made->signer = by.node_id();
  return made;
}

caf::expected<signed_map_ptr> read_map(signed_blob blob, int64_t now_unix_ms) {
  auto what = decode_layer_map(blob.payload);
  if (!what)
    return what.error();
  auto signer = verify_blob(blob, map_tag, now_unix_ms);
  if (!signer)
    return signer.error();
  return signed_map_ptr{std::make_shared<signed_map>(
      signed_map{std::move(*what), std::move(blob), std::move(signer->node_id)})};
}

bool keeper_is_settled(int64_t own_since_us, const std::vector<keeper_candidate>& others, int64_t now_us) {
  return now_us - own_since_us >= keeper_after_us ||
         std::any_of(others.begin(), others.end(),
                     [&](const auto& one) { return now_us - one.online_since_us >= keeper_after_us; });
}

std::string keeper_of(std::string_view own_id, int64_t own_since_us,
                      const std::vector<keeper_candidate>& others, std::string_view signer, int64_t now_us) {
  const bool settled = keeper_is_settled(own_since_us, others, now_us);
  std::string_view lowest;
  bool signer_is_here = !signer.empty() && signer == own_id;
  const auto consider = [&](std::string_view id, int64_t since_us) {
    signer_is_here |= id == signer;
    if ((!settled || now_us - since_us >= keeper_after_us) && (lowest.empty() || id < lowest))
      lowest = id;
  };
  consider(own_id, own_since_us);
  for (const auto& one : others)
    consider(one.node_id, one.online_since_us);
  return std::string(!settled && signer_is_here && !signer.empty() ? signer : lowest);
}

bool supersedes(const signed_map& next, const signed_map_ptr& held, std::string_view keeper, bool settled) {
  if (settled) {
    if (next.signer != keeper)
      return false;
    return !held || held->signer != keeper || next.what.version > held->what.version;
  }
  if (next.what.version > unsettled_version_max)
    return false;
  if (!held)
    return true;
  const auto made_alone = [](const signed_map& of) { return names_only(of.what, of.signer); };
  if (const bool alone = made_alone(next); alone != made_alone(*held))
    return !alone;
  if (next.what.version != held->what.version)
    return next.what.version > held->what.version;
  return next.signer < held->signer;
}

uint64_t next_version(uint64_t highest_seen) noexcept {
  return highest_seen < version_max ? highest_seen + 1 : 1;
}

} // namespace neuroshard
