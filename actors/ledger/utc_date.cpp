#include "actors/ledger/utc_date.hpp"

#include <fmt/format.h>

#include <chrono>

namespace neuroshard {

namespace {

std::chrono::year_month_day date_of(int32_t day) {
  return std::chrono::sys_days(std::chrono::days(day));
}

std::optional<unsigned> digits(std::string_view text) noexcept {
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9')
      return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value;
}

} // namespace

std::string date_text(int32_t day) {
  const auto date = date_of(day);
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                     static_cast<unsigned>(date.day()));
}

std::optional<int32_t> parse_date(std::string_view text) noexcept {
  if (text.size() != 10 || text[4] != '-' || text[7] != '-')
    return std::nullopt;
  const auto year = digits(text.substr(0, 4)), month = digits(text.substr(5, 2)),
             day = digits(text.substr(8, 2));
  if (!year || !month || !day || *year < 1970)
    return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(*year)),
                                         std::chrono::month(*month), std::chrono::day(*day)};
  if (!date.ok())
    return std::nullopt;
  return static_cast<int32_t>(std::chrono::sys_days(date).time_since_epoch().count());
}

std::string timestamp_text(int64_t unix_us) {
  const int32_t day = day_of(unix_us);
  const int64_t second = (unix_us - start_of_day(day)) / us_per_second;
  return fmt::format("{}T{:02}:{:02}:{:02}Z", date_text(day), second / 3600, second / 60 % 60, second % 60);
}

} // namespace neuroshard
