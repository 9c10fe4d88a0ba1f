#pragma once

#include "gateway/config/schema.hpp"

#include <rapidjson/document.h>

#include <optional>
#include <string>

/// Values of keys as JSON: what config.json and the network parameters of a layer map have in common.
namespace neuroshard {

/// A JSON value as a value of the key's kind; nothing when it is of another, or the key is no switch, number
/// or text.
std::optional<config_value> read_setting(const key_spec& spec, const rapidjson::Value& json);

/// Writes one; null for the kinds that cannot be read again.
template <class Writer>
void put_setting(Writer& out, const config_value& value) {
  if (const auto* b = std::get_if<bool>(&value))
    out.Bool(*b);
  else if (const auto* i = std::get_if<int64_t>(&value))
    out.Int64(*i);
  else if (const auto* d = std::get_if<double>(&value))
    out.Double(*d);
  else if (const auto* s = std::get_if<std::string>(&value))
    out.String(s->data(), static_cast<rapidjson::SizeType>(s->size()));
  else
    out.Null();
}

} // namespace neuroshard
