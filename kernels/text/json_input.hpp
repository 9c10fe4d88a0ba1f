#pragma once

// Private to the sources of this folder: RapidJSON is in no public header.
#include <rapidjson/document.h>
#include <rapidjson/encodedstream.h>
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace neuroshard::text {

/// Values inside values that any of our files has; deeper input is refused before it costs memory.
inline constexpr uint32_t json_depth_max = 32;

/// Iterative: depth costs heap, not stack. The whole input must be one value.
inline constexpr unsigned json_flags = rapidjson::kParseIterativeFlag | rapidjson::kParseFullPrecisionFlag;

/// Parses without relying on a NUL at the end. Returns an empty string, or what is wrong and at which byte.
template <class Handler>
std::string parse_json(std::string_view json, Handler& handler) {
  rapidjson::MemoryStream memory(json.data(), json.size());
  rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(memory);
  rapidjson::Reader reader;
  const rapidjson::ParseResult outcome = reader.Parse<json_flags>(stream, handler);
  if (outcome.IsError())
    return std::string(rapidjson::GetParseError_En(outcome.Code())) + " (byte " +
           std::to_string(outcome.Offset()) + ")";
  // The reader takes a NUL for the end of the input.
  if (json.find('\0') != std::string_view::npos)
    return "NUL byte (byte " + std::to_string(json.find('\0')) + ")";
  return {};
}

/// As parse_json, into a document; depth is bounded.
std::string parse_json_document(std::string_view json, rapidjson::Document& out);

} // namespace neuroshard::text
