#include "gateway/http/message.hpp"

#include <charconv>

namespace neuroshard::http {

const char* to_string(verb v) noexcept {
  switch (v) {
  case verb::get:
    return "GET";
  case verb::head:
    return "HEAD";
  case verb::post:
    return "POST";
  case verb::patch:
    return "PATCH";
  case verb::options:
    return "OPTIONS";
  case verb::other:
    return "OTHER";
  }
  return "OTHER";
}

bool equal_ignoring_case(std::string_view a, std::string_view b) noexcept {
  if (a.size() != b.size())
    return false;
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  for (size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower(b[i]))
      return false;
  return true;
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

std::string_view request::header(std::string_view name) const noexcept {
  for (const span& s : headers_)
    if (equal_ignoring_case(name_of(s), name))
      return value_of(s);
  return {};
}

size_t request::header_count(std::string_view name) const noexcept {
  size_t count = 0;
  for (const span& s : headers_)
    count += equal_ignoring_case(name_of(s), name);
  return count;
}

std::string request::joined_header(std::string_view name) const {
  std::string all;
  for (const span& s : headers_)
    if (equal_ignoring_case(name_of(s), name)) {
      if (!all.empty())
        all += ',';
      all += value_of(s);
    }
  return all;
}

void request::clear() noexcept {
  method = verb::other;
  target.clear();
  path.clear();
  query.clear();
  http_1_1 = true;
  keep_alive = true;
  body.clear();
  // A large body's memory is not kept for the small requests that follow.
  if (body.capacity() > 64 * 1024)
    body = std::string();
  text_.clear();
  headers_.clear();
}

void request::add_header(std::string_view name, std::string_view value) {
  headers_.push_back({static_cast<uint32_t>(text_.size()), static_cast<uint32_t>(name.size()),
                      static_cast<uint32_t>(value.size())});
  text_ += name;
  text_ += value;
}

void add_header_line(std::string& to, std::string_view name, std::string_view value) {
  to += name;
  to += ": ";
  to += value;
  to += "\r\n";
}

void add_header_line(std::string& to, std::string_view name, uint64_t value) {
  char digits[20];
  const auto [end, failure] = std::to_chars(digits, digits + sizeof digits, value);
  static_cast<void>(failure); // 20 digits hold every 64-bit number
  add_header_line(to, name, std::string_view(digits, static_cast<size_t>(end - digits)));
}

} // namespace neuroshard::http
