#pragma once

#include "gateway/http/node_services.hpp"

#include <caf/error.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// The HTTP server: listens, and answers every request of http-api.md. No Boost type is visible here.
namespace neuroshard::http {

/// All limits and time-outs of http-api.md section 1; the tests shorten them.
struct server_limits {
  size_t header_bytes = 16 * 1024;
  size_t body_bytes = 1024 * 1024;
  size_t connections = 1024;          ///< more are answered `overloaded` and closed
  size_t pipelined_bytes = 64 * 1024; ///< read ahead of a running request; then the socket is left alone
  size_t unsent_frames = 256;         ///< of a stream; more cancel it
  int unsent_bytes = 16 * 1024;       ///< of a stream that the kernel may hold beside those frames
  int64_t header_ms =
      10'000; ///< from the first byte of a request (or the connection) to the end of its header
  int64_t body_ms = 30'000;
  int64_t idle_ms = 60'000;         ///< between requests
  int64_t write_ms = 30'000;        ///< without progress of a response
  int64_t delivered_ms = 2'000;     ///< silence after a response that counts as its delivery
  int64_t linger_ms = 2'000;        ///< reading on after an error response, so that it reaches the client
  int64_t stream_header_ms = 5'000; ///< after admission, if no token came before
  int64_t ping_ms = 10'000;         ///< silence of a stream before a comment line
  int64_t orphan_ms = 10'000;       ///< a generation goes on for so long without a client
  int64_t undelivered_ms = 120'000; ///< an undelivered result is kept for an identical request
  int64_t actor_ms = 10'000;        ///< patience with an actor
  int64_t stored_s = 24 * 3600;     ///< Idempotency-Key of inference
};

struct server_settings {
  std::string host = "127.0.0.1"; ///< IP address
  uint16_t port = 8000;           ///< 0: any free one, see server::port
  size_t threads = 1;
  bool allow_plain_http = false;
  std::vector<std::string> trusted_proxies; ///< addresses or CIDR, validated by the configuration
  std::vector<std::string> cors_origins;
  std::string tls_cert, tls_key; ///< files, both or neither
  rate_limits rates;             ///< to know which classes are unlimited; the rate limiter has the same
  int64_t inference_timeout_s = 120;
  bool access_log = true; ///< a line for each finished request, at level INFO
  server_limits limits;
};

class gateway;

/// Owns the I/O threads ("lanes"); a connection lives on one of them for ever, which is its strand. All
/// methods are called from one thread, that of main; none throws.
class server {
public:
  server(server_settings settings, node_services services);
  /// Stops at once if `stop` has not been called.
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  /// Binds, listens and starts the threads. On failure nothing runs, and the error says why:
  /// errc::unavailable with reason `port_in_use` or `bind_failed` (exit code 2 of the program);
  /// errc::invalid_request, field `api.tls`, for bad TLS files (1).
  caf::error start();
  /// The port in use, after start.
  uint16_t port() const;

  /// Changed limits (SIGHUP); the caller tells the rate limiter the same.
  void set_rates(const rate_limits& rates);
  /// Whether finished requests are logged (SIGHUP).
  void set_access_log(bool on);
  /// From now on work (inference, wallet, configuration) is answered `draining`; reading the node's state
  /// still works, and the listener stays open so that clients are told.
  void drain();
  /// Stops accepting, waits up to `patience_ms` for requests in flight, closes all connections, ends the
  /// threads. True when nothing was cut off.
  bool stop(int64_t patience_ms);
  /// Requests being answered now.
  size_t in_flight() const;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace neuroshard::http
