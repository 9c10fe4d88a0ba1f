#include "gateway/http/query.hpp"

#include "actors/ledger/utc_date.hpp"
#include "gateway/http/json.hpp"

#include <fmt/format.h>

namespace neuroshard::http {

namespace {

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

std::optional<std::string> decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out.push_back(' ');
    } else if (text[i] == '%') {
      if (i + 2 >= text.size() || hex_digit(text[i + 1]) < 0 || hex_digit(text[i + 2]) < 0)
        return std::nullopt;
      out.push_back(static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

} // namespace

query_reader::query_reader(std::string_view query) {
  while (!query.empty() && !failed()) {
    const size_t end = query.find('&');
    const std::string_view part = query.substr(0, end);
    query = end == std::string_view::npos ? std::string_view() : query.substr(end + 1);
    if (part.empty())
      continue;
    const size_t equals = part.find('=');
    const auto name = decoded(part.substr(0, equals));
    const auto value =
        decoded(equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1));
    if (!name || !value)
      complain("query", "malformed", "The query has a malformed percent escape.");
    else if (text(*name))
      complain(*name, "duplicate", "A query parameter is given twice.");
    else
      parts_.emplace_back(*name, *value);
  }
}

void query_reader::complain(std::string_view name, std::string reason, std::string message,
                            std::vector<std::pair<std::string, detail_value>> details) {
  if (complaint_)
    return;
  problem what;
  what.field = name;
  what.reason = std::move(reason);
  what.message = std::move(message);
  what.details = std::move(details);
  complaint_ = refuse(errc::invalid_request, std::move(what));
}

std::optional<std::string> query_reader::text(std::string_view name) const {
  for (const auto& [key, value] : parts_)
    if (key == name && !value.empty())
      return value;
  return std::nullopt;
}

int64_t query_reader::integer(std::string_view name, int64_t otherwise, int64_t min, int64_t max) {
  const auto sent = text(name);
  if (!sent)
    return otherwise;
  const auto n = integral_value(*sent);
  if (!n || *n < min || *n > max) {
    complain(name, "out_of_range", fmt::format("{} must be an integer from {} to {}.", name, min, max),
             {{"min", min}, {"max", max}});
    return otherwise;
  }
  return *n;
}

bool query_reader::boolean(std::string_view name, bool otherwise) {
  const auto sent = text(name);
  if (!sent)
    return otherwise;
  if (*sent == "true" || *sent == "1")
    return true;
  if (*sent != "false" && *sent != "0")
    complain(name, "wrong_type", fmt::format("{} must be true or false.", name));
  return false;
}

std::optional<int32_t> query_reader::date(std::string_view name) {
  const auto sent = text(name);
  if (!sent)
    return std::nullopt;
  const auto day = parse_date(*sent);
  if (!day)
    complain(name, "malformed", fmt::format("{} must be a date YYYY-MM-DD.", name));
  return day;
}

} // namespace neuroshard::http
