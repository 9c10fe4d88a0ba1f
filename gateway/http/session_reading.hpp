#pragma once

#include "gateway/http/session_impl.hpp"

/// From the socket to whole requests.
namespace neuroshard::http {

template <class Stream>
void session<Stream>::read() {
  if (reading_ || closed_ || gone_)
    return;
  const auto room = in_.room(limits_.pipelined_bytes);
  if (room.empty())
    return; // enough read ahead; goes on when the request in hand is answered
  reading_ = true;
  stream_.async_read_some(
      boost::asio::buffer(room.data(), room.size()),
      [me = self()](const boost::system::error_code& ec, size_t n) { me->on_read(ec, n); });
}

template <class Stream>
void session<Stream>::on_read(const boost::system::error_code& ec, size_t n) {
  reading_ = false;
  if (closed_)
    return;
  if (ec) {
    on_peer_end(ec == boost::asio::error::eof || ec == boost::asio::ssl::error::stream_truncated);
    return;
  }
  in_.filled(n);
  settle_written(INT64_MAX); // a sign of life after a response
  if (closing_ && !handling_) {
    in_.clear(); // lingering: whatever comes is dropped
    read();
    return;
  }
  process();
}

template <class Stream>
void session<Stream>::on_peer_end(bool orderly) {
  gone_ = true;
  if (orderly)
    settle_written(INT64_MAX);
  else
    deliveries_.fail();
  if (handling_) {
    if (auto fn = std::exchange(on_gone_, nullptr))
      fn();
    return;
  }
  if (orderly && write_busy_ && !in_.empty() && !closing_)
    return; // pipelined requests are still to be answered
  if (orderly && parser_.started() && !closing_) {
    problem what;
    what.message = "The request ended early.";
    what.reason = "truncated";
    refuse_bytes(std::move(what));
    return;
  }
  if (!orderly || (!write_busy_ && out_.empty()))
    close();
  else
    closing_ = true;
}

template <class Stream>
void session<Stream>::process() {
  while (!handling_ && !closing_ && !closed_) {
    if (write_busy_ && out_.size() > out_max)
      return; // goes on when the socket has taken some
    if (!parser_.started())
      in_.skip_line_ends();
    if (in_.empty())
      break;
    const bool fresh = !parser_.started();
    const bool was_in_body = parser_.in_body();
    size_t used = 0;
    const auto state = parser_.feed(in_.data(), in_.size(), used);
    in_.consume(used);
    if (state == request_parser::state::failed) {
      refuse_bytes(parser_.failure());
      return;
    }
    if (state == request_parser::state::need_more) {
      if (parser_.in_body() && !was_in_body)
        deadline_ = steady_ms() + limits_.body_ms;
      else if (fresh)
        deadline_ = steady_ms() + limits_.header_ms;
      if (parser_.wants_continue())
        out_ += "HTTP/1.1 100 Continue\r\n\r\n";
      if (used == 0 || in_.empty())
        break;
      continue;
    }
    handle();
  }
  if (closed_)
    return;
  flush();
  // After the end of stream: what was pipelined before it has been answered now.
  if (gone_ && !handling_ && !closing_)
    on_peer_end(true);
  else
    read();
}

} // namespace neuroshard::http
