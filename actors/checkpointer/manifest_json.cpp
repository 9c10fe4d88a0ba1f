// The JSON form of a manifest. RapidJSON stays in this file.
#include "actors/checkpointer/checkpoint_manifest.hpp"

#define RAPIDJSON_HAS_STDSTRING 1
#include <rapidjson/document.h>
#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace neuroshard {

using kernels::code;
using kernels::status;

namespace {

using json_writer = rapidjson::Writer<rapidjson::StringBuffer>;
using json = rapidjson::Value;

constexpr std::string_view seal_key = ",\"manifest_sha256\":\"";
constexpr size_t text_max = 64U << 10;
constexpr size_t history_max = 100;
constexpr size_t first_max = 3;

// ------------------------------------------------------------------------------------------------ writing

void put(json_writer& out, const char* key, std::string_view value) {
  out.Key(key);
  out.String(value.data(), static_cast<rapidjson::SizeType>(value.size()));
}

void put(json_writer& out, const char* key, uint64_t value) {
  out.Key(key);
  out.Uint64(value);
}

void put(json_writer& out, const char* key, double value) {
  out.Key(key);
  out.Double(value); // the shortest text that reads back as the same double
}

void put(json_writer& out, const char* key, const std::optional<double>& value) {
  out.Key(key);
  if (value)
    out.Double(*value);
  else
    out.Null();
}

void put(json_writer& out, const char* key, const std::vector<double>& values) {
  out.Key(key);
  out.StartArray();
  for (const double value : values)
    out.Double(value);
  out.EndArray();
}

void put_shared_state(json_writer& out, const training_state& state) {
  out.Key("shared");
  out.StartObject();
  put(out, "inner_step", state.inner_step);
  put(out, "outer_step", state.outer_step);
  put(out, "round_first_step", state.round_first_step);
  put(out, "tokens_trained", state.tokens_trained);
  put(out, "loss", state.loss);
  put(out, "validation_loss", state.validation_loss);
  out.EndObject();
}

void put_own_state(json_writer& out, const training_state& state) {
  out.Key("own");
  out.StartObject();
  put(out, "round_phase", state.round_phase);
  put(out, "inner_steps", state.inner_steps);
  put(out, "optimizer_step", state.optimizer_step);
  put(out, "committed_steps", state.committed_steps);
  put(out, "data_cursor", state.data_cursor);
  put(out, "batch_size", uint64_t{state.batch_size});
  put(out, "batch_configured", uint64_t{state.batch_configured});
  put(out, "outer_model_hash", state.outer_model_hash);
  put(out, "loss_history", state.loss_history);
  put(out, "loss_first", state.loss_first);
  put(out, "loss_min", state.loss_min);
  put(out, "untrained_loss", state.untrained_loss);
  put(out, "taken_over", state.taken_over);
  out.Key("unclaimed");
  out.StartArray();
  for (const auto& work : state.unclaimed) {
    out.StartObject();
    put(out, "model_hash_start", work.model_hash_start);
    put(out, "step_begin", work.step_begin);
    put(out, "step_end", work.step_end);
    put(out, "label_tokens", work.label_tokens);
    put(out, "commitment", work.commitment);
    put(out, "data_hash", work.data_hash);
    put(out, "loss_e6", work.loss_e6);
    put(out, "gradient_norm_e6", work.gradient_norm_e6);
    put(out, "batch_size", uint64_t{work.batch_size});
    put(out, "seq_len", uint64_t{work.seq_len});
    out.EndObject();
  }
  out.EndArray();
  out.EndObject();
}

bool finite(const training_state& state) {
  const auto is_finite = [](double value) { return std::isfinite(value); };
  return is_finite(state.loss) && is_finite(state.validation_loss.value_or(0)) && is_finite(state.loss_min) &&
         is_finite(state.untrained_loss.value_or(0)) &&
         std::all_of(state.loss_history.begin(), state.loss_history.end(), is_finite) &&
         std::all_of(state.loss_first.begin(), state.loss_first.end(), is_finite);
}

// ------------------------------------------------------------------------------------------------ reading

/// Reads the members of one object. The first thing that is wrong sticks; `done` also refuses members that
/// nobody asked for, and with them any key that is there twice.
class object_reader {
public:
  object_reader(const json* value, std::string path, status& outcome)
      : value_(value), path_(std::move(path)), outcome_(outcome) {
    if (value_ != nullptr && !value_->IsObject())
      fail("is no object");
  }

  void text(const char* key, std::string& to, size_t bytes_max = text_max) {
    const auto* member = get(key);
    if (member == nullptr)
      return;
    if (!member->IsString() || member->GetStringLength() > bytes_max)
      return fail(key, "is no text of a sensible length");
    to.assign(member->GetString(), member->GetStringLength());
  }
  template <class Integer>
  void number(const char* key, Integer& to) {
    const auto* member = get(key);
    if (member == nullptr)
      return;
    if (!member->IsUint64() ||
        member->GetUint64() > static_cast<uint64_t>(std::numeric_limits<Integer>::max()))
      return fail(key, "is no number in range");
    to = static_cast<Integer>(member->GetUint64());
  }
  void number(const char* key, double& to) {
    if (const auto* member = get(key); member != nullptr && !read_double(*member, to))
      fail(key, "is no finite number");
  }
  void number(const char* key, std::optional<double>& to) {
    const auto* member = get(key);
    if (member == nullptr || member->IsNull())
      return;
    if (!read_double(*member, to.emplace()))
      fail(key, "is no finite number");
  }
  void numbers(const char* key, std::vector<double>& to, size_t count_max) {
    const auto* member = get(key);
    if (member == nullptr)
      return;
    if (!member->IsArray() || member->Size() > count_max)
      return fail(key, "is no list of a sensible length");
    for (const auto& item : member->GetArray())
      if (!read_double(item, to.emplace_back()))
        return fail(key, "holds something else than finite numbers");
  }
  void hash(const char* key, kernels::digest& to) {
    std::string hex;
    text(key, hex, 64);
    if (!outcome_.ok() || value_ == nullptr)
      return;
    if (hex.size() != 64)
      return fail(key, "is no SHA-256");
    for (size_t i = 0; i < to.size(); ++i) {
      const int high = digit(hex[2 * i]);
      const int low = digit(hex[2 * i + 1]);
      if (high < 0 || low < 0)
        return fail(key, "is no SHA-256");
      to[i] = static_cast<uint8_t>(high << 4 | low);
    }
  }
  const json* object(const char* key) { return get(key); }
  bool has(const char* key) const { return outcome_.ok() && value_ != nullptr && value_->HasMember(key); }
  const json* list(const char* key, size_t count_max) {
    const auto* member = get(key);
    if (member != nullptr && (!member->IsArray() || member->Size() > count_max)) {
      fail(key, "is no list of a sensible length");
      return nullptr;
    }
    return member;
  }
  void done() {
    if (outcome_.ok() && value_ != nullptr && value_->MemberCount() != asked_)
      fail("has unknown or repeated members");
  }
  void fail(const char* key, const char* what) { report(path_ + "." + key + " " + what); }
  void fail(const char* what) { report(path_ + " " + what); }

private:
  static bool read_double(const json& value, double& to) {
    if (!value.IsNumber())
      return false;
    to = value.GetDouble();
    return std::isfinite(to);
  }
  static int digit(char c) {
    if (c >= '0' && c <= '9')
      return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  }
  void report(std::string message) {
    if (outcome_.ok())
      outcome_ = {code::corrupt, std::move(message)};
  }
  const json* get(const char* key) {
    if (!outcome_.ok() || value_ == nullptr)
      return nullptr;
    ++asked_;
    const auto at = value_->FindMember(key);
    if (at == value_->MemberEnd()) {
      fail(key, "is missing");
      return nullptr;
    }
    return &at->value;
  }

  const json* value_;
  std::string path_;
  status& outcome_;
  rapidjson::SizeType asked_ = 0;
};

/// A list of ranges; in early checkpoints one object.
void read_unclaimed(object_reader& own, std::vector<unclaimed_work>& to, status& outcome) {
  const auto read_one = [&](const json& value) {
    object_reader from(&value, "state.own.unclaimed", outcome);
    auto& work = to.emplace_back();
    from.text("model_hash_start", work.model_hash_start, 64);
    from.number("step_begin", work.step_begin);
    from.number("step_end", work.step_end);
    from.number("label_tokens", work.label_tokens);
    if (from.has("commitment")) { // not in earlier ones, whose work was claimed without a proof
      from.text("commitment", work.commitment, 64);
      from.text("data_hash", work.data_hash, 64);
      from.number("loss_e6", work.loss_e6);
      from.number("gradient_norm_e6", work.gradient_norm_e6);
      from.number("batch_size", work.batch_size);
      from.number("seq_len", work.seq_len);
    }
    from.done();
  };
  const auto* value = own.object("unclaimed");
  if (value == nullptr)
    return;
  if (value->IsObject())
    return read_one(*value);
  if (!value->IsArray() || value->Size() > unclaimed_max)
    return own.fail("unclaimed", "is no list of a sensible length");
  for (const auto& item : value->GetArray())
    read_one(item);
}

/// Its own part may be missing where `shared_suffices`.
void read_state(const json* value, training_state& state, status& outcome, bool shared_suffices = false) {
  object_reader parts(value, "state", outcome);
  object_reader shared(parts.object("shared"), "state.shared", outcome);
  const json* own_part = shared_suffices && !parts.has("own") ? nullptr : parts.object("own");
  object_reader own(own_part, "state.own", outcome);
  parts.done();
  shared.number("inner_step", state.inner_step);
  shared.number("outer_step", state.outer_step);
  shared.number("round_first_step", state.round_first_step);
  shared.number("tokens_trained", state.tokens_trained);
  shared.number("loss", state.loss);
  shared.number("validation_loss", state.validation_loss);
  shared.done();
  own.text("round_phase", state.round_phase, 16);
  own.number("inner_steps", state.inner_steps);
  own.number("optimizer_step", state.optimizer_step);
  own.number("committed_steps", state.committed_steps);
  own.text("data_cursor", state.data_cursor);
  own.number("batch_size", state.batch_size);
  own.number("batch_configured", state.batch_configured);
  own.text("outer_model_hash", state.outer_model_hash, 64);
  own.numbers("loss_history", state.loss_history, history_max);
  own.numbers("loss_first", state.loss_first, first_max);
  own.number("loss_min", state.loss_min);
  own.number("untrained_loss", state.untrained_loss);
  if (own.has("taken_over")) // not in earlier ones
    own.number("taken_over", state.taken_over);
  if (own.has("unclaimed")) // not in the first checkpoints of this format
    read_unclaimed(own, state.unclaimed, outcome);
  own.done();
  if (outcome.ok() && state.round_first_step > state.inner_step)
    outcome = {code::corrupt, "state.shared.round_first_step is above inner_step"};
}

void read_tensor(const json& value, size_t index, tensor_record& tensor, status& outcome) {
  object_reader from(&value, "tensors[" + std::to_string(index) + "]", outcome);
  from.text("file", tensor.file, 32);
  from.text("name", tensor.name, 256);
  uint32_t type = 0;
  from.number("dtype", type);
  tensor.type = static_cast<kernels::dtype>(type);
  const auto* shape = from.list("shape", 4);
  from.number("offset", tensor.offset);
  from.number("length", tensor.length);
  from.hash("sha256", tensor.sha256);
  from.done();
  if (shape == nullptr)
    return;
  for (const auto& n : shape->GetArray()) {
    if (!n.IsInt64() || n.GetInt64() < 1)
      return from.fail("shape", "holds something else than sizes");
    tensor.shape.push_back(n.GetInt64());
  }
}

/// Takes the seal off: the text before it, closed as an object, when its hash is the one in the seal.
kernels::result<std::string> unsealed(std::string_view text) {
  static constexpr std::string_view tail = "\"}\n";
  if (text.size() < seal_key.size() + 64 + tail.size() || text.size() > manifest_bytes_max)
    return status(code::corrupt, "the manifest is cut short or too long");
  const auto body = text.substr(0, text.size() - tail.size() - 64 - seal_key.size());
  const auto seal = text.substr(body.size());
  const auto hash = kernels::to_hex(kernels::sha256::of(body));
  if (!seal.starts_with(seal_key) || !seal.ends_with(tail) || seal.substr(seal_key.size(), 64) != hash)
    return status(code::corrupt, "the manifest does not match its own checksum");
  return std::string(body) + "}";
}

} // namespace

kernels::result<std::string> to_json(const checkpoint_manifest& manifest) {
  if (!finite(manifest.state))
    return status(code::invalid_argument, "the state holds a number that is not finite");
  rapidjson::StringBuffer buffer;
  json_writer out(buffer);
  out.StartObject();
  put(out, "format", uint64_t{checkpoint_format});
  put(out, "software", manifest.software);
  put(out, "wallet_id", manifest.wallet_id);
  put(out, "reason", manifest.reason);
  put(out, "created_unix_us", static_cast<uint64_t>(std::max<int64_t>(0, manifest.created_unix_us)));
  put(out, "architecture", model::canonical_json(manifest.architecture));
  put(out, "architecture_id", model::architecture_id(manifest.architecture));
  out.Key("tokenizer");
  out.StartObject();
  put(out, "hash", manifest.tokenizer_hash);
  put(out, "bytes", manifest.tokenizer_bytes);
  put(out, "sha256", kernels::to_hex(manifest.tokenizer_sha256));
  out.EndObject();
  out.Key("state");
  out.StartObject();
  put_shared_state(out, manifest.state);
  put_own_state(out, manifest.state);
  out.EndObject();
  out.Key("units");
  out.StartArray();
  for (const auto& unit : manifest.units) {
    out.StartObject();
    put(out, "unit", unit.unit);
    put(out, "hash", kernels::to_hex(unit.hash));
    out.EndObject();
  }
  out.EndArray();
  out.Key("tensors");
  out.StartArray();
  for (const auto& tensor : manifest.tensors) {
    out.StartObject();
    put(out, "file", tensor.file);
    put(out, "name", tensor.name);
    put(out, "dtype", static_cast<uint64_t>(tensor.type));
    out.Key("shape");
    out.StartArray();
    for (const int64_t n : tensor.shape)
      out.Int64(n);
    out.EndArray();
    put(out, "offset", tensor.offset);
    put(out, "length", tensor.length);
    put(out, "sha256", kernels::to_hex(tensor.sha256));
    out.EndObject();
  }
  out.EndArray();
  out.EndObject();
  std::string text(buffer.GetString(), buffer.GetSize());
  text.pop_back(); // the brace comes after the seal
  const auto hash = kernels::to_hex(kernels::sha256::of(text));
  return text.append(seal_key).append(hash).append("\"}\n");
}

kernels::result<std::string> state_to_json(const training_state& state, bool own_too) {
  if (!finite(state))
    return status(code::invalid_argument, "the state holds a number that is not finite");
  rapidjson::StringBuffer buffer;
  json_writer out(buffer);
  out.StartObject();
  put_shared_state(out, state);
  if (own_too)
    put_own_state(out, state);
  out.EndObject();
  return std::string(buffer.GetString(), buffer.GetSize());
}

kernels::result<training_state> parse_state(std::string_view text) {
  rapidjson::Document document;
  document.Parse<rapidjson::kParseFullPrecisionFlag | rapidjson::kParseIterativeFlag |
                 rapidjson::kParseValidateEncodingFlag>(text.data(), text.size());
  if (text.size() > text_max || document.HasParseError())
    return status(code::corrupt, "the state is no JSON of a sensible length");
  training_state state;
  status outcome;
  read_state(&document, state, outcome, true);
  if (!outcome.ok())
    return outcome;
  return state;
}

kernels::result<checkpoint_manifest> parse_manifest(std::string_view text) {
  auto body = unsealed(text);
  if (!body.ok())
    return body.status();
  rapidjson::Document document;
  document.Parse<rapidjson::kParseFullPrecisionFlag | rapidjson::kParseIterativeFlag |
                 rapidjson::kParseValidateEncodingFlag>(body->data(), body->size());
  if (document.HasParseError())
    return status(code::corrupt, "the manifest is no JSON");
  checkpoint_manifest manifest;
  status outcome;
  object_reader top(&document, "manifest", outcome);
  uint32_t format = 0;
  top.number("format", format);
  if (outcome.ok() && format != checkpoint_format)
    return status(code::unsupported, "format " + std::to_string(format) + " is not known here");
  std::string architecture;
  std::string architecture_id;
  top.text("software", manifest.software, 256);
  top.text("wallet_id", manifest.wallet_id, 64);
  top.text("reason", manifest.reason, 64);
  top.number("created_unix_us", manifest.created_unix_us);
  top.text("architecture", architecture);
  top.text("architecture_id", architecture_id, 64);
  object_reader tokenizer(top.object("tokenizer"), "tokenizer", outcome);
  read_state(top.object("state"), manifest.state, outcome);
  const auto* units = top.list("units", manifest_tensors_max);
  const auto* tensors = top.list("tensors", manifest_tensors_max);
  top.done();
  tokenizer.text("hash", manifest.tokenizer_hash, 64);
  tokenizer.number("bytes", manifest.tokenizer_bytes);
  tokenizer.hash("sha256", manifest.tokenizer_sha256);
  tokenizer.done();
  for (size_t i = 0; outcome.ok() && i < units->Size(); ++i) {
    object_reader from(&(*units)[static_cast<rapidjson::SizeType>(i)], "units[" + std::to_string(i) + "]",
                       outcome);
    auto& unit = manifest.units.emplace_back();
    from.text("unit", unit.unit, 64);
    from.hash("hash", unit.hash);
    from.done();
  }
  for (size_t i = 0; outcome.ok() && i < tensors->Size(); ++i)
    read_tensor((*tensors)[static_cast<rapidjson::SizeType>(i)], i, manifest.tensors.emplace_back(), outcome);
  if (!outcome.ok())
    return outcome;
  auto parsed = model::parse_architecture(architecture);
  if (!parsed.ok())
    return status(code::corrupt, "architecture: " + parsed.status().message());
  manifest.architecture = *parsed;
  if (model::architecture_id(manifest.architecture) != architecture_id)
    return status(code::corrupt, "architecture_id is not that of the architecture");
  NEUROSHARD_TRY(check(manifest));
  return manifest;
}

} // namespace neuroshard
