#include "kernels/text/json_input.hpp"
#include "kernels/text/shards.hpp"

#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <algorithm>
#include <cmath>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
using rapidjson::Value;

constexpr size_t source_bytes_max = 4096;
constexpr uint64_t tokens_max = uint64_t{1} << 40; // of one shard: keeps sums far from overflow

using writer = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

void write_text(writer& out, const char* key, const std::string& value) {
  out.Key(key);
  out.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
}

void write_number(writer& out, const char* key, uint64_t value) {
  out.Key(key);
  out.Uint64(value);
}

void write_entry(writer& out, const shard_entry& entry) {
  out.StartObject();
  write_number(out, "id", entry.id);
  write_number(out, "tokens", entry.tokens);
  write_text(out, "sha256", entry.sha256);
  write_text(out, "source", entry.source);
  out.EndObject();
}

// Each `take` leaves `out` as it is when an optional field is missing; the text says what is wrong, or is
// empty.
const Value* find(const Value& object, const char* key) {
  const auto at = object.FindMember(key);
  return at == object.MemberEnd() || at->value.IsNull() ? nullptr : &at->value;
}

std::string take(const Value& object, const char* key, bool needed, uint64_t& out) {
  const Value* value = find(object, key);
  if (value == nullptr)
    return needed ? std::string("needs \"") + key + "\"" : std::string();
  if (!value->IsUint64())
    return std::string("\"") + key + "\" is no whole number";
  out = value->GetUint64();
  return {};
}

std::string take(const Value& object, const char* key, bool needed, std::string& out) {
  const Value* value = find(object, key);
  if (value == nullptr)
    return needed ? std::string("needs \"") + key + "\"" : std::string();
  if (!value->IsString() || value->GetStringLength() > source_bytes_max)
    return std::string("\"") + key + "\" is no text of at most " + std::to_string(source_bytes_max) +
           " bytes";
  out.assign(value->GetString(), value->GetStringLength());
  return {};
}

bool is_hash(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string take_entry(const Value& value, shard_entry& out) {
  if (!value.IsObject())
    return "a shard is no object";
  for (std::string problem :
       {take(value, "id", true, out.id), take(value, "tokens", true, out.tokens),
        take(value, "sha256", true, out.sha256), take(value, "source", false, out.source)})
    if (!problem.empty())
      return problem;
  if (!is_hash(out.sha256))
    return "\"sha256\" of shard " + std::to_string(out.id) + " is not 64 lower-case hex digits";
  if (out.tokens == 0 || out.tokens > tokens_max)
    return "shard " + std::to_string(out.id) + " has " + std::to_string(out.tokens) + " tokens";
  return {};
}

std::string take_shards(const Value& root, shard_manifest& out) {
  const Value* shards = find(root, "shards");
  if (shards == nullptr || !shards->IsArray())
    return "needs the array \"shards\"";
  uint64_t tokens = 0;
  for (const Value& value : shards->GetArray()) {
    shard_entry entry;
    if (std::string problem = take_entry(value, entry); !problem.empty())
      return problem;
    tokens += entry.tokens;
    out.shards.push_back(std::move(entry));
  }
  const auto by_id = [](const shard_entry& a, const shard_entry& b) { return a.id < b.id; };
  std::sort(out.shards.begin(), out.shards.end(), by_id);
  const auto twice = std::adjacent_find(out.shards.begin(), out.shards.end(),
                                        [](const auto& a, const auto& b) { return a.id == b.id; });
  if (twice != out.shards.end())
    return "names shard " + std::to_string(twice->id) + " twice";
  uint64_t total = 0;
  if (std::string problem = take(root, "total_shards", true, total); !problem.empty())
    return problem;
  if (total != out.shards.size())
    return "total_shards is " + std::to_string(total) + ", but it lists " + std::to_string(out.shards.size());
  if (std::string problem = take(root, "total_tokens", true, out.total_tokens); !problem.empty())
    return problem;
  if (out.total_tokens != tokens)
    return "total_tokens is " + std::to_string(out.total_tokens) + ", but its shards have " +
           std::to_string(tokens);
  return {};
}

std::string take_all(const Value& root, shard_manifest& out) {
  if (!root.IsObject())
    return "is no JSON object";
  uint64_t version = shard_format_version;
  if (std::string problem = take(root, "format_version", false, version); !problem.empty())
    return problem;
  if (version != shard_format_version)
    return "format_version " + std::to_string(version) + " is unknown, this program reads " +
           std::to_string(shard_format_version);
  for (std::string problem : {take(root, "tokenizer_hash", true, out.tokenizer_hash), take_shards(root, out),
                              take(root, "corpus_fingerprint", false, out.corpus_fingerprint),
                              take(root, "documents", false, out.documents),
                              take(root, "bytes_left_out", false, out.bytes_left_out)})
    if (!problem.empty())
      return problem;
  if (!is_hash(out.tokenizer_hash))
    return "\"tokenizer_hash\" is not 64 lower-case hex digits";
  if (const Value* share = find(root, "held_out_share"); share != nullptr && share->IsNumber())
    out.held_out_share = share->GetDouble();
  if (const Value* heldout = find(root, "heldout"); heldout != nullptr) {
    shard_entry entry;
    if (std::string problem = take_entry(*heldout, entry); !problem.empty())
      return "heldout: " + problem;
    out.heldout = std::move(entry);
  }
  return {};
}

} // namespace

std::string shard_file_name(uint64_t id) {
  return "shard_" + std::to_string(id) + ".bin";
}

std::string shard_manifest::to_json() const {
  rapidjson::StringBuffer buffer;
  writer out(buffer);
  out.SetIndent(' ', 2);
  out.StartObject();
  write_number(out, "format_version", format_version);
  write_number(out, "total_shards", shards.size());
  write_number(out, "total_tokens", total_tokens);
  write_text(out, "tokenizer_hash", tokenizer_hash);
  if (!corpus_fingerprint.empty())
    write_text(out, "corpus_fingerprint", corpus_fingerprint);
  if (documents != 0)
    write_number(out, "documents", documents);
  if (held_out_share != 0) {
    out.Key("held_out_share");
    out.Double(held_out_share);
  }
  if (bytes_left_out != 0)
    write_number(out, "bytes_left_out", bytes_left_out);
  out.Key("shards");
  out.StartArray();
  for (const shard_entry& entry : shards)
    write_entry(out, entry);
  out.EndArray();
  if (heldout) {
    out.Key("heldout");
    write_entry(out, *heldout);
  }
  out.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize()) + "\n";
}

result<shard_manifest> shard_manifest::parse(std::string_view json, std::string_view name) {
  shard_manifest made;
  rapidjson::Document root;
  std::string problem = parse_json_document(json, root);
  if (problem.empty())
    problem = take_all(root, made);
  if (!problem.empty())
    return status{code::corrupt, std::string(name) + ": not a manifest of shards: " + problem};
  return made;
}

} // namespace neuroshard::text
