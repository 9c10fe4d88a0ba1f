#include "gateway/http/json.hpp"

#include <fmt/format.h>
#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_set>

namespace neuroshard::http {

namespace {

constexpr size_t depth_max = 32;
constexpr size_t values_max = 10'000;
constexpr size_t path_max = 256; ///< bytes of a key's path in an error

caf::error malformed(std::string reason, std::string message, std::string field = {}) {
  problem what;
  what.field = std::move(field);
  what.message = std::move(message);
  what.reason = std::move(reason);
  return refuse(errc::invalid_request, std::move(what));
}

/// Builds json_value from RapidJSON's events; stops at the first thing that strict JSON does not allow.
struct builder : rapidjson::BaseReaderHandler<rapidjson::UTF8<>, builder> {
  json_value root;
  std::vector<json_value*> open; ///< stable: a parent's items grow only while no child of it is open
  size_t values = 0;
  const char* reason = nullptr;
  std::string duplicate;

  json_value* place(json_value::kind type) {
    if (++values > values_max) {
      reason = "too_large";
      return nullptr;
    }
    json_value* at = &root;
    if (!open.empty()) {
      open.back()->items.emplace_back();
      at = &open.back()->items.back();
    }
    at->type = type;
    return at;
  }
  bool enter(json_value::kind type) {
    if (open.size() >= depth_max) {
      reason = "too_deep";
      return false;
    }
    json_value* at = place(type);
    if (!at)
      return false;
    open.push_back(at);
    return true;
  }

  /// Dotted path of what is being read; `key`, if given, in place of the innermost object's last one.
  std::string path(const std::string* key = nullptr) const {
    std::string dotted;
    for (size_t i = 0; i < open.size(); ++i) {
      const json_value& at = *open[i];
      const bool innermost = i + 1 == open.size();
      if (!dotted.empty())
        dotted += '.';
      if (at.type == json_value::kind::array)
        dotted += std::to_string(at.items.size() - (innermost ? 0 : 1));
      else if (innermost && key)
        dotted += *key;
      else if (!at.keys.empty())
        dotted += at.keys.back();
    }
    size_t size = std::min(dotted.size(), path_max);
    while (size > 0 && size < dotted.size() && (static_cast<unsigned char>(dotted[size]) & 0xC0) == 0x80)
      --size; // not in the middle of a character
    dotted.resize(size);
    return dotted;
  }

  bool Null() { return place(json_value::kind::null) != nullptr; }
  bool Bool(bool v) {
    json_value* at = place(json_value::kind::boolean);
    if (at)
      at->flag = v;
    return at != nullptr;
  }
  bool RawNumber(const char* text, rapidjson::SizeType size, bool) {
    json_value* at = place(json_value::kind::number);
    if (at)
      at->text.assign(text, size);
    return at != nullptr;
  }
  bool String(const char* text, rapidjson::SizeType size, bool) {
    json_value* at = place(json_value::kind::string);
    if (at)
      at->text.assign(text, size);
    return at != nullptr;
  }
  bool StartObject() { return enter(json_value::kind::object); }
  bool Key(const char* text, rapidjson::SizeType size, bool) {
    open.back()->keys.emplace_back(text, size);
    return true;
  }
  bool EndObject(rapidjson::SizeType) {
    const auto& keys = open.back()->keys;
    std::unordered_set<std::string_view> seen;
    for (const std::string& key : keys)
      if (!seen.insert(key).second) {
        reason = "duplicate_key";
        duplicate = key;
        return false;
      }
    open.pop_back();
    return true;
  }
  bool StartArray() { return enter(json_value::kind::array); }
  bool EndArray(rapidjson::SizeType) {
    open.pop_back();
    return true;
  }
};

/// A decimal text as digits x 10^exponent, without leading or trailing zeros; false for an exponent beyond
/// 1,000.
bool integral_digits(std::string_view number, std::string& digits, int& exponent, bool& negative) {
  size_t at = 0;
  negative = !number.empty() && number[0] == '-';
  at += negative;
  exponent = 0;
  bool fraction = false;
  bool any = false;
  for (; at < number.size() && number[at] != 'e' && number[at] != 'E'; ++at) {
    if (number[at] == '.' && !fraction) {
      fraction = true;
      continue;
    }
    if (number[at] < '0' || number[at] > '9')
      return false;
    any = true;
    if (!digits.empty() || number[at] != '0')
      digits.push_back(number[at]);
    exponent -= fraction;
  }
  if (at < number.size()) {
    ++at;
    if (at < number.size() && number[at] == '+')
      ++at;
    int written = 0;
    const auto [end, failure] = std::from_chars(number.data() + at, number.data() + number.size(), written);
    if (failure != std::errc() || end != number.data() + number.size() || std::abs(written) > 1000)
      return false;
    exponent += written;
  }
  while (!digits.empty() && digits.back() == '0') {
    digits.pop_back();
    ++exponent;
  }
  return any;
}

} // namespace

const json_value* json_value::find(std::string_view key) const noexcept {
  for (size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key)
      return &items[i];
  return nullptr;
}

caf::expected<json_value> parse_json(std::string_view text) {
  builder into;
  rapidjson::MemoryStream bytes(text.data(), text.size());
  rapidjson::Reader reader;
  // Iterative: depth is bounded by the builder, never by the stack.
  constexpr unsigned flags = rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag |
                             rapidjson::kParseNumbersAsStringsFlag | rapidjson::kParseFullPrecisionFlag;
  const rapidjson::ParseResult result = reader.Parse<flags>(bytes, into);
  if (into.reason) {
    const std::string_view reason = into.reason;
    if (reason == "duplicate_key")
      return malformed("duplicate_key", "The JSON body has a key twice.", into.path(&into.duplicate));
    if (reason == "too_deep")
      return malformed("too_deep", fmt::format("The JSON body is nested deeper than {}.", depth_max));
    return malformed("too_large", fmt::format("The JSON body has more than {} values.", values_max));
  }
  if (result.Code() == rapidjson::kParseErrorNumberTooBig) {
    std::string field = into.path();
    std::string message = (field.empty() ? std::string("The body") : field) + " is a number too large.";
    return malformed("out_of_range", std::move(message), std::move(field));
  }
  if (result.IsError())
    return malformed("malformed_json",
                     fmt::format("The body is not valid JSON at byte {}: {}", result.Offset(),
                                 rapidjson::GetParseError_En(result.Code())));
  // The stream shows a NUL at its end, so a real NUL after the value would pass for the end.
  if (bytes.Tell() != text.size())
    return malformed("malformed_json", "The body has bytes after the JSON value.");
  return std::move(into.root);
}

std::optional<uint64_t> unsigned_value(std::string_view number) noexcept {
  std::string digits;
  int exponent = 0;
  bool negative = false;
  if (!integral_digits(number, digits, exponent, negative))
    return std::nullopt;
  if (digits.empty())
    return 0;
  if (negative || exponent < 0 || exponent > 20)
    return std::nullopt;
  digits.append(static_cast<size_t>(exponent), '0');
  uint64_t value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (failure != std::errc() || end != digits.data() + digits.size())
    return std::nullopt;
  return value;
}

std::optional<int64_t> integral_value(std::string_view number) noexcept {
  const bool negative = !number.empty() && number[0] == '-';
  const auto magnitude = unsigned_value(negative ? number.substr(1) : number);
  if (!magnitude || *magnitude > static_cast<uint64_t>(INT64_MAX))
    return std::nullopt;
  return negative ? -static_cast<int64_t>(*magnitude) : static_cast<int64_t>(*magnitude);
}

field_reader::field_reader(const json_value& object, std::string prefix)
    : from_(object), prefix_(std::move(prefix)) {
  if (from_.type != json_value::kind::object)
    complaint_ = malformed("not_an_object", "The body must be a JSON object.");
}

void field_reader::complain(std::string_view name, std::string reason, std::string message,
                            std::vector<std::pair<std::string, detail_value>> details) {
  if (complaint_)
    return;
  problem what;
  what.field = prefix_ + std::string(name);
  what.reason = std::move(reason);
  what.message = std::move(message);
  what.details = std::move(details);
  complaint_ = refuse(errc::invalid_request, std::move(what));
}

void field_reader::out_of_range(std::string_view name, detail_value min, detail_value max,
                                const std::string& range) {
  complain(name, "out_of_range", fmt::format("{}{} must be {}.", prefix_, name, range),
           {{"min", std::move(min)}, {"max", std::move(max)}});
}

bool field_reader::has(std::string_view name) const noexcept {
  const json_value* v = from_.type == json_value::kind::object ? from_.find(name) : nullptr;
  return v && v->type != json_value::kind::null;
}

const json_value* field_reader::want(std::string_view name, bool required, json_value::kind type,
                                     const char* type_name) {
  if (failed())
    return nullptr;
  if (!has(name)) {
    if (required)
      complain(name, "missing", fmt::format("{}{} is required.", prefix_, name));
    return nullptr;
  }
  const json_value* v = from_.find(name);
  if (v->type != type) {
    complain(name, "wrong_type", fmt::format("{}{} must be {}.", prefix_, name, type_name));
    return nullptr;
  }
  return v;
}

std::optional<std::string> field_reader::text(std::string_view name, bool required, size_t min, size_t max) {
  const json_value* v = want(name, required, json_value::kind::string, "a string");
  if (!v)
    return std::nullopt;
  if (v->text.size() < min || v->text.size() > max) {
    out_of_range(name, static_cast<int64_t>(min), static_cast<int64_t>(max),
                 fmt::format("{} to {} bytes long", min, max));
    return std::nullopt;
  }
  return v->text;
}

std::optional<int64_t> field_reader::integer(std::string_view name, bool required, int64_t min, int64_t max,
                                             bool clamps) {
  const json_value* v = want(name, required, json_value::kind::number, "an integer");
  if (!v)
    return std::nullopt;
  std::string digits;
  int exponent = 0;
  bool negative = false;
  const bool read = integral_digits(v->text, digits, exponent, negative);
  if (read && !digits.empty() && exponent < 0) {
    complain(name, "wrong_type", fmt::format("{}{} must be an integer.", prefix_, name));
    return std::nullopt;
  }
  const auto n = integral_value(v->text);
  if (clamps && read && !negative && (!n || *n > max))
    return max;
  if (!n || *n < min || *n > max) {
    out_of_range(name, min, max, fmt::format("an integer from {} to {}", min, max));
    return std::nullopt;
  }
  return n;
}

std::optional<uint64_t> field_reader::unsigned64(std::string_view name) {
  const json_value* v = want(name, false, json_value::kind::number, "an integer");
  if (!v)
    return std::nullopt;
  const auto n = unsigned_value(v->text);
  if (!n)
    complain(name, "out_of_range",
             fmt::format("{}{} must be an integer from 0 to {}.", prefix_, name, UINT64_MAX),
             {{"min", int64_t{0}}});
  return n;
}

std::optional<double> field_reader::real(std::string_view name, double min, double max, bool above) {
  const json_value* v = want(name, false, json_value::kind::number, "a number");
  if (!v)
    return std::nullopt;
  double value = 0;
  const auto [end, failure] = std::from_chars(v->text.data(), v->text.data() + v->text.size(), value);
  // Too small for a double is as good as zero; too large is out of every range.
  if (failure == std::errc::result_out_of_range && std::abs(value) < 1)
    value = 0;
  else if (failure != std::errc())
    value = HUGE_VAL;
  if (!std::isfinite(value) || value > max || value < min || (above && value <= min)) {
    out_of_range(name, min, max, fmt::format("{} {} and at most {}", above ? "above" : "at least", min, max));
    return std::nullopt;
  }
  return value;
}

std::optional<bool> field_reader::boolean(std::string_view name) {
  const json_value* v = want(name, false, json_value::kind::boolean, "true or false");
  return v ? std::optional(v->flag) : std::nullopt;
}

std::optional<neuro_amount> field_reader::amount(std::string_view name, bool required) {
  if (failed())
    return std::nullopt;
  if (!has(name)) {
    if (required)
      complain(name, "missing", fmt::format("{}{} is required.", prefix_, name));
    return std::nullopt;
  }
  const json_value* v = from_.find(name);
  if (v->type != json_value::kind::number && v->type != json_value::kind::string) {
    complain(name, "wrong_type", fmt::format("{}{} must be a number or a decimal string.", prefix_, name));
    return std::nullopt;
  }
  neuro_amount value;
  const auto kind = v->type == json_value::kind::number ? amount_text::number : amount_text::string;
  const amount_error wrong = parse_amount(v->text, kind, false, value);
  if (wrong != amount_error::ok) {
    complain(name, "invalid_amount", to_string(wrong));
    return std::nullopt;
  }
  return value;
}

std::vector<std::string> field_reader::texts(std::string_view name, size_t count_max, size_t bytes_max) {
  std::vector<std::string> all;
  const json_value* v = want(name, false, json_value::kind::array, "a list of strings");
  if (!v)
    return all;
  if (v->items.size() > count_max) {
    complain(name, "too_many", fmt::format("{}{} may have at most {} entries.", prefix_, name, count_max),
             {{"max", static_cast<int64_t>(count_max)}});
    return all;
  }
  for (size_t i = 0; i < v->items.size(); ++i) {
    const std::string entry = fmt::format("{}.{}", name, i);
    if (v->items[i].type != json_value::kind::string) {
      complain(entry, "wrong_type", fmt::format("{}{} must be a string.", prefix_, entry));
      return all;
    }
    if (v->items[i].text.empty() || v->items[i].text.size() > bytes_max) {
      out_of_range(entry, int64_t{1}, static_cast<int64_t>(bytes_max),
                   fmt::format("1 to {} bytes long", bytes_max));
      return all;
    }
    all.push_back(v->items[i].text);
  }
  return all;
}

} // namespace neuroshard::http
