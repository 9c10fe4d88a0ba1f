#pragma once

#include "actors/common/money.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

/// The canonical form of signed records (spec/economics.md section 2): the domain tag, then `key=value\n`
/// lines in a fixed order; integers in decimal, amounts in atto, bytes in lower hex, text percent-encoded,
/// missing = empty. Answers that are kept for a repeated request are written alike, without a tag.
namespace neuroshard {

class canonical_writer {
public:
  canonical_writer() = default; ///< without a tag
  explicit canonical_writer(std::string_view tag);
  canonical_writer& text(std::string_view key, std::string_view value);
  canonical_writer& number(std::string_view key, uint64_t value);
  canonical_writer& number(std::string_view key, const std::optional<uint64_t>& value);
  canonical_writer& amount(std::string_view key, neuro_amount value);
  canonical_writer& bytes(std::string_view key, std::span<const uint8_t> value);
  canonical_writer& bytes(std::string_view key, const std::optional<kernels::digest>& value);
  const std::string& payload() const noexcept { return payload_; }

private:
  std::string payload_;
};

/// Reads such a payload line by line. After the first line that is not as it must be everything is empty and
/// ok() is false; `done` also refuses what is left over. There is one text for each record: `01`, `+1`,
/// upper-case hex and needless percent signs are refused.
class canonical_reader {
public:
  explicit canonical_reader(std::string_view payload) : rest_(payload) {} ///< without a tag
  canonical_reader(std::string_view payload, std::string_view tag);
  std::string text(std::string_view key);
  uint64_t number(std::string_view key);
  bool flag(std::string_view key);
  neuro_amount amount(std::string_view key);
  std::optional<uint64_t> optional_number(std::string_view key);
  kernels::digest digest(std::string_view key);
  std::optional<kernels::digest> optional_digest(std::string_view key);
  bool ok() const noexcept { return ok_; }
  bool done() const noexcept { return ok_ && rest_.empty(); }

private:
  std::string_view value(std::string_view key);

  std::string_view rest_;
  bool ok_ = true;
};

} // namespace neuroshard
