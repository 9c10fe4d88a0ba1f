#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/message.hpp"
#include "gateway/http/server.hpp"

#include <cstddef>
#include <memory>

namespace neuroshard::http {

/// Reads one request after the other from a connection's bytes. Boost.Beast does the parsing; this keeps its
/// templates in one translation unit.
class request_parser {
public:
  enum class state : uint8_t { need_more, complete, failed };

  request_parser(const server_limits& limits, request& into);
  ~request_parser();
  request_parser(const request_parser&) = delete;
  request_parser& operator=(const request_parser&) = delete;

  /// Takes bytes; `used` says how many are done with, the others come again with more. After `complete` or
  /// `failed`, `next` first.
  state feed(const char* data, size_t size, size_t& used);
  /// Begins with the next request.
  void next();

  bool started() const noexcept; ///< a byte of this request has come
  bool in_body() const noexcept; ///< its header is complete
  /// Likewise, also where the announced size of the body alone was refused.
  bool header_whole() const noexcept;
  /// The client waits for "100 Continue" before it sends the body. Says so once.
  bool wants_continue() noexcept;
  /// Why it failed.
  const problem& failure() const noexcept;

private:
  struct impl;
  std::unique_ptr<impl> impl_;
};

} // namespace neuroshard::http
