#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

/// An amount of NEURO: an unsigned integer of 10^-18 NEURO (atto) in 128 bits. Never touches floating point.
/// Arithmetic is checked: it answers nothing (nullopt) instead of wrapping.
struct neuro_amount {
  unsigned __int128 atto = 0;

  friend constexpr auto operator<=>(const neuro_amount&, const neuro_amount&) = default;
};

inline constexpr unsigned __int128 atto_per_neuro = 1'000'000'000'000'000'000ULL;

std::optional<neuro_amount> checked_add(neuro_amount a, neuro_amount b) noexcept;
std::optional<neuro_amount> checked_sub(neuro_amount a, neuro_amount b) noexcept;
/// a x count, checked.
std::optional<neuro_amount> checked_mul(neuro_amount a, uint64_t count) noexcept;
/// floor(a x num / den) with a 256-bit intermediate; nullopt when den is 0 or the result does not fit.
std::optional<neuro_amount> mul_ratio(neuro_amount a, uint64_t num, uint64_t den) noexcept;
/// ceil(a x num / den), likewise.
std::optional<neuro_amount> mul_ratio_up(neuro_amount a, uint64_t num, uint64_t den) noexcept;

/// "100.0", "0.0168": plain decimal, trailing zeros trimmed, at least one fractional digit, no exponent.
std::string to_decimal(neuro_amount a);
/// The integer number of atto in decimal digits.
std::string to_atto_text(neuro_amount a);
/// Parses to_atto_text.
std::optional<neuro_amount> from_atto_text(std::string_view digits) noexcept;

/// How the text of an amount is read.
enum class amount_text : uint8_t {
  number, ///< text of a JSON number: more than 18 fractional digits are rounded half-even
  string, ///< text of a JSON string: more than 18 fractional digits are refused
};
/// Why a text is no amount.
enum class amount_error : uint8_t {
  ok,
  malformed,
  negative,
  zero,
  too_long,
  too_precise,
  exponent,
  overflow
};
/// Reads a decimal text (exponent allowed, within +-40; at most 64 characters). Zero, also after rounding, is
/// refused unless allowed.
amount_error parse_amount(std::string_view text, amount_text kind, bool allow_zero,
                          neuro_amount& out) noexcept;
/// One sentence for people.
const char* to_string(amount_error e) noexcept;

} // namespace neuroshard
