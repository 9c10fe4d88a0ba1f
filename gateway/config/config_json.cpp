#include "gateway/config/data_dir.hpp"
#include "gateway/config/json_setting.hpp"

#include <fmt/core.h>
#include <rapidjson/document.h>
#include <rapidjson/error/en.h>
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <sys/stat.h>

namespace neuroshard {

namespace {

constexpr size_t file_limit = 256 * 1024;

start_error damaged(const std::string& path, std::string_view what) {
  return {exit_code::data_directory, fmt::format("{}: is damaged: {}", path, what)};
}

std::string text_of(const rapidjson::Value& json, const char* name) {
  const auto found = json.FindMember(name);
  if (found == json.MemberEnd() || !found->value.IsString())
    return {};
  return {found->value.GetString(), found->value.GetStringLength()};
}

using json_writer = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

void put_text(json_writer& out, std::string_view text) {
  out.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

} // namespace

std::optional<config_value> read_setting(const key_spec& spec, const rapidjson::Value& json) {
  const config_value kind = empty_value(spec);
  if (std::holds_alternative<bool>(kind) && json.IsBool())
    return config_value{json.GetBool()};
  if (std::holds_alternative<int64_t>(kind) && json.IsInt64())
    return config_value{json.GetInt64()};
  if (std::holds_alternative<double>(kind) && json.IsNumber())
    return config_value{json.GetDouble()};
  if (std::holds_alternative<std::string>(kind) && json.IsString())
    return config_value{std::string(json.GetString(), json.GetStringLength())};
  return std::nullopt;
}

start_result<std::optional<config_json>> read_config_json(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 && errno == ENOENT)
    return std::optional<config_json>{};
  auto text = read_file_bounded(path, file_limit);
  if (!text)
    return text.error();
  rapidjson::Document json;
  // Iterative: depth costs heap, not stack; the size of the file bounds it.
  json.Parse<rapidjson::kParseFullPrecisionFlag | rapidjson::kParseIterativeFlag |
             rapidjson::kParseValidateEncodingFlag>(text->data(), text->size());
  if (json.HasParseError())
    return damaged(path, fmt::format("{} at byte {}", rapidjson::GetParseError_En(json.GetParseError()),
                                     json.GetErrorOffset()));
  if (!json.IsObject())
    return damaged(path, "not a JSON object");
  config_json out;
  out.url = text_of(json, "url");
  out.token = text_of(json, "token");
  if (const auto timeout = json.FindMember("timeout");
      timeout != json.MemberEnd() && timeout->value.IsNumber())
    out.timeout_s = timeout->value.GetDouble();
  const auto settings = json.FindMember("settings");
  if (settings == json.MemberEnd())
    return std::optional<config_json>{std::move(out)};
  if (!settings->value.IsObject())
    return damaged(path, "\"settings\" is not an object");
  for (const auto& member : settings->value.GetObject()) {
    const std::string key(member.name.GetString(), member.name.GetStringLength());
    const key_spec* spec = find_key(key);
    if (spec == nullptr)
      return damaged(path, "\"settings\" holds an unknown key");
    auto value = read_setting(*spec, member.value);
    if (!value)
      return damaged(path, fmt::format("\"settings\": {} must be {}", key, allowed_text(*spec)));
    out.settings.emplace_back(key, std::move(*value));
  }
  return std::optional<config_json>{std::move(out)};
}

start_result<done> write_config_json(const std::string& path, const config_json& content) {
  rapidjson::StringBuffer buffer;
  json_writer out(buffer);
  // One member a line: the command that the banner prints reads the token with sed.
  out.SetIndent(' ', 2);
  out.StartObject();
  out.Key("url");
  put_text(out, content.url);
  out.Key("token");
  put_text(out, content.token);
  out.Key("timeout");
  out.Double(content.timeout_s);
  out.Key("settings");
  out.StartObject();
  for (const auto& [key, value] : content.settings) {
    out.Key(key.c_str());
    put_setting(out, value);
  }
  out.EndObject();
  out.EndObject();
  std::string text(buffer.GetString(), buffer.GetSize());
  text += '\n';
  return write_file_atomically(path, text, 0600);
}

} // namespace neuroshard
