#pragma once

#include "gateway/http/json.hpp"

#include <openssl/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// A client that speaks raw bytes over a loopback socket, with patience of a few seconds in everything.
namespace neuroshard::test {

struct reply {
  int status = 0; ///< 0: the connection ended, or nothing came, before a whole response
  std::map<std::string, std::string> headers; ///< names in lower case
  std::vector<std::string> header_names;      ///< as sent
  std::string body;                           ///< chunks joined

  std::string header(const std::string& lower_case_name) const;
  bool has(const std::string& lower_case_name) const { return headers.count(lower_case_name) > 0; }
  /// The body as JSON, which must be valid; null otherwise.
  http::json_value json() const;
};

/// Member of nested JSON by a dotted path ("error.details.field", "peers.0.id"); fails the test when it is
/// not there.
const http::json_value& at(const http::json_value& from, std::string_view path);
std::string text_at(const http::json_value& from, std::string_view path);

class client {
public:
  explicit client(uint16_t port, bool tls = false);
  ~client();
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  void send(std::string_view bytes);
  /// One whole response; `head_only` for HEAD.
  reply receive(bool head_only = false);
  /// Reads up to `marker` (which is included); what came when it did not appear in time.
  std::string receive_until(std::string_view marker, int patience_ms = 5000);
  /// Everything until the server closes; nothing when it does not within the time.
  std::optional<std::string> receive_all(int patience_ms = 5000);
  /// True when the server closes without another byte.
  bool closed_by_server(int patience_ms = 5000);
  void shutdown_send();
  /// Bytes and the end of the stream in one segment: whoever can read the one sees the other.
  void send_last(std::string_view bytes);
  /// Ends with RST instead of an orderly close.
  void reset();
  void close();
  void limit_receive_buffer(int bytes);

  /// Sends a request and receives its response. `headers`: further lines, each ending with CRLF.
  reply request(std::string_view method, std::string_view target, std::string_view headers = {},
                std::optional<std::string_view> body = std::nullopt);

private:
  bool more(int patience_ms);
  int fd_ = -1;
  SSL_CTX* tls_context_ = nullptr;
  SSL* tls_ = nullptr;
  std::string got_;
};

} // namespace neuroshard::test
