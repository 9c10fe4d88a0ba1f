#include "actors/checkpointer/checkpoint_manifest.hpp"

#include "kernels/model/parameters.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <limits>
#include <map>
#include <set>

namespace neuroshard {

using kernels::code;
using kernels::status;

namespace {

constexpr std::string_view layers_prefix = "layers.";

status wrong(std::string message) {
  return {code::corrupt, std::move(message)};
}

/// Bytes of a tensor of this shape; nothing when the shape is not allowed or the product overflows.
std::optional<uint64_t> bytes_of(const std::vector<int64_t>& shape, kernels::dtype type) {
  if (shape.empty() || shape.size() > 4)
    return std::nullopt;
  uint64_t bytes = kernels::size_of(type);
  for (const int64_t n : shape)
    if (n < 1 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(n), &bytes))
      return std::nullopt;
  return bytes;
}

/// Place of a unit in hash order.
uint64_t rank_of(std::string_view unit) {
  if (unit == "embed")
    return 0;
  if (unit == "head")
    return std::numeric_limits<uint64_t>::max();
  uint64_t layer = 0;
  const auto digits = unit.substr(unit.find('.') + 1);
  std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  return layer + 1;
}

/// Moments and outer-loop state stand beside a weight of the same shape.
status check_companion(const checkpoint_manifest& manifest, const tensor_record& tensor) {
  const auto slash = tensor.name.find('/');
  if (slash == std::string::npos)
    return {};
  static constexpr std::string_view prefixes[] = {"adam.m", "adam.v", "diloco.w0", "diloco.v", "diloco.r"};
  if (std::find(std::begin(prefixes), std::end(prefixes), std::string_view(tensor.name).substr(0, slash)) ==
      std::end(prefixes))
    return wrong("tensor " + tensor.name + " has an unknown prefix");
  const auto* weight = manifest.find(std::string_view(tensor.name).substr(slash + 1));
  if (weight == nullptr || weight->shape != tensor.shape)
    return wrong("tensor " + tensor.name + " has no weight of its shape");
  return {};
}

status check_tensors(const checkpoint_manifest& manifest) {
  std::set<std::string_view> names;
  std::map<std::string_view, uint64_t> ends;
  for (const auto& tensor : manifest.tensors) {
    if (!names.insert(tensor.name).second)
      return wrong("tensor " + tensor.name + " is listed twice");
    if (tensor.file != file_of(tensor.name))
      return wrong("tensor " + tensor.name + " is in the wrong file");
    if (tensor.type != kernels::dtype::f32)
      return wrong("tensor " + tensor.name + " is not f32");
    if (bytes_of(tensor.shape, tensor.type) != tensor.length)
      return wrong("the length of tensor " + tensor.name + " does not fit its shape");
    uint64_t& end = ends[tensor.file];
    if (aligned(end) != tensor.offset)
      return wrong("tensor " + tensor.name + " overlaps another or leaves a gap");
    if (__builtin_add_overflow(tensor.offset, tensor.length, &end) || end > uint64_t{1} << 62)
      return wrong("tensor " + tensor.name + " is too long");
    if (tensor.name.find('/') == std::string::npos && unit_of(tensor.name).empty())
      return wrong("tensor " + tensor.name + " belongs to no unit");
  }
  for (const auto& tensor : manifest.tensors)
    if (auto companion = check_companion(manifest, tensor); !companion.ok())
      return companion;
  return {};
}

} // namespace

uint64_t checkpoint_manifest::file_bytes(std::string_view file) const {
  uint64_t bytes = 0;
  for (const auto& tensor : tensors)
    if (tensor.file == file)
      bytes = std::max(bytes, tensor.offset + tensor.length);
  return bytes;
}

uint64_t checkpoint_manifest::total_bytes() const {
  return file_bytes(tensors_file) + file_bytes(optimizer_file) + file_bytes(diloco_file) + tokenizer_bytes;
}

const tensor_record* checkpoint_manifest::find(std::string_view name) const {
  const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == name; });
  return at == tensors.end() ? nullptr : &*at;
}

const char* file_of(std::string_view tensor_name) {
  if (tensor_name.starts_with("adam."))
    return optimizer_file;
  if (tensor_name.starts_with("diloco."))
    return diloco_file;
  return tensors_file;
}

std::string unit_of(std::string_view parameter_name) {
  if (parameter_name == "embed.weight")
    return "embed";
  if (parameter_name == "norm.weight" || parameter_name == "head.weight")
    return "head";
  if (!parameter_name.starts_with(layers_prefix))
    return {};
  const auto rest = parameter_name.substr(layers_prefix.size());
  const auto digits = rest.substr(0, rest.find('.'));
  uint32_t layer = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (error != std::errc{} || end != digits.data() + digits.size() || digits.size() == rest.size() ||
      std::to_string(layer) != digits)
    return {};
  return "layer." + std::string(digits);
}

std::vector<unit_record> hash_units(std::span<const tensor_record> tensors) {
  std::map<std::pair<uint64_t, std::string>, std::vector<model::tensor_digest>> grouped;
  for (const auto& tensor : tensors) {
    if (tensor.file != tensors_file)
      continue;
    auto unit = unit_of(tensor.name);
    const uint64_t rank = rank_of(unit);
    grouped[{rank, std::move(unit)}].push_back({tensor.name, tensor.type, tensor.shape, tensor.sha256});
  }
  std::vector<unit_record> units;
  for (auto& [key, members] : grouped)
    units.push_back({key.second, model::unit_hash(std::move(members))});
  return units;
}

kernels::digest hash_of_units(std::span<const unit_record> units) {
  std::vector<kernels::digest> hashes;
  for (const auto& unit : units)
    hashes.push_back(unit.hash);
  return model::model_hash(hashes);
}

std::string checkpoint_name(uint64_t inner_step, const kernels::digest& units) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%012llu", static_cast<unsigned long long>(inner_step));
  return std::string(digits) + "-" + kernels::to_hex(units).substr(0, 16);
}

std::optional<uint64_t> step_of_name(std::string_view directory_name) {
  const auto dash = directory_name.find('-');
  if (dash == std::string_view::npos || dash < 12 || dash > 20 || directory_name.size() != dash + 17)
    return std::nullopt;
  const auto hex = directory_name.substr(dash + 1);
  if (hex.find_first_not_of("0123456789abcdef") != std::string_view::npos)
    return std::nullopt;
  uint64_t step = 0;
  const auto [end, error] = std::from_chars(directory_name.data(), directory_name.data() + dash, step);
  if (error != std::errc{} || end != directory_name.data() + dash)
    return std::nullopt;
  return step;
}

std::optional<uint64_t> aligned(uint64_t bytes) {
  if (bytes > std::numeric_limits<uint64_t>::max() - tensor_alignment)
    return std::nullopt;
  return (bytes + tensor_alignment - 1) / tensor_alignment * tensor_alignment;
}

status check(const checkpoint_manifest& manifest) {
  NEUROSHARD_TRY(check_tensors(manifest));
  const auto units = hash_units(manifest.tensors);
  if (units.empty())
    return wrong("there is no tensor");
  if (units.size() != manifest.units.size())
    return wrong("the units are not those of the tensors");
  for (size_t i = 0; i < units.size(); ++i)
    if (units[i].unit != manifest.units[i].unit || units[i].hash != manifest.units[i].hash)
      return wrong("the hash of unit " + manifest.units[i].unit + " is not that of its tensors");
  return {};
}

} // namespace neuroshard
