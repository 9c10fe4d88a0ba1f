#include "kernels/text/json_input.hpp"

namespace neuroshard::text {
namespace {

// Counts how deep values are nested and takes nothing else in; stops at the bound.
struct depth_guard : rapidjson::BaseReaderHandler<rapidjson::UTF8<>, depth_guard> {
  uint32_t depth = 0;
  bool StartObject() { return ++depth <= json_depth_max; }
  bool StartArray() { return ++depth <= json_depth_max; }
  bool EndObject(rapidjson::SizeType) { return depth-- > 0; }
  bool EndArray(rapidjson::SizeType) { return depth-- > 0; }
};

} // namespace

std::string parse_json_document(std::string_view json, rapidjson::Document& out) {
  depth_guard guard;
  if (std::string problem = parse_json(json, guard); !problem.empty())
    return guard.depth > json_depth_max ? "nested too deeply" : problem;
  rapidjson::MemoryStream memory(json.data(), json.size());
  rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> stream(memory);
  out.ParseStream<json_flags>(stream);
  if (out.HasParseError())
    return rapidjson::GetParseError_En(out.GetParseError());
  return {};
}

} // namespace neuroshard::text
