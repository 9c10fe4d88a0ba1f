#include "gateway/http/json.hpp"

#include <rapidjson/stringbuffer.h>
#include <rapidjson/writer.h>

#include <charconv>
#include <cmath>

namespace neuroshard::http {

namespace {

/// Length of the well-formed UTF-8 sequence that starts at `at`, or 0.
size_t sequence_length(std::string_view text, size_t at) noexcept {
  const auto byte = [&](size_t i) { return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0u; };
  const auto follows = [&](size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80)
    return 1;
  if (first >= 0xC2 && first <= 0xDF)
    return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool second = follows(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF);
    return second && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool second = follows(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF);
    return second && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(std::string_view text) noexcept {
  for (size_t at = 0; at < text.size();) {
    const size_t size = sequence_length(text, at);
    if (size == 0)
      return false;
    at += size;
  }
  return true;
}

std::string repaired(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t size = sequence_length(text, at);
    if (size == 0) {
      out += "\xEF\xBF\xBD"; // U+FFFD
      ++at;
      continue;
    }
    out += text.substr(at, size);
    at += size;
  }
  return out;
}

} // namespace

struct json_writer::impl {
  rapidjson::StringBuffer bytes;
  rapidjson::Writer<rapidjson::StringBuffer> to{bytes};
};

json_writer::json_writer() : impl_(std::make_unique<impl>()) {}
json_writer::~json_writer() = default;

json_writer& json_writer::begin() {
  impl_->to.StartObject();
  return *this;
}
json_writer& json_writer::end() {
  impl_->to.EndObject();
  return *this;
}
json_writer& json_writer::begin_list() {
  impl_->to.StartArray();
  return *this;
}
json_writer& json_writer::end_list() {
  impl_->to.EndArray();
  return *this;
}
json_writer& json_writer::key(std::string_view name) {
  impl_->to.Key(name.data(), static_cast<rapidjson::SizeType>(name.size()));
  return *this;
}
json_writer& json_writer::null() {
  impl_->to.Null();
  return *this;
}
json_writer& json_writer::value(bool v) {
  impl_->to.Bool(v);
  return *this;
}
json_writer& json_writer::value(double v) {
  if (!std::isfinite(v))
    return null();
  char text[40];
  auto [end, failure] = std::to_chars(text, text + sizeof text - 2, v);
  std::string_view written(text, static_cast<size_t>(end - text));
  if (written.find_first_of(".e") == std::string_view::npos) {
    *end++ = '.';
    *end++ = '0';
  }
  return raw({text, static_cast<size_t>(end - text)});
}
json_writer& json_writer::value(std::string_view v) {
  if (!is_utf8(v)) {
    const std::string fixed = repaired(v);
    impl_->to.String(fixed.data(), static_cast<rapidjson::SizeType>(fixed.size()));
  } else {
    impl_->to.String(v.data(), static_cast<rapidjson::SizeType>(v.size()));
  }
  return *this;
}
json_writer& json_writer::value(neuro_amount v) {
  return raw(to_decimal(v));
}
json_writer& json_writer::negative(neuro_amount v) {
  std::string text(v.atto == 0 ? "" : "-");
  text += to_decimal(v);
  return raw(text);
}
json_writer& json_writer::value(int64_t v) {
  impl_->to.Int64(v);
  return *this;
}
json_writer& json_writer::value(uint64_t v) {
  impl_->to.Uint64(v);
  return *this;
}
json_writer& json_writer::value(const detail_value& v) {
  return std::visit([this](const auto& x) -> json_writer& { return value(x); }, v);
}
json_writer& json_writer::raw(std::string_view json) {
  impl_->to.RawValue(json.data(), json.size(), rapidjson::kNumberType);
  return *this;
}

std::string json_writer::take() {
  return {impl_->bytes.GetString(), impl_->bytes.GetSize()};
}

} // namespace neuroshard::http
