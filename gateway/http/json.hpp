#pragma once

#include "actors/common/error.hpp"
#include "actors/common/money.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::http {

/// A JSON value as read. Numbers keep their text: what they mean is decided by who reads the field.
struct json_value {
  enum class kind : uint8_t { null, boolean, number, string, array, object };
  kind type = kind::null;
  bool flag = false;
  std::string text;              ///< of a string (UTF-8) or a number
  std::vector<std::string> keys; ///< of an object, in order, all different
  std::vector<json_value> items;

  const json_value* find(std::string_view key) const noexcept;
};

/// Reads strict JSON: no duplicate keys, NaN, Infinity, comments, trailing bytes or invalid UTF-8; nested at
/// most 32 deep, at most 10,000 values. Error: invalid_request with reason `malformed_json` (or
/// `too_deep`, `too_large`; or, with the key's dotted path in `field`, `duplicate_key` and, for a number
/// beyond what a double holds, `out_of_range`).
caf::expected<json_value> parse_json(std::string_view text);

/// An integral value as a decimal text, exponent and fraction allowed ("100", "100.0", "1e2"); nothing when
/// it is not integral or does not fit.
std::optional<int64_t> integral_value(std::string_view number) noexcept;
std::optional<uint64_t> unsigned_value(std::string_view number) noexcept;

/// Takes the fields of a request's object and keeps the first complaint. Absent and null are the same. Names
/// in complaints get the prefix ("resources." makes "resources.cpu_threads").
class field_reader {
public:
  explicit field_reader(const json_value& object, std::string prefix = {});

  bool has(std::string_view name) const noexcept;
  /// Text of at least `min` and at most `max` bytes.
  std::optional<std::string> text(std::string_view name, bool required, size_t min, size_t max);
  /// min <= value <= max; with `clamps` set, any larger integer counts as max.
  std::optional<int64_t> integer(std::string_view name, bool required, int64_t min, int64_t max,
                                 bool clamps = false);
  std::optional<uint64_t> unsigned64(std::string_view name);
  /// Finite, min <= value <= max; with `above` set, min is excluded.
  std::optional<double> real(std::string_view name, double min, double max, bool above = false);
  std::optional<bool> boolean(std::string_view name);
  std::optional<neuro_amount> amount(std::string_view name, bool required);
  /// At most `count_max` texts of 1 to `bytes_max` bytes.
  std::vector<std::string> texts(std::string_view name, size_t count_max, size_t bytes_max);

  bool failed() const noexcept { return static_cast<bool>(complaint_); }
  const caf::error& complaint() const noexcept { return complaint_; }
  void complain(std::string_view name, std::string reason, std::string message,
                std::vector<std::pair<std::string, detail_value>> details = {});

private:
  const json_value* want(std::string_view name, bool required, json_value::kind type, const char* type_name);
  void out_of_range(std::string_view name, detail_value min, detail_value max, const std::string& range);

  const json_value& from_;
  std::string prefix_;
  caf::error complaint_;
};

/// Writes one JSON text. Amounts are exact decimal numbers, doubles the shortest text that reads back (and a
/// fraction at least), a double that is not finite is null. Text that is not UTF-8 is repaired.
class json_writer {
public:
  json_writer();
  ~json_writer();
  json_writer(const json_writer&) = delete;
  json_writer& operator=(const json_writer&) = delete;

  json_writer& begin();
  json_writer& end();
  json_writer& begin_list();
  json_writer& end_list();
  json_writer& key(std::string_view name);
  json_writer& null();
  json_writer& value(bool v);
  json_writer& value(double v);
  json_writer& value(std::string_view v);
  json_writer& value(const char* v) { return value(std::string_view(v)); }
  json_writer& value(const std::string& v) { return value(std::string_view(v)); }
  json_writer& value(neuro_amount v);
  /// Minus in front unless zero.
  json_writer& negative(neuro_amount v);
  json_writer& value(int64_t v);
  json_writer& value(uint64_t v);
  json_writer& value(int v) { return value(static_cast<int64_t>(v)); }
  json_writer& value(unsigned v) { return value(static_cast<uint64_t>(v)); }
  json_writer& value(const detail_value& v);
  template <class T>
  json_writer& value(const std::optional<T>& v) {
    return v ? value(*v) : null();
  }
  /// A member of an object.
  template <class T>
  json_writer& put(std::string_view name, const T& v) {
    return key(name).value(v);
  }
  /// Puts JSON that is already text, as a value.
  json_writer& raw(std::string_view json);

  std::string take();

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace neuroshard::http
