#include "tests/gateway/http/http_client.hpp"

#include "gateway/http/message.hpp"
#include "tests/support/test.hpp"

#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace neuroshard::test {

std::string reply::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? std::string() : at->second;
}

http::json_value reply::json() const {
  auto parsed = http::parse_json(body);
  INFO("body: " << body);
  CHECK(parsed);
  return parsed ? std::move(*parsed) : http::json_value{};
}

const http::json_value& at(const http::json_value& from, std::string_view path) {
  static const http::json_value nothing;
  const http::json_value* here = &from;
  while (!path.empty()) {
    const size_t dot = path.find('.');
    const std::string_view step = path.substr(0, dot);
    const http::json_value* next = nullptr;
    if (here->type == http::json_value::kind::object) {
      next = here->find(step);
    } else if (here->type == http::json_value::kind::array) {
      const size_t index = static_cast<size_t>(std::atoi(std::string(step).c_str()));
      next = index < here->items.size() ? &here->items[index] : nullptr;
    }
    INFO("path: " << std::string(path));
    CHECK(next != nullptr);
    if (!next)
      return nothing;
    here = next;
    path = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  }
  return *here;
}

std::string text_at(const http::json_value& from, std::string_view path) {
  return at(from, path).text;
}

client::client(uint16_t port, bool tls) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  const int one = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (tls) {
    tls_context_ = SSL_CTX_new(TLS_client_method());
    tls_ = SSL_new(tls_context_);
    SSL_set_fd(tls_, fd_);
    REQUIRE(SSL_connect(tls_) == 1);
  }
}

client::~client() {
  close();
  if (tls_)
    SSL_free(tls_);
  if (tls_context_)
    SSL_CTX_free(tls_context_);
}

void client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = tls_ ? SSL_write(tls_, bytes.data(), static_cast<int>(bytes.size()))
                           : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0)
      return; // the server has closed; what it said before can still be read
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool client::more(int patience_ms) {
  char part[16384];
  if (!tls_ || SSL_pending(tls_) == 0) {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, patience_ms) != 1)
      return false;
  }
  const ssize_t n = tls_ ? SSL_read(tls_, part, sizeof part) : ::recv(fd_, part, sizeof part, 0);
  if (n <= 0)
    return false;
  got_.append(part, static_cast<size_t>(n));
  return true;
}

std::string client::receive_until(std::string_view marker, int patience_ms) {
  size_t end = 0;
  while ((end = got_.find(marker)) == std::string::npos)
    if (!more(patience_ms))
      return std::exchange(got_, {});
  end += marker.size();
  std::string out = got_.substr(0, end);
  got_.erase(0, end);
  return out;
}

reply client::receive(bool head_only) {
  reply r;
  const std::string head = receive_until("\r\n\r\n");
  if (head.size() < 12 || head.compare(0, 9, "HTTP/1.1 ") != 0)
    return r;
  r.status = std::atoi(head.c_str() + 9);
  size_t line = head.find("\r\n") + 2;
  while (line < head.size() - 2) {
    const size_t end = head.find("\r\n", line);
    const size_t colon = head.find(':', line);
    std::string name = head.substr(line, colon - line);
    r.header_names.push_back(name);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    r.headers[name] = std::string(http::trimmed(std::string_view(head).substr(colon + 1, end - colon - 1)));
    line = end + 2;
  }
  if (head_only || r.status == 204 || r.status == 100)
    return r;
  if (r.header("transfer-encoding") == "chunked") {
    for (;;) {
      const std::string size_line = receive_until("\r\n");
      const size_t size = std::strtoul(size_line.c_str(), nullptr, 16);
      while (got_.size() < size + 2)
        if (!more(5000)) {
          r.status = 0;
          return r;
        }
      r.body.append(got_, 0, size);
      got_.erase(0, size + 2);
      if (size == 0)
        return r;
    }
  }
  const size_t length = std::strtoul(r.header("content-length").c_str(), nullptr, 10);
  while (got_.size() < length)
    if (!more(5000)) {
      r.status = 0;
      return r;
    }
  r.body = got_.substr(0, length);
  got_.erase(0, length);
  return r;
}

std::optional<std::string> client::receive_all(int patience_ms) {
  while (more(patience_ms)) {
  }
  pollfd wait{fd_, POLLIN, 0};
  if (::poll(&wait, 1, 0) != 1)
    return std::nullopt; // still open and silent
  return std::exchange(got_, {});
}

bool client::closed_by_server(int patience_ms) {
  const auto rest = receive_all(patience_ms);
  return rest && rest->empty();
}

void client::send_last(std::string_view bytes) {
  const int on = 1;
  REQUIRE(::setsockopt(fd_, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0);
  send(bytes);
  shutdown_send();
}

void client::shutdown_send() {
  ::shutdown(fd_, SHUT_WR);
}

void client::reset() {
  const linger now{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void client::close() {
  if (fd_ >= 0)
    ::close(std::exchange(fd_, -1));
}

void client::limit_receive_buffer(int bytes) {
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
}

reply client::request(std::string_view method, std::string_view target, std::string_view headers,
                      std::optional<std::string_view> body) {
  std::string out;
  out.append(method).append(" ").append(target).append(" HTTP/1.1\r\nHost: localhost\r\n").append(headers);
  if (body)
    out.append("Content-Type: application/json\r\nContent-Length: ")
        .append(std::to_string(body->size()))
        .append("\r\n");
  out.append("\r\n").append(body.value_or(""));
  send(out);
  return receive(method == "HEAD");
}

} // namespace neuroshard::test
