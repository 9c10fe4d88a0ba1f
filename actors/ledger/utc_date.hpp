#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

inline constexpr int64_t us_per_second = 1'000'000;
inline constexpr int64_t us_per_day = 86'400 * us_per_second;

/// The UTC day (days since 1970-01-01) a time lies in.
constexpr int32_t day_of(int64_t unix_us) noexcept {
  const int64_t day = unix_us / us_per_day;
  return static_cast<int32_t>(unix_us % us_per_day < 0 ? day - 1 : day);
}
/// 00:00 UTC of a day.
constexpr int64_t start_of_day(int32_t day) noexcept {
  return static_cast<int64_t>(day) * us_per_day;
}

/// `YYYY-MM-DD`.
std::string date_text(int32_t day);
/// Reads `YYYY-MM-DD` of the years 1970 to 9999; nothing when it is no date.
std::optional<int32_t> parse_date(std::string_view text) noexcept;
/// `YYYY-MM-DDTHH:MM:SSZ`.
std::string timestamp_text(int64_t unix_us);

} // namespace neuroshard
