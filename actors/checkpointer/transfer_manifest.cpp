#include "actors/checkpointer/transfer_manifest.hpp"

#include "actors/identity/wire.hpp"
#include "kernels/model/parameters.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace neuroshard {

namespace {

constexpr size_t tensor_name_max = 128;
constexpr size_t transfer_units_max = 8'192;
constexpr size_t text_bytes_max = 64U << 10;
constexpr size_t unit_name_max = 16;
constexpr uint32_t format_known = 1;
constexpr uint64_t stream_length_max = uint64_t{64} << 30;

caf::error bad_manifest(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  return refuse(code, std::move(what));
}

std::string encode_unit(const unit_state& unit) {
  std::string out;
  wire::put_bytes(out, 1, unit.unit);
  wire::put_bytes(out, 2, wire::view_of(unit.unit_hash));
  if (unit.velocity_hash)
    wire::put_bytes(out, 3, wire::view_of(*unit.velocity_hash));
  return out;
}

std::string encode_tensor(const transfer_tensor& tensor) {
  std::string out, shape;
  for (const int64_t n : tensor.shape)
    wire::put_varint(shape, static_cast<uint64_t>(n));
  wire::put_bytes(out, 1, tensor.name);
  wire::put_unsigned(out, 2, static_cast<uint64_t>(tensor.type));
  wire::put_bytes(out, 3, shape);
  wire::put_unsigned(out, 4, tensor.offset);
  wire::put_unsigned(out, 5, tensor.length);
  wire::put_bytes(out, 6, wire::view_of(tensor.sha256));
  return out;
}

bool take_word(const wire::field& from, std::string& to, size_t most) {
  if (!from.is_bytes() || from.bytes.size() > most)
    return false;
  to = std::string(from.bytes);
  return true;
}

bool decode_unit(std::string_view bytes, unit_state& unit) {
  return wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return take_word(field, unit.unit, unit_name_max);
    case 2:
      return wire::take_exactly(field, unit.unit_hash);
    case 3:
      return wire::take_exactly(field, unit.velocity_hash.emplace());
    default:
      return true;
    }
  });
}

bool take_sizes(const wire::field& from, std::vector<int64_t>& to) {
  const auto add = [&](uint64_t n) {
    if (n == 0 || n > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) || to.size() == 4)
      return false;
    to.push_back(static_cast<int64_t>(n));
    return true;
  };
  if (from.is_number())
    return add(from.value);
  if (!from.is_bytes())
    return false;
  for (auto rest = from.bytes; !rest.empty();) {
    uint64_t n = 0;
    if (!wire::take_varint(rest, n) || !add(n))
      return false;
  }
  return true;
}

bool decode_tensor(std::string_view bytes, transfer_tensor& tensor) {
  uint32_t type = 0;
  const bool sound = wire::read_fields(bytes, [&](const wire::field& field) {
    switch (field.number) {
    case 1:
      return take_word(field, tensor.name, tensor_name_max);
    case 2:
      return wire::take_number(field, type);
    case 3:
      return take_sizes(field, tensor.shape);
    case 4:
      return wire::take_number(field, tensor.offset);
    case 5:
      return wire::take_number(field, tensor.length);
    case 6:
      return wire::take_exactly(field, tensor.sha256);
    default:
      return true;
    }
  });
  tensor.type = static_cast<kernels::dtype>(type);
  return sound;
}

std::string_view parameter_of(std::string_view tensor_name) {
  return tensor_name.substr(tensor_name.find('/') + 1); // npos + 1 is 0
}

std::optional<uint64_t> length_of(const transfer_tensor& tensor) {
  uint64_t bytes = kernels::size_of(tensor.type);
  for (const int64_t n : tensor.shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes))
      return std::nullopt;
  return bytes;
}

/// The parameters of a unit; nothing when the architecture has no such unit.
std::optional<model::unit> unit_named(const std::string& name, const model::architecture& a) {
  if (name == "embed")
    return model::embed_unit(a);
  if (name == "head")
    return model::head_unit(a);
  int64_t layer = -1;
  if (const auto dot = name.find('.'); dot != std::string::npos)
    std::from_chars(name.data() + dot + 1, name.data() + name.size(), layer);
  if (layer < 0 || layer >= a.num_layers)
    return std::nullopt;
  return model::layer_unit(a, layer);
}

bool is_state_prefix(std::string_view prefix) {
  static constexpr std::string_view known[] = {"adam.m", "adam.v", "diloco.w0", "diloco.v", "diloco.r"};
  return std::find(std::begin(known), std::end(known), prefix) != std::end(known);
}

caf::error check_offsets(const transfer_manifest& manifest) {
  uint64_t end = 0;
  for (const auto& tensor : manifest.tensors) {
    if (tensor.offset != end)
      return bad_manifest(errc::invalid_request, "table",
                          "Tensor " + tensor.name + " overlaps another or leaves a gap.");
    const auto length = length_of(tensor);
    if (tensor.shape.empty() || !length || *length != tensor.length || *length == 0)
      return bad_manifest(errc::invalid_request, "table",
                          "The length of tensor " + tensor.name + " does not fit its shape.");
    if (__builtin_add_overflow(end, tensor.length, &end) || end > stream_length_max)
      return bad_manifest(errc::invalid_request, "table", "The tensors are too long.");
  }
  if (end != manifest.total_bytes)
    return bad_manifest(errc::invalid_request, "table", "The tensors do not add up to the total length.");
  return {};
}

} // namespace

std::string encode(const transfer_manifest& from) {
  std::string out;
  wire::put_unsigned(out, 1, format_known);
  wire::put_unsigned(out, 2, from.version);
  wire::put_unsigned(out, 3, from.inner_step);
  wire::put_bytes(out, 4, from.architecture);
  for (const auto& unit : from.units)
    wire::put_bytes(out, 5, encode_unit(unit));
  wire::put_unsigned(out, 6, from.total_bytes);
  wire::put_bytes(out, 7, wire::view_of(from.sha256));
  for (const auto& tensor : from.tensors)
    wire::put_bytes(out, 8, encode_tensor(tensor));
  wire::put_double(out, 9, from.loss);
  wire::put_int(out, 10, from.created_unix_ms);
  wire::put_bytes(out, 11, from.author_node_id);
  wire::put_bytes(out, 12, wire::view_of(from.tokenizer_hash));
  wire::put_bytes(out, 13, from.state_json);
  return out;
}

caf::expected<transfer_manifest> decode_transfer_manifest(std::string_view payload) {
  transfer_manifest made;
  uint32_t format = 0;
  const bool sound = wire::read_fields(
      payload,
      [&](const wire::field& field) {
        switch (field.number) {
        case 1:
          return wire::take_number(field, format);
        case 2:
          return wire::take_number(field, made.version);
        case 3:
          return wire::take_number(field, made.inner_step);
        case 4:
          return take_word(field, made.architecture, text_bytes_max);
        case 5:
          return field.is_bytes() && made.units.size() < transfer_units_max &&
                 decode_unit(field.bytes, made.units.emplace_back());
        case 6:
          return wire::take_number(field, made.total_bytes);
        case 7:
          return wire::take_exactly(field, made.sha256);
        case 8:
          return field.is_bytes() && made.tensors.size() < manifest_tensors_max &&
                 decode_tensor(field.bytes, made.tensors.emplace_back());
        case 9:
          return wire::take_double(field, made.loss);
        case 10:
          return wire::take_number(field, made.created_unix_ms);
        case 11:
          return take_word(field, made.author_node_id, 32);
        case 12:
          return wire::take_exactly(field, made.tokenizer_hash);
        case 13:
          return take_word(field, made.state_json, text_bytes_max);
        default:
          return true;
        }
      },
      transfer_manifest_bytes_max);
  if (!sound || !std::isfinite(made.loss))
    return bad_manifest(errc::invalid_request, "manifest", "The manifest of the checkpoint is malformed.");
  if (format != format_known)
    return bad_manifest(errc::invalid_request, "manifest",
                        "Format " + std::to_string(format) + " of checkpoints is not known here.");
  return made;
}

caf::expected<transfer_manifest> open_manifest(const signed_blob& blob, int64_t now_unix_ms) {
  auto signer = verify_blob(blob, checkpoint_tag, now_unix_ms);
  if (!signer)
    return signer.error();
  auto manifest = decode_transfer_manifest(blob.payload);
  if (manifest && manifest->author_node_id != signer->node_id)
    return bad_manifest(errc::unauthorized, "bad_signature",
                        "The manifest is signed by another node than its author.");
  return manifest;
}

std::string checkpoint_id_of(const signed_blob& blob) {
  return kernels::to_hex(kernels::sha256::of(blob.payload));
}

std::vector<unit_state> units_of_table(const std::vector<transfer_tensor>& tensors) {
  std::vector<tensor_record> weights, velocities;
  for (const auto& tensor : tensors) {
    if (tensor.name == tokenizer_unit)
      continue;
    tensor_record record{tensors_file,  tensor.name,   tensor.type,  tensor.shape,
                         tensor.offset, tensor.length, tensor.sha256};
    if (tensor.name.starts_with(velocity_prefix)) {
      record.name = parameter_of(tensor.name);
      velocities.push_back(std::move(record));
    } else if (tensor.name.find('/') == std::string::npos) {
      weights.push_back(std::move(record));
    }
  }
  std::vector<unit_state> units;
  for (const auto& unit : hash_units(weights))
    units.push_back({unit.unit, unit.hash, std::nullopt});
  for (const auto& velocity : hash_units(velocities))
    for (auto& unit : units)
      if (unit.unit == velocity.unit)
        unit.velocity_hash = velocity.hash;
  return units;
}

caf::error check(const transfer_manifest& manifest, const model::architecture& architecture) {
  if (manifest.architecture != model::canonical_json(architecture))
    return bad_manifest(errc::failed_precondition, "architecture",
                        "The checkpoint is of another architecture.");
  if (auto wrong = check_offsets(manifest))
    return wrong;
  const auto wrong_table = [](const std::string& message) {
    return bad_manifest(errc::invalid_request, "table", message);
  };
  std::map<std::string_view, const transfer_tensor*> named;
  std::map<std::pair<std::string, std::string>, size_t> counts; // tensors by unit and prefix
  for (const auto& tensor : manifest.tensors) {
    if (!named.emplace(tensor.name, &tensor).second)
      return wrong_table("Tensor " + tensor.name + " is listed twice.");
    if (tensor.name == tokenizer_unit) {
      if (tensor.type != kernels::dtype::i8 || tensor.shape.size() != 1 ||
          tensor.length > tokenizer_bytes_max)
        return wrong_table("The tokenizer is no file of a sensible length.");
      continue;
    }
    const auto slash = tensor.name.find('/');
    const std::string prefix = slash == std::string::npos ? "" : tensor.name.substr(0, slash);
    const auto unit = unit_of(parameter_of(tensor.name));
    if (unit.empty() || (slash != std::string::npos && !is_state_prefix(prefix)))
      return wrong_table("Tensor " + tensor.name + " is not known here.");
    if (tensor.type != kernels::dtype::f32)
      return wrong_table("Tensor " + tensor.name + " is not f32.");
    ++counts[{unit, prefix}];
  }
  for (const auto& [part, count] : counts) {
    const auto& [name, prefix] = part;
    const auto unit = unit_named(name, architecture);
    if (!unit || count != unit->parameters.size())
      return wrong_table("Unit " + name + " is not complete.");
    if (!counts.contains({name, ""}))
      return wrong_table("Unit " + name + " has state without weights.");
    for (const auto& parameter : unit->parameters) {
      const auto full_name = prefix.empty() ? parameter.name : prefix + "/" + parameter.name;
      const auto at = named.find(full_name);
      if (at == named.end() || at->second->shape != parameter.shape)
        return wrong_table("Tensor " + full_name + " is missing or has another shape.");
    }
  }
  if (manifest.units != units_of_table(manifest.tensors))
    return wrong_table("The units are not those of the tensors.");
  if (manifest.tensors.empty())
    return wrong_table("There is no tensor.");
  return {};
}

caf::error check_units(const transfer_manifest& manifest, const std::vector<unit_state>& expected,
                       bool include_velocity) {
  const auto differs = [](const std::string& message) {
    return bad_manifest(errc::failed_precondition, "unit_hash", message);
  };
  if (manifest.units.size() != expected.size())
    return differs("The checkpoint has other units than were asked for.");
  for (const auto& want : expected) {
    const auto at = std::find_if(manifest.units.begin(), manifest.units.end(),
                                 [&](const unit_state& unit) { return unit.unit == want.unit; });
    if (at == manifest.units.end() || at->unit_hash != want.unit_hash)
      return differs("Unit " + want.unit + " has another hash than its holders announce.");
    if (include_velocity && at->velocity_hash != want.velocity_hash)
      return differs("The velocity of unit " + want.unit + " has another hash than its holders announce.");
  }
  return {};
}

} // namespace neuroshard
