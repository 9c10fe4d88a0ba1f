#include "gateway/http/response_head.hpp"

#include <charconv>

namespace neuroshard::http {

namespace {

std::string_view status_line(unsigned status) noexcept {
  switch (status) {
  case 200:
    return "HTTP/1.1 200 OK\r\n";
  case 204:
    return "HTTP/1.1 204 No Content\r\n";
  case 400:
    return "HTTP/1.1 400 Bad Request\r\n";
  case 401:
    return "HTTP/1.1 401 Unauthorized\r\n";
  case 402:
    return "HTTP/1.1 402 Payment Required\r\n";
  case 403:
    return "HTTP/1.1 403 Forbidden\r\n";
  case 404:
    return "HTTP/1.1 404 Not Found\r\n";
  case 429:
    return "HTTP/1.1 429 Too Many Requests\r\n";
  default:
    return "HTTP/1.1 500 Internal Server Error\r\n";
  }
}

void append_common(std::string& to, const exchange& x, const std::string& date_line, bool keep) {
  to += date_line;
  add_header_line(to, "X-Request-Id", x.request_id);
  to += x.headers;
  if (!keep)
    to += "Connection: close\r\n";
  else if (!x.in.http_1_1)
    to += "Connection: keep-alive\r\n";
}

} // namespace

void append_head(std::string& to, const exchange& x, const response& r, const std::string& date_line,
                 bool keep) {
  to += status_line(r.status);
  if (r.status != 204) {
    add_header_line(to, "Content-Type", r.content_type);
    add_header_line(to, "Content-Length", uint64_t{r.bytes().size()});
  }
  append_common(to, x, date_line, keep);
  to += r.headers;
  to += "\r\n";
}

void append_stream_head(std::string& to, const exchange& x, const char* content_type,
                        std::string_view headers, const std::string& date_line, bool chunked) {
  to += status_line(200);
  add_header_line(to, "Content-Type", content_type);
  append_common(to, x, date_line, chunked);
  to += headers;
  if (chunked)
    to += "Transfer-Encoding: chunked\r\n";
  to += "\r\n";
}

void append_chunk(std::string& to, std::string_view part) {
  char size[24];
  const auto [end, failed] = std::to_chars(size, size + sizeof size - 2, part.size(), 16);
  static_cast<void>(failed); // 16 hex digits hold every size
  to.append(size, static_cast<size_t>(end - size));
  to += "\r\n";
  to += part;
  to += "\r\n";
}

} // namespace neuroshard::http
