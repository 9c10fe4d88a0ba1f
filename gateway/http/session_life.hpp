#pragma once

#include "gateway/http/errors.hpp"
#include "gateway/http/session_impl.hpp"

#include <sys/socket.h>

#include <cerrno>

/// How a connection begins, what ends it, and what it knows of its client.
namespace neuroshard::http {

template <class Stream>
session<Stream>::~session() {
  running_.reset();
  lane_->counts.connections.fetch_sub(1, std::memory_order_relaxed);
  lane_->shared.node.counters->http_connections.fetch_sub(1, std::memory_order_relaxed);
  if (handling_)
    lane_->counts.in_flight.fetch_sub(1, std::memory_order_relaxed);
}

template <class Stream>
void session<Stream>::start() {
  boost::system::error_code ec;
  const auto end = socket().remote_endpoint(ec);
  if (ec) {
    close();
    return;
  }
  const auto address = end.address();
  peer_ = address.is_v6() && address.to_v6().is_v4_mapped()
              ? boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6()).to_string()
              : address.to_string();
  socket().set_option(boost::asio::ip::tcp::no_delay(true), ec);
  deadline_ = steady_ms() + limits_.header_ms;
  if constexpr (is_tls) {
    stream_.async_handshake(boost::asio::ssl::stream_base::server,
                            [me = self()](const boost::system::error_code& failed) {
                              if (failed)
                                me->close();
                              else
                                me->begin();
                            });
  } else {
    socket().non_blocking(true, ec);
    begin();
  }
}

template <class Stream>
void session<Stream>::begin() {
  if (refused_) {
    exchange_.emplace(*this, request_);
    request_.keep_alive = false;
    write_response(lane_->shared.refuse_connection(*exchange_));
    exchange_.reset();
    closing_ = true;
    flush();
    return;
  }
  read();
}

template <class Stream>
void session<Stream>::tick(int64_t now) {
  if (closed_)
    return;
  if (write_busy_ && now >= write_deadline_) {
    abort_connection();
    return;
  }
  settle_written(now - limits_.delivered_ms);
  if (deadline_ == 0 || now < deadline_ || handling_)
    return;
  const bool midway = parser_.started() && !closing_;
  if (!midway) {
    close();
    return;
  }
  problem what;
  what.message = parser_.in_body() ? "The body took too long." : "The header took too long.";
  what.reason = "timeout";
  refuse_bytes(std::move(what));
}

template <class Stream>
void session<Stream>::shut(bool when_idle) {
  if (closed_)
    return;
  if (!when_idle) {
    close();
    return;
  }
  closing_ = true;
  if (!handling_ && !write_busy_ && out_.empty())
    close();
}

template <class Stream>
bool session<Stream>::peer_gone() {
  if (gone_ || closed_)
    return true;
  return look() == seen::end || gone_;
}

template <class Stream>
typename session<Stream>::seen session<Stream>::look() {
  char byte;
  const ssize_t got = ::recv(socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got >= 0)
    return got == 0 ? seen::end : seen::bytes;
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
    return seen::nothing;
  // The socket tells of its error once: the next read finds an end in order, which this is not.
  gone_ = true;
  deliveries_.fail();
  return seen::nothing;
}

template <class Stream>
void session<Stream>::settle_by_look() {
  if (closed_ || gone_ || deliveries_.empty())
    return;
  if (look() != seen::nothing)
    settle_written(INT64_MAX);
}

template <class Stream>
void session<Stream>::on_gone(std::function<void()> fn) {
  if (gone_ || closed_)
    fn();
  else
    on_gone_ = std::move(fn);
}

template <class Stream>
void session<Stream>::wake_after(int64_t ms, std::function<void()> fn) {
  wake_timer_.expires_after(std::chrono::milliseconds(ms));
  wake_timer_.async_wait([me = self(), fn = std::move(fn)](const boost::system::error_code& ec) {
    if (!ec && me->handling_)
      fn();
  });
}

template <class Stream>
void session<Stream>::linger() {
  if (gone_) {
    close();
    return;
  }
  if (std::exchange(lingering_, true))
    return;
  deadline_ = steady_ms() + std::max(limits_.linger_ms, deliveries_.empty() ? 0 : limits_.delivered_ms + 100);
  if constexpr (is_tls) {
    stream_.async_shutdown([me = self()](const boost::system::error_code&) {
      if (!me->closed_) {
        me->settle_written(INT64_MAX);
        me->close();
      }
    });
  } else {
    boost::system::error_code ec;
    socket().shutdown(tcp_socket::shutdown_send, ec);
    in_.clear();
    read();
  }
}

template <class Stream>
void session<Stream>::abort_connection() {
  deliveries_.fail();
  close();
}

template <class Stream>
void session<Stream>::close() {
  if (std::exchange(closed_, true))
    return;
  const auto held = self();
  boost::system::error_code ec;
  socket().close(ec);
  deliveries_.fail();
  gone_ = true;
  if (handling_) {
    if (auto fn = std::exchange(on_gone_, nullptr))
      fn();
    if (auto fn = std::exchange(on_written_, nullptr))
      lane_->post([held, fn = std::move(fn)] {
        if (held->handling_)
          fn();
      });
    return;
  }
  leave();
}

template <class Stream>
void session<Stream>::leave() {
  const auto held = self();
  lane_->remove(this);
}

} // namespace neuroshard::http
