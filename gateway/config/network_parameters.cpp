#include "gateway/config/network_parameters.hpp"

#include "actors/common/error.hpp"
#include "gateway/config/json_setting.hpp"

#include <fmt/core.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace neuroshard {

namespace {

constexpr std::string_view section = "training.";
constexpr size_t text_bytes_max = 4'096;
constexpr std::string_view tokenizer_name = "tokenizer";

/// In the order of their names.
std::vector<const key_spec*> parameters_of_networks() {
  std::vector<const key_spec*> found;
  for (const auto& spec : schema())
    if (spec.network_parameter)
      found.push_back(&spec);
  std::sort(found.begin(), found.end(), [](const auto* a, const auto* b) { return a->key < b->key; });
  return found;
}

std::string_view name_of(const key_spec& spec) {
  return spec.key.substr(section.size());
}

caf::error unfit(std::string_view key, std::string_view what) {
  problem why;
  why.message = key.empty() ? std::string(what) : fmt::format("{} {}", key, what);
  why.field = key;
  return refuse(errc::invalid_request, std::move(why));
}

/// A document of null when it is too long.
rapidjson::Document parse(std::string_view parameters) {
  rapidjson::Document json;
  // Iterative: depth costs heap, not stack, and the length bounds it.
  if (parameters.size() <= text_bytes_max)
    json.Parse<rapidjson::kParseFullPrecisionFlag | rapidjson::kParseIterativeFlag |
               rapidjson::kParseValidateEncodingFlag>(parameters.data(), parameters.size());
  return json;
}

} // namespace

std::string network_parameters(const node_config& c, std::string_view tokenizer) {
  rapidjson::StringBuffer text;
  rapidjson::Writer<rapidjson::StringBuffer> out(text);
  out.StartObject();
  const auto key = [&](std::string_view name) {
    out.Key(name.data(), static_cast<rapidjson::SizeType>(name.size()));
  };
  bool told = tokenizer.empty();
  const auto tell_tokenizer = [&] {
    if (!std::exchange(told, true)) {
      key(tokenizer_name);
      out.String(tokenizer.data(), static_cast<rapidjson::SizeType>(tokenizer.size()));
    }
  };
  for (const auto* spec : parameters_of_networks()) {
    const auto name = name_of(*spec);
    if (name > tokenizer_name)
      tell_tokenizer();
    key(name);
    put_setting(out, get_value(*spec, c));
  }
  tell_tokenizer();
  out.EndObject();
  return {text.GetString(), text.GetSize()};
}

std::string tokenizer_in(std::string_view parameters) {
  const auto json = parse(parameters);
  if (json.HasParseError() || !json.IsObject())
    return {};
  const auto member = json.FindMember(tokenizer_name.data());
  if (member == json.MemberEnd() || !member->value.IsString())
    return {};
  const std::string_view text(member->value.GetString(), member->value.GetStringLength());
  const bool hex = text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
  return hex ? std::string(text) : std::string{};
}

caf::expected<node_config> with_network_parameters(const node_config& own, const machine_facts& machine,
                                                   std::string_view parameters) {
  const auto json = parse(parameters);
  if (json.HasParseError() || !json.IsObject())
    return unfit("", "The parameters are not a JSON object of at most 4,096 bytes.");
  node_config next = own;
  std::vector<std::pair<const key_spec*, config_value>> given;
  for (const auto* spec : parameters_of_networks()) {
    const auto name = name_of(*spec);
    const auto member = json.FindMember(
        rapidjson::Value(rapidjson::StringRef(name.data(), static_cast<rapidjson::SizeType>(name.size()))));
    if (member == json.MemberEnd())
      continue;
    auto value = read_setting(*spec, member->value);
    if (!value)
      return unfit(spec->key, "must be " + allowed_text(*spec));
    set_value(*spec, next, *value);
    given.emplace_back(spec, std::move(*value));
  }
  // Once all are there: limits of one depend on others.
  for (auto& [spec, value] : given)
    if (const auto allowed = check_value(*spec, value, next, machine))
      return unfit(spec->key, "must be " + *allowed);
  next.training.batch_size = std::min(own.training.batch_size, next.training.batch_size);
  next.training.microbatches = std::min(next.training.microbatches, next.training.batch_size);
  if (const auto wrong = cross_check(next))
    return unfit("", *wrong);
  return next;
}

} // namespace neuroshard
