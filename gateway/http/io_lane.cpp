#include "gateway/http/io_lane.hpp"

#include "actors/common/log.hpp"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include <chrono>
#include <ctime>
#include <vector>

namespace neuroshard::http {

int64_t steady_ms() noexcept {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

io_lane::io_lane(size_t index, gateway& g, server_counts& c)
    : shared(g), counts(c), index_(index), context_(std::make_unique<boost::asio::io_context>(1)) {}

io_lane::~io_lane() {
  stop();
}

void io_lane::post(std::function<void()> fn) {
  const std::lock_guard hold(guard_);
  if (context_)
    boost::asio::post(*context_, std::move(fn));
}

void io_lane::after(int64_t ms, std::function<void()> fn) {
  const std::lock_guard hold(guard_);
  if (!context_)
    return;
  auto timer = std::make_shared<boost::asio::steady_timer>(*context_);
  timer->expires_after(std::chrono::milliseconds(ms));
  timer->async_wait([timer, fn = std::move(fn)](const boost::system::error_code& ec) {
    if (!ec)
      fn();
  });
}

void io_lane::run(int64_t tick_ms) {
  tick_ms_ = tick_ms;
  tick();
  thread_ = std::thread([this] {
    for (;;) {
      try {
        context_->run();
        return;
      } catch (const std::exception& e) {
        // Handlers do not throw; a lack of memory inside Asio itself must not end the node.
        log::error("http", "lane-exception lane={} what={}", index_, e.what());
      }
    }
  });
}

void io_lane::tick() {
  after(tick_ms_, [this] {
    const int64_t now = steady_ms();
    std::vector<std::shared_ptr<session_base>> all; // a session may remove itself meanwhile
    all.reserve(sessions_.size());
    for (const auto& [key, s] : sessions_)
      all.push_back(s);
    for (const auto& s : all)
      s->tick(now);
    tick();
  });
}

void io_lane::join() {
  {
    const std::lock_guard hold(guard_);
    if (context_)
      context_->stop();
  }
  if (thread_.joinable())
    thread_.join();
}

void io_lane::stop() {
  join();
  sessions_.clear();
  std::unique_ptr<boost::asio::io_context> dying;
  {
    const std::lock_guard hold(guard_);
    dying = std::move(context_);
  }
  // Destroys what was waiting to run; none of it may post to this lane any more with an effect.
  dying.reset();
}

void io_lane::add(const std::shared_ptr<session_base>& s) {
  sessions_.emplace(s.get(), s);
  s->start();
  if (shutting_)
    s->shut(true);
}

void io_lane::remove(session_base* s) {
  sessions_.erase(s);
}

void io_lane::shut_all(bool when_idle) {
  shutting_ = true;
  std::vector<std::shared_ptr<session_base>> all;
  for (const auto& [key, s] : sessions_)
    all.push_back(s);
  for (const auto& s : all)
    s->shut(when_idle);
}

const std::string& io_lane::date_line() {
  const std::time_t now = std::time(nullptr);
  if (now != date_of_) {
    date_of_ = now;
    std::tm parts{};
    gmtime_r(&now, &parts);
    static constexpr const char* days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                             "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    // Not strftime: the names of RFC 7231 do not follow the locale.
    date_line_ =
        fmt::format("Date: {}, {:02} {} {} {:02}:{:02}:{:02} GMT\r\n", days[parts.tm_wday], parts.tm_mday,
                    months[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
  }
  return date_line_;
}

} // namespace neuroshard::http
