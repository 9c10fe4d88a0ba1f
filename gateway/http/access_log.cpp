#include "gateway/http/access_log.hpp"

#include "actors/common/log.hpp"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace neuroshard::http {

namespace {

constexpr size_t logged_path_max = 256;

/// Blanks, quotes, control characters and what is not ASCII as %XX, so that a path is one word.
void append_escaped(fmt::memory_buffer& to, std::string_view path) {
  for (const char c : path.substr(0, logged_path_max)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7F && c != '"' && c != '\\')
      to.push_back(c);
    else
      fmt::format_to(std::back_inserter(to), "%{:02X}", byte);
  }
  if (path.size() > logged_path_max)
    to.append(std::string_view("..."));
}

} // namespace

std::string access_line(const access_record& r) {
  fmt::memory_buffer line;
  fmt::format_to(std::back_inserter(line), "request id={} peer={} method={} path=", r.id,
                 r.client.empty() ? "-" : r.client, to_string(r.method));
  append_escaped(line, r.path.empty() ? "-" : r.path);
  fmt::format_to(std::back_inserter(line), " status={} bytes={} ms={}.{:03}{}", r.status, r.bytes,
                 r.us / 1000, r.us % 1000, r.gone ? " gone=true" : "");
  return fmt::to_string(line);
}

void access_log::note(const access_record& r, int64_t now_s) {
  if (!log::enabled(log::level::info))
    return;
  if (second_ != now_s) {
    second_ = now_s;
    written_ = 0;
    if (const uint64_t n = std::exchange(left_out_, 0); n > 0)
      log::info("access", "left-out requests={}", n);
  }
  if (written_ >= lines_per_s_max) {
    ++left_out_;
    return;
  }
  ++written_;
  log::write(log::level::info, "access", access_line(r));
}

} // namespace neuroshard::http
