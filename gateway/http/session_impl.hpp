#pragma once

#include "gateway/http/gateway.hpp"
#include "gateway/http/pending_deliveries.hpp"
#include "gateway/http/read_ahead.hpp"
#include "gateway/http/request_parser.hpp"
#include "gateway/http/session.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>

#include <optional>
#include <type_traits>

namespace neuroshard::http {

using tcp_socket = boost::asio::ip::tcp::socket;
using tls_stream = boost::asio::ssl::stream<tcp_socket>;

/// One connection: reads requests, hands them to the gateway one at a time, writes responses in order. While
/// a request is being answered it reads on (a bounded amount), to notice that the client goes and to have
/// pipelined requests at hand.
///
/// Lives on one lane. Held by the lane until it is closed and nothing is being answered, and by its own
/// asynchronous operations. Its members are defined by concern in session_life.hpp, session_reading.hpp,
/// session_answering.hpp and session_writing.hpp.
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
  ~session() override;

  // -- session_base
  void start() override;
  void tick(int64_t now) override;
  void shut(bool when_idle) override;

  // -- connection
  const lane_ptr& home() const noexcept override { return home_; }
  const std::string& peer_address() const noexcept override { return peer_; }
  bool encrypted() const noexcept override { return is_tls; }
  bool peer_gone() override;
  void settle_by_look() override;
  void on_gone(std::function<void()> fn) override;
  void wake_after(int64_t ms, std::function<void()> fn) override;
  void begin_stream(const char* content_type, std::string_view headers) override;
  void send(std::string_view part) override;
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

  // -- life
  void begin();
  /// Everything is said: the client is given time to read it, since closing over unread bytes may take it
  /// away from it.
  void linger();
  void abort_connection();
  void close();
  void leave();

  // -- reading
  void read();
  void on_read(const boost::system::error_code& ec, size_t n);
  void on_peer_end(bool orderly);
  /// Parses and answers what is there, as far as it goes without waiting.
  void process();

  // -- answering
  void handle();
  /// Called by the outermost task from within its own frame, which must be left before it is destroyed.
  static void ended(void* context);
  void finish();
  void write_response(response r);
  /// Answers bytes that are no valid request, and comes to an end.
  void refuse_bytes(problem what);
  void note_access(unsigned status);

  // -- writing
  void flush();
  void write_more();
  void on_write(const boost::system::error_code& ec, size_t n);
  /// Nothing waits for the socket any more.
  void all_written();
  bool wrote_buffer();
  void settle_written(int64_t until_ms);
  /// What the socket has for the next read, without reading it.
  enum class seen : uint8_t { nothing, bytes, end };
  seen look();

  std::shared_ptr<io_lane> lane_;
  lane_ptr home_;
  const server_limits& limits_;
  bool refused_;
  Stream stream_;
  std::string peer_;

  read_ahead in_;
  request request_;
  request_parser parser_;

  std::string out_;     ///< to be written next
  std::string writing_; ///< being written, from write_at_ on
  size_t write_at_ = 0;
  pending_deliveries deliveries_;

  std::optional<exchange> exchange_;
  std::optional<problem> malformed_; ///< of the present request
  task<response> running_;
  std::function<void()> on_gone_, on_written_;
  boost::asio::steady_timer wake_timer_;
  int64_t began_us_ = 0;    ///< 0: nobody asks for how long the present request takes
  uint64_t body_bytes_ = 0; ///< of the present response, as far as it was handed to the socket

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
