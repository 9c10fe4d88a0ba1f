#include "actors/common/money.hpp"

#include <algorithm>
#include <array>

namespace neuroshard {

namespace {

using u128 = unsigned __int128;

constexpr u128 u128_max = ~static_cast<u128>(0);
constexpr int fraction_digits = 18;
constexpr int exponent_max = 40;
constexpr size_t text_chars_max = 64;

/// quotient and remainder of a x num / den; the product has up to 192 bits. False when den is 0 or the
/// quotient does not fit.
bool divide_product(u128 a, uint64_t num, uint64_t den, u128& quotient, uint64_t& remainder) noexcept {
  if (den == 0)
    return false;
  const u128 low = (a & UINT64_MAX) * num;
  const u128 high = (a >> 64) * num + (low >> 64);
  const u128 quotient_high = high / den;
  if (quotient_high > UINT64_MAX)
    return false;
  const u128 rest = ((high % den) << 64) | (low & UINT64_MAX);
  quotient = (quotient_high << 64) | (rest / den);
  remainder = static_cast<uint64_t>(rest % den);
  return true;
}

std::string digits_of(u128 value) {
  // 64 bits at a time: a 128-bit division for each digit would cost more than all else about an amount.
  constexpr uint64_t chunk = 10'000'000'000'000'000'000ULL;
  constexpr size_t chunk_digits = 19;
  std::array<char, 40> buffer;
  size_t at = buffer.size();
  do {
    uint64_t low = static_cast<uint64_t>(value % chunk);
    value /= chunk;
    const size_t end = at;
    do {
      buffer[--at] = static_cast<char>('0' + low % 10);
      low /= 10;
    } while (low != 0);
    while (value != 0 && end - at < chunk_digits)
      buffer[--at] = '0';
  } while (value != 0);
  return {buffer.data() + at, buffer.size() - at};
}

bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}

/// value = value x 10 + digit, or false when it no longer fits.
bool push_digit(u128& value, int digit) noexcept {
  if (value > (u128_max - static_cast<u128>(digit)) / 10)
    return false;
  value = value * 10 + static_cast<u128>(digit);
  return true;
}

/// A decimal text taken apart: value = digits as an integer x 10^exponent. The digits have no leading zeros.
struct decimal_parts {
  std::array<char, text_chars_max> digits;
  size_t count = 0;
  int exponent = 0; ///< power of ten of the last digit
  bool negative = false;
};

/// Reads the grammar of a JSON number: -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
amount_error take_apart(std::string_view text, decimal_parts& out) noexcept {
  if (text.size() > text_chars_max)
    return amount_error::too_long;
  size_t at = 0;
  const auto more = [&] { return at < text.size(); };
  if (more() && text[at] == '-') {
    out.negative = true;
    ++at;
  }
  const size_t whole = at;
  const auto take_digits = [&] {
    const size_t from = at;
    for (; more() && is_digit(text[at]); ++at)
      if (out.count > 0 || text[at] != '0')
        out.digits[out.count++] = text[at];
    return at - from;
  };
  const size_t whole_digits = take_digits();
  if (whole_digits == 0 || (whole_digits > 1 && text[whole] == '0'))
    return amount_error::malformed;
  size_t fraction = 0;
  if (more() && text[at] == '.') {
    ++at;
    fraction = take_digits();
    if (fraction == 0)
      return amount_error::malformed;
  }
  int exponent = 0;
  bool exponent_ok = true;
  if (more() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    bool below = false;
    if (more() && (text[at] == '+' || text[at] == '-'))
      below = text[at++] == '-';
    const size_t from = at;
    for (; more() && is_digit(text[at]); ++at)
      exponent = std::min(exponent * 10 + (text[at] - '0'), 1000);
    if (at == from)
      return amount_error::malformed;
    exponent_ok = exponent <= exponent_max;
    if (below)
      exponent = -exponent;
  }
  if (more())
    return amount_error::malformed;
  if (out.negative)
    return amount_error::negative;
  if (!exponent_ok)
    return amount_error::exponent;
  out.exponent = exponent - static_cast<int>(fraction);
  return amount_error::ok;
}

/// Whether what is dropped after `keep` digits makes the kept part go up: half-even.
bool rounds_up(const decimal_parts& parts, size_t keep, bool kept_is_odd) noexcept {
  const char first = parts.digits[keep];
  if (first != '5')
    return first > '5';
  for (size_t i = keep + 1; i < parts.count; ++i)
    if (parts.digits[i] != '0')
      return true;
  return kept_is_odd;
}

} // namespace

std::optional<neuro_amount> checked_add(neuro_amount a, neuro_amount b) noexcept {
  if (b.atto > u128_max - a.atto)
    return std::nullopt;
  return neuro_amount{a.atto + b.atto};
}

std::optional<neuro_amount> checked_sub(neuro_amount a, neuro_amount b) noexcept {
  if (b.atto > a.atto)
    return std::nullopt;
  return neuro_amount{a.atto - b.atto};
}

std::optional<neuro_amount> checked_mul(neuro_amount a, uint64_t count) noexcept {
  return mul_ratio(a, count, 1);
}

std::optional<neuro_amount> mul_ratio(neuro_amount a, uint64_t num, uint64_t den) noexcept {
  u128 quotient = 0;
  uint64_t remainder = 0;
  if (!divide_product(a.atto, num, den, quotient, remainder))
    return std::nullopt;
  return neuro_amount{quotient};
}

std::optional<neuro_amount> mul_ratio_up(neuro_amount a, uint64_t num, uint64_t den) noexcept {
  u128 quotient = 0;
  uint64_t remainder = 0;
  if (!divide_product(a.atto, num, den, quotient, remainder))
    return std::nullopt;
  if (remainder == 0)
    return neuro_amount{quotient};
  return checked_add(neuro_amount{quotient}, neuro_amount{1});
}

std::string to_decimal(neuro_amount a) {
  std::string text = digits_of(a.atto / atto_per_neuro);
  std::string fraction = digits_of(a.atto % atto_per_neuro);
  fraction.insert(0, fraction_digits - fraction.size(), '0');
  while (fraction.size() > 1 && fraction.back() == '0')
    fraction.pop_back();
  text.push_back('.');
  return text + fraction;
}

std::string to_atto_text(neuro_amount a) {
  return digits_of(a.atto);
}

std::optional<neuro_amount> from_atto_text(std::string_view digits) noexcept {
  if (digits.empty() || (digits.size() > 1 && digits[0] == '0'))
    return std::nullopt;
  u128 value = 0;
  for (const char c : digits)
    if (!is_digit(c) || !push_digit(value, c - '0'))
      return std::nullopt;
  return neuro_amount{value};
}

amount_error parse_amount(std::string_view text, amount_text kind, bool allow_zero,
                          neuro_amount& out) noexcept {
  decimal_parts parts;
  if (const auto error = take_apart(text, parts); error != amount_error::ok)
    return error;
  const int shift = parts.exponent + fraction_digits;
  if (shift < 0 && kind == amount_text::string)
    return amount_error::too_precise;
  const size_t dropped = shift < 0 ? static_cast<size_t>(-shift) : 0;
  const size_t keep = dropped < parts.count ? parts.count - dropped : 0;
  u128 value = 0;
  for (size_t i = 0; i < keep; ++i)
    if (!push_digit(value, parts.digits[i] - '0'))
      return amount_error::overflow;
  // With more digits dropped than there are, what is dropped is below a tenth of an atto.
  if (dropped > 0 && dropped <= parts.count && rounds_up(parts, keep, (value & 1) != 0)) {
    if (value == u128_max)
      return amount_error::overflow;
    ++value;
  }
  for (int i = 0; i < shift; ++i)
    if (!push_digit(value, 0))
      return amount_error::overflow;
  if (value == 0 && !allow_zero)
    return amount_error::zero;
  out.atto = value;
  return amount_error::ok;
}

const char* to_string(amount_error e) noexcept {
  switch (e) {
  case amount_error::ok:
    return "ok";
  case amount_error::malformed:
    return "The amount is not a decimal number.";
  case amount_error::negative:
    return "The amount must not be negative.";
  case amount_error::zero:
    return "The amount must be more than zero.";
  case amount_error::too_long:
    return "The amount is longer than 64 characters.";
  case amount_error::too_precise:
    return "The amount has more than 18 fractional digits.";
  case amount_error::exponent:
    return "The exponent of the amount is beyond 40.";
  case amount_error::overflow:
    return "The amount is too large.";
  }
  return "The amount is not a decimal number.";
}

} // namespace neuroshard
