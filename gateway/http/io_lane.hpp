#pragma once

#include <utility> // before Boost 1.74's awaitable.hpp, which lacks it

#include "gateway/http/exchange.hpp"

#include <boost/asio/io_context.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

/// Private to the server: the I/O thread behind a lane, and what it knows of its sessions.
namespace neuroshard::http {

class gateway;

/// What a lane needs of a session, whatever its stream is. Lane thread only.
class session_base {
public:
  virtual ~session_base() = default;
  virtual void start() = 0;
  /// Looks at the deadlines.
  virtual void tick(int64_t now_ms) = 0;
  /// Ends the connection now, or, with `when_idle`, as soon as nothing is being answered.
  virtual void shut(bool when_idle) = 0;
};

/// Counts that all lanes share.
struct server_counts {
  std::atomic<size_t> connections{0};
  std::atomic<size_t> in_flight{0};
};

class io_lane final : public lane, public std::enable_shared_from_this<io_lane> {
public:
  io_lane(size_t index, gateway& g, server_counts& counts);
  ~io_lane() override;

  void post(std::function<void()> fn) override;
  void after(int64_t ms, std::function<void()> fn) override;
  size_t index() const noexcept override { return index_; }

  boost::asio::io_context& context() noexcept { return *context_; }
  void run(int64_t tick_ms);
  /// Ends the thread; objects of the context may still be destroyed by hand.
  void join();
  /// Ends the thread and destroys everything of this lane; what is posted later is dropped.
  void stop();

  // -- lane thread
  void add(const std::shared_ptr<session_base>& s);
  void remove(session_base* s);
  void shut_all(bool when_idle);
  /// "Date: ...\r\n" of this second.
  const std::string& date_line();

  gateway& shared;
  server_counts& counts;

private:
  void tick();
  size_t index_;
  std::mutex guard_; ///< of context_ against post from other threads
  std::unique_ptr<boost::asio::io_context> context_;
  std::thread thread_;
  int64_t tick_ms_ = 500;
  bool shutting_ = false;
  std::unordered_map<session_base*, std::shared_ptr<session_base>> sessions_;
  int64_t date_of_ = -1;
  std::string date_line_;
};

/// Monotonic milliseconds.
int64_t steady_ms() noexcept;

} // namespace neuroshard::http
