#pragma once

#include "gateway/http/session_impl.hpp"

/// From responses to the socket, and what the socket tells of their delivery.
namespace neuroshard::http {

template <class Stream>
void session<Stream>::flush() {
  if (write_busy_ || closed_)
    return;
  if (!out_.empty()) {
    writing_.clear();
    writing_.swap(out_);
    write_at_ = 0;
    if constexpr (!is_tls) {
      // Nearly always the socket takes everything at once.
      boost::system::error_code ec;
      const size_t n = stream_.write_some(boost::asio::buffer(writing_), ec);
      if (ec && ec != boost::asio::error::would_block && ec != boost::asio::error::try_again) {
        abort_connection();
        return;
      }
      write_at_ += n;
    }
    if (!wrote_buffer())
      return;
  }
  all_written();
}

/// Whether the socket has taken all of `writing_`; otherwise the rest is on its way.
template <class Stream>
bool session<Stream>::wrote_buffer() {
  if (write_at_ < writing_.size()) {
    write_more();
    return false;
  }
  writing_.clear();
  write_at_ = 0;
  return true;
}

template <class Stream>
void session<Stream>::write_more() {
  write_busy_ = true;
  write_deadline_ = steady_ms() + limits_.write_ms;
  stream_.async_write_some(
      boost::asio::buffer(writing_.data() + write_at_, writing_.size() - write_at_),
      [me = self()](const boost::system::error_code& ec, size_t n) { me->on_write(ec, n); });
}

template <class Stream>
void session<Stream>::on_write(const boost::system::error_code& ec, size_t n) {
  write_busy_ = false;
  if (closed_)
    return;
  if (ec) {
    abort_connection();
    return;
  }
  write_at_ += n;
  if (!wrote_buffer())
    return;
  flush();
  if (!closed_ && !handling_ && !closing_)
    process(); // may have waited for the socket
}

template <class Stream>
void session<Stream>::all_written() {
  deliveries_.written(steady_ms());
  if (handling_) {
    if (on_written_)
      // Not from here: the handler may be just in the middle of `send`.
      lane_->post([me = self(), fn = std::exchange(on_written_, nullptr)] {
        if (me->handling_)
          fn();
      });
    return;
  }
  if (closing_)
    linger();
}

template <class Stream>
void session<Stream>::settle_written(int64_t until_ms) {
  deliveries_.settle(until_ms);
  if (gone_)
    deliveries_.fail();
}

} // namespace neuroshard::http
