#pragma once

#include "actors/common/log.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/request_parser.hpp"
#include "gateway/http/response_head.hpp"
#include "gateway/http/session.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <deque>
#include <optional>
#include <type_traits>
#include <vector>

namespace neuroshard::http {

using tcp_socket = boost::asio::ip::tcp::socket;
using tls_stream = boost::asio::ssl::stream<tcp_socket>;

/// One connection: reads requests, hands them to the gateway one at a time, writes responses in order. While
/// a request is being answered it reads on (a bounded amount), to notice that the client goes and to have
/// pipelined requests at hand.
///
/// Lives on one lane. Held by the lane until it is closed and nothing is being answered, and by its own
/// asynchronous operations.
template <class Stream>
class session final : public connection, public session_base {
  static constexpr bool is_tls = std::is_same_v<Stream, tls_stream>;
  static constexpr size_t out_max = 64 * 1024; ///< of pipelined responses before the socket has to take some

public:
  template <class... Ts>
  session(std::shared_ptr<io_lane> home, bool refused, Ts&&... stream)
      : lane_(std::move(home)), home_(lane_), limits_(lane_->shared.settings.limits), refused_(refused),
        stream_(std::forward<Ts>(stream)...), parser_(limits_, request_), wake_timer_(lane_->context()) {
    lane_->counts.connections.fetch_add(1, std::memory_order_relaxed);
    lane_->shared.node.counters->http_connections.fetch_add(1, std::memory_order_relaxed);
  }
  ~session() override {
    running_.reset();
    lane_->counts.connections.fetch_sub(1, std::memory_order_relaxed);
    lane_->shared.node.counters->http_connections.fetch_sub(1, std::memory_order_relaxed);
    if (handling_)
      lane_->counts.in_flight.fetch_sub(1, std::memory_order_relaxed);
  }

  // -- session_base

  void start() override {
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

  void tick(int64_t now) override {
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
    refuse_bytes(what);
    flush();
  }

  void shut(bool when_idle) override {
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

  // -- connection

  const lane_ptr& home() const noexcept override { return home_; }
  const std::string& peer_address() const noexcept override { return peer_; }
  bool encrypted() const noexcept override { return is_tls; }

  bool peer_gone() override {
    if (gone_ || closed_)
      return true;
    char byte;
    const ssize_t got = ::recv(socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
  }

  void settle_by_look() override {
    if (closed_ || gone_ || deliveries_.empty())
      return;
    char byte;
    if (::recv(socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
      settle_written(INT64_MAX);
  }

  void on_gone(std::function<void()> fn) override {
    if (gone_ || closed_)
      fn();
    else
      on_gone_ = std::move(fn);
  }

  void wake_after(int64_t ms, std::function<void()> fn) override {
    wake_timer_.expires_after(std::chrono::milliseconds(ms));
    wake_timer_.async_wait([me = self(), fn = std::move(fn)](const boost::system::error_code& ec) {
      if (!ec && me->handling_)
        fn();
    });
  }

  void begin_stream(const char* content_type, std::string_view headers) override {
    chunked_ = request_.http_1_1;
    append_stream_head(out_, *exchange_, content_type, headers, lane_->date_line(), chunked_);
    if (request_.method != verb::head)
      flush();
  }

  void send(std::string_view part) override {
    if (closed_ || part.empty())
      return;
    if (chunked_) {
      char size[24];
      const auto [end, failed] = std::to_chars(size, size + sizeof size - 2, part.size(), 16);
      static_cast<void>(failed); // 16 hex digits hold every size
      out_.append(size, static_cast<size_t>(end - size));
      out_ += "\r\n";
    }
    out_ += part;
    if (chunked_)
      out_ += "\r\n";
    flush();
  }

  bool unsent() const noexcept override { return !closed_ && (write_busy_ || !out_.empty()); }
  void on_written(std::function<void()> fn) override { on_written_ = std::move(fn); }

private:
  std::shared_ptr<session> self() { return std::static_pointer_cast<session>(this->shared_from_this()); }
  tcp_socket& socket() noexcept {
    if constexpr (is_tls)
      return stream_.next_layer();
    else
      return stream_;
  }

  // -- reading

  void begin() {
    if (refused_) {
      exchange_.emplace(*this, request_);
      exchange_->request_id = "refused";
      request_.keep_alive = false;
      write_response(
          error_response(refuse(errc::overloaded, "Too many connections."), exchange_->request_id));
      exchange_.reset();
      closing_ = true;
      flush();
      return;
    }
    read();
  }

  void read() {
    if (reading_ || closed_ || gone_)
      return;
    if (in_begin_ > 0) {
      std::copy(in_.begin() + static_cast<ptrdiff_t>(in_begin_),
                in_.begin() + static_cast<ptrdiff_t>(in_end_), in_.begin());
      in_end_ -= in_begin_;
      in_begin_ = 0;
    }
    if (in_end_ == in_.size()) {
      if (in_.size() >= limits_.pipelined_bytes)
        return; // enough read ahead; goes on when the request in hand is answered
      in_.resize(std::max<size_t>(in_.size() * 2, 4096));
    }
    reading_ = true;
    stream_.async_read_some(
        boost::asio::buffer(in_.data() + in_end_, in_.size() - in_end_),
        [me = self()](const boost::system::error_code& ec, size_t n) { me->on_read(ec, n); });
  }

  void on_read(const boost::system::error_code& ec, size_t n) {
    reading_ = false;
    if (closed_)
      return;
    if (ec) {
      on_peer_end(ec == boost::asio::error::eof || ec == boost::asio::ssl::error::stream_truncated);
      return;
    }
    in_end_ += n;
    settle_written(INT64_MAX); // a sign of life after a response
    if (closing_ && !handling_) {
      in_begin_ = in_end_ = 0; // lingering: whatever comes is dropped
      read();
      return;
    }
    process();
  }

  void on_peer_end(bool orderly) {
    gone_ = true;
    if (orderly)
      settle_written(INT64_MAX);
    else
      fail_deliveries();
    if (handling_) {
      if (auto fn = std::exchange(on_gone_, nullptr))
        fn();
      return;
    }
    if (orderly && write_busy_ && in_begin_ < in_end_ && !closing_)
      return; // pipelined requests are still to be answered
    if (orderly && parser_.started() && !closing_) {
      problem what;
      what.message = "The request ended early.";
      what.reason = "truncated";
      refuse_bytes(what);
      flush();
      return;
    }
    if (!orderly || (!write_busy_ && out_.empty()))
      close();
    else
      closing_ = true;
  }

  /// Parses and answers what is there, as far as it goes without waiting.
  void process() {
    while (!handling_ && !closing_ && !closed_) {
      if (write_busy_ && out_.size() > out_max)
        return; // goes on when the socket has taken some
      if (!parser_.started())
        while (in_begin_ < in_end_ && (in_[in_begin_] == '\r' || in_[in_begin_] == '\n'))
          ++in_begin_; // empty lines before a request are allowed (RFC 7230, 3.5)
      if (in_begin_ == in_end_)
        break;
      const bool fresh = !parser_.started();
      const bool was_in_body = parser_.in_body();
      size_t used = 0;
      const auto state = parser_.feed(in_.data() + in_begin_, in_end_ - in_begin_, used);
      in_begin_ += used;
      if (state == request_parser::state::failed) {
        refuse_bytes(parser_.failure());
        break;
      }
      if (state == request_parser::state::need_more) {
        if (parser_.in_body() && !was_in_body)
          deadline_ = steady_ms() + limits_.body_ms;
        else if (fresh)
          deadline_ = steady_ms() + limits_.header_ms;
        if (parser_.wants_continue())
          out_ += "HTTP/1.1 100 Continue\r\n\r\n";
        if (used == 0 || in_begin_ == in_end_)
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

  // -- answering

  void handle() {
    handling_ = true;
    deadline_ = 0;
    lane_->counts.in_flight.fetch_add(1, std::memory_order_relaxed);
    if (log::enabled(log::level::debug))
      began_us_ = lane_->shared.node.clock->steady_us();
    exchange_.emplace(*this, request_);
    running_ = lane_->shared.serve(*exchange_);
    if (running_.start(&session::ended, this))
      finish();
  }

  /// Called by the outermost task from within its own frame, which must be left before it is destroyed.
  static void ended(void* context) {
    auto* me = static_cast<session*>(context);
    me->lane_->post([held = me->self()] {
      held->finish();
      if (!held->closed_)
        held->process();
    });
  }

  void finish() {
    response r;
    try {
      r = running_.take();
    } catch (const std::exception&) { // serve itself ran out of memory
      r = error_response(refuse(errc::internal, "The request failed inside the node."),
                         exchange_->request_id);
    }
    running_.reset();
    wake_timer_.cancel();
    on_gone_ = nullptr;
    on_written_ = nullptr;
    handling_ = false;
    lane_->counts.in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (closed_) {
      if (r.on_delivery)
        r.on_delivery(false);
      leave();
      return;
    }
    const bool keep = request_.keep_alive && !closing_ && !r.close && !(r.streamed && !chunked_);
    if (!keep)
      closing_ = true;
    if (log::enabled(log::level::debug))
      log::debug("http", "request method={} path={} status={} bytes={} us={} peer={} id={}",
                 to_string(request_.method), request_.path, r.status, r.bytes().size(),
                 lane_->shared.node.clock->steady_us() - began_us_, peer_, exchange_->request_id);
    write_response(std::move(r));
    exchange_.reset();
    parser_.next();
    deadline_ = steady_ms() + limits_.idle_ms;
  }

  void write_response(response r) {
    if (r.streamed) {
      if (chunked_ && !r.close)
        out_ += "0\r\n\r\n"; // a stream that was cut off stays visibly so
    } else {
      append_head(out_, *exchange_, r, lane_->date_line(), request_.keep_alive && !closing_);
      if (request_.method != verb::head && r.status != 204)
        out_ += r.bytes();
    }
    if (r.on_delivery) {
      if (gone_)
        r.on_delivery(false);
      else
        deliveries_.push_back({written_total_ + pending_bytes(), 0, std::move(r.on_delivery)});
    }
  }

  /// Answers bytes that are no request, and comes to an end.
  void refuse_bytes(const problem& what) {
    closing_ = true;
    deadline_ = 0;
    exchange_.emplace(*this, request_);
    request_.method = verb::other;
    response r = lane_->shared.refuse_malformed(*exchange_, what);
    log::debug("http", "request-refused reason={} peer={} id={}", what.reason, peer_, exchange_->request_id);
    write_response(std::move(r));
    exchange_.reset();
    in_begin_ = in_end_ = 0;
  }

  // -- writing

  size_t pending_bytes() const noexcept { return writing_.size() - write_at_ + out_.size(); }

  void flush() {
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
        written_total_ += n;
      }
      if (write_at_ < writing_.size()) {
        write_more();
        return;
      }
      writing_.clear();
      write_at_ = 0;
    }
    all_written();
  }

  void write_more() {
    write_busy_ = true;
    write_deadline_ = steady_ms() + limits_.write_ms;
    stream_.async_write_some(
        boost::asio::buffer(writing_.data() + write_at_, writing_.size() - write_at_),
        [me = self()](const boost::system::error_code& ec, size_t n) { me->on_write(ec, n); });
  }

  void on_write(const boost::system::error_code& ec, size_t n) {
    write_busy_ = false;
    if (closed_)
      return;
    if (ec) {
      abort_connection();
      return;
    }
    write_at_ += n;
    written_total_ += n;
    if (write_at_ < writing_.size()) {
      write_more();
      return;
    }
    writing_.clear();
    write_at_ = 0;
    flush();
    if (!closed_ && !handling_ && !closing_)
      process(); // may have waited for the socket
  }

  /// Nothing waits for the socket any more.
  void all_written() {
    const int64_t now = steady_ms();
    for (delivery& d : deliveries_)
      if (d.written_ms == 0)
        d.written_ms = now;
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

  /// Everything is said: the client is given time to read it, since closing over unread bytes may take it
  /// away from it.
  void linger() {
    if (gone_) {
      close();
      return;
    }
    if (std::exchange(lingering_, true))
      return;
    deadline_ =
        steady_ms() + std::max(limits_.linger_ms, deliveries_.empty() ? 0 : limits_.delivered_ms + 100);
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
      in_begin_ = in_end_ = 0;
      read();
    }
  }

  // -- deliveries

  struct delivery {
    uint64_t end; ///< of its bytes, in written_total_
    int64_t written_ms;
    std::function<void(bool)> tell;
  };

  /// Those written at or before `until_ms` have reached their client.
  void settle_written(int64_t until_ms) {
    while (!deliveries_.empty() && deliveries_.front().written_ms != 0 &&
           deliveries_.front().written_ms <= until_ms) {
      auto tell = std::move(deliveries_.front().tell);
      deliveries_.pop_front();
      tell(true);
    }
    if (gone_)
      fail_deliveries();
  }
  void fail_deliveries() {
    while (!deliveries_.empty()) {
      auto tell = std::move(deliveries_.front().tell);
      deliveries_.pop_front();
      tell(false);
    }
  }

  // -- ending

  void abort_connection() {
    fail_deliveries();
    close();
  }

  void close() {
    if (std::exchange(closed_, true))
      return;
    const auto held = self();
    boost::system::error_code ec;
    socket().close(ec);
    fail_deliveries();
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
  void leave() {
    const auto held = self();
    lane_->remove(this);
  }

  std::shared_ptr<io_lane> lane_;
  lane_ptr home_;
  const server_limits& limits_;
  bool refused_;
  Stream stream_;
  std::string peer_;

  std::vector<char> in_;
  size_t in_begin_ = 0, in_end_ = 0;
  request request_;
  request_parser parser_;

  std::string out_;     ///< to be written next
  std::string writing_; ///< being written, from write_at_ on
  size_t write_at_ = 0;
  uint64_t written_total_ = 0;
  std::deque<delivery> deliveries_;

  std::optional<exchange> exchange_;
  task<response> running_;
  std::function<void()> on_gone_, on_written_;
  boost::asio::steady_timer wake_timer_;
  int64_t began_us_ = 0;

  int64_t deadline_ = 0;       ///< of the phase; 0: none
  int64_t write_deadline_ = 0; ///< with write_busy_
  bool reading_ = false;
  bool write_busy_ = false;
  bool handling_ = false; ///< a request is being answered
  bool chunked_ = false;  ///< how the present stream is framed
  bool closing_ = false;  ///< nothing more is read; closed once all is written
  bool lingering_ = false;
  bool gone_ = false; ///< end of stream or error seen
  bool closed_ = false;
};

} // namespace neuroshard::http
