#include "actors/ledger/canonical_text.hpp"

#include "actors/identity/keys.hpp"
#include "actors/ledger/records.hpp"

#include <charconv>

namespace neuroshard {

canonical_writer::canonical_writer(std::string_view tag) {
  payload_.reserve(1024);
  payload_.append(tag).append("\n");
}

canonical_writer& canonical_writer::text(std::string_view key, std::string_view value) {
  payload_.append(key).append("=").append(percent_encoded(value)).append("\n");
  return *this;
}

canonical_writer& canonical_writer::number(std::string_view key, uint64_t value) {
  return text(key, std::to_string(value));
}

canonical_writer& canonical_writer::number(std::string_view key, const std::optional<uint64_t>& value) {
  return text(key, value ? std::to_string(*value) : std::string());
}

canonical_writer& canonical_writer::amount(std::string_view key, neuro_amount value) {
  return text(key, to_atto_text(value));
}

canonical_writer& canonical_writer::bytes(std::string_view key, std::span<const uint8_t> value) {
  return text(key, kernels::to_hex(value));
}

canonical_writer& canonical_writer::bytes(std::string_view key, const std::optional<kernels::digest>& value) {
  return text(key, value ? kernels::to_hex(*value) : std::string());
}

canonical_reader::canonical_reader(std::string_view payload, std::string_view tag) : rest_(payload) {
  ok_ = rest_.size() > tag.size() && rest_.substr(0, tag.size()) == tag && rest_[tag.size()] == '\n';
  rest_.remove_prefix(ok_ ? tag.size() + 1 : 0);
}

std::string_view canonical_reader::value(std::string_view key) {
  const size_t end = rest_.find('\n');
  if (!ok_ || end == std::string_view::npos || end <= key.size() || rest_.substr(0, key.size()) != key ||
      rest_[key.size()] != '=') {
    ok_ = false;
    return {};
  }
  const std::string_view found = rest_.substr(key.size() + 1, end - key.size() - 1);
  rest_.remove_prefix(end + 1);
  return found;
}

std::string canonical_reader::text(std::string_view key) {
  const std::string_view written = value(key);
  auto read = percent_decoded(written);
  ok_ = ok_ && read && percent_encoded(*read) == written;
  return ok_ ? std::move(*read) : std::string();
}

std::optional<uint64_t> canonical_reader::optional_number(std::string_view key) {
  const std::string_view digits = value(key);
  if (!ok_ || digits.empty())
    return std::nullopt;
  uint64_t number = 0;
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  ok_ = failed == std::errc() && end == digits.data() + digits.size() &&
        (digits.size() == 1 || digits[0] != '0');
  return ok_ ? std::optional(number) : std::nullopt;
}

uint64_t canonical_reader::number(std::string_view key) {
  const auto found = optional_number(key);
  ok_ = ok_ && found;
  return found.value_or(0);
}

bool canonical_reader::flag(std::string_view key) {
  const uint64_t found = number(key);
  ok_ = ok_ && found <= 1;
  return found == 1;
}

neuro_amount canonical_reader::amount(std::string_view key) {
  const auto found = from_atto_text(value(key)); // Has one form of each: no sign, no zero in front.
  ok_ = ok_ && found;
  return ok_ ? *found : neuro_amount{};
}

std::optional<kernels::digest> canonical_reader::optional_digest(std::string_view key) {
  const std::string_view hex = value(key);
  if (!ok_ || hex.empty())
    return std::nullopt;
  kernels::digest found{};
  ok_ = from_hex(hex, found.data(), found.size()) && kernels::to_hex(found) == hex;
  return ok_ ? std::optional(found) : std::nullopt;
}

kernels::digest canonical_reader::digest(std::string_view key) {
  const auto found = optional_digest(key);
  ok_ = ok_ && found;
  return found.value_or(kernels::digest{});
}

} // namespace neuroshard
