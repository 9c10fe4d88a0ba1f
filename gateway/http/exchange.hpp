#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/message.hpp"
#include "gateway/http/node_services.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace neuroshard::http {

/// One I/O thread. Everything of a connection happens on its lane, so that nothing of it needs a lock.
class lane {
public:
  virtual ~lane() = default;
  /// Runs `fn` later on the lane; dropped once the server has stopped. Any thread.
  virtual void post(std::function<void()> fn) = 0;
  /// Runs `fn` on the lane after a time; dropped likewise. Any thread.
  virtual void after(int64_t ms, std::function<void()> fn) = 0;
  /// 0, 1, ...: for what is kept per lane.
  virtual size_t index() const noexcept = 0;
};
using lane_ptr = std::shared_ptr<lane>;

/// What a connection remembers of the last Authorization header it saw, so that the next equal one costs no
/// hashing.
struct credential_memory {
  std::string header;
  const known_token* token = nullptr;
};

/// What handlers may know of and do with a connection; implemented by the sessions. Lane thread only, unless
/// said otherwise.
class connection : public std::enable_shared_from_this<connection> {
public:
  virtual ~connection() = default;
  virtual const lane_ptr& home() const noexcept = 0;
  /// Address of the socket's other end, without port; IPv4 in IPv6 as IPv4.
  virtual const std::string& peer_address() const noexcept = 0;
  virtual bool encrypted() const noexcept = 0;
  /// Whether the client's end of stream or an error has been seen; looks at the socket.
  virtual bool peer_gone() = 0;
  /// Takes what the socket shows by now for a sign of life: settles the deliveries of responses whose client
  /// has closed in order, or sent more, without waiting for the turn of the read.
  virtual void settle_by_look() = 0;
  /// Called once when the client goes during this request (end of stream, error). Replaces the one before;
  /// cleared at its end.
  virtual void on_gone(std::function<void()> fn) = 0;
  /// Calls `fn` after a time, once; a further call takes the place of the one before. Cleared at the end of
  /// the request.
  virtual void wake_after(int64_t ms, std::function<void()> fn) = 0;

  // -- streams: the handler writes the response itself, and then returns one with `streamed` set
  /// Sends the head: status 200, the exchange's headers and `headers`, chunked (or until close for HTTP/1.0).
  virtual void begin_stream(const char* content_type, std::string_view headers) = 0;
  virtual void send(std::string_view part) = 0;
  /// Whether bytes of `send` still wait for the socket; `on_written` is called when none do any more.
  virtual bool unsent() const noexcept = 0;
  virtual void on_written(std::function<void()> fn) = 0;

  credential_memory credentials;
};

/// Who sent a request.
struct caller {
  const known_token* token = nullptr; ///< null: anonymous
  std::string address;                ///< of the client, behind trusted proxies
  bool secure = false;                ///< TLS here or at a trusted proxy
};

/// One request on its way through middlewares and handler.
struct exchange {
  exchange(connection& c, request& r) : link(c), in(r) {}
  connection& link;
  request& in;
  caller who;
  std::string request_id;
  std::string headers; ///< lines that every response to this request carries
  /// What makes its bytes no valid request, or null. Then it has no body, and unless `header_whole` nothing
  /// but what was read of its header before.
  const problem* malformed = nullptr;
  bool header_whole = true;
};

} // namespace neuroshard::http
