#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

namespace neuroshard::http {

/// Responses of one connection that have been made and are not yet known to have reached their client
/// (http-api.md section 5.3), oldest first. Lane thread only.
class pending_deliveries {
public:
  using teller = std::function<void(bool delivered)>;

  bool empty() const noexcept { return waiting_.empty(); }
  void add(teller tell) { waiting_.push_back({0, std::move(tell)}); }
  /// The socket has taken everything up to now.
  void written(int64_t now_ms) {
    for (entry& e : waiting_)
      if (e.written_ms == 0)
        e.written_ms = now_ms;
  }
  /// Those written at or before `until_ms` have reached their client.
  void settle(int64_t until_ms) {
    while (!waiting_.empty() && waiting_.front().written_ms != 0 && waiting_.front().written_ms <= until_ms)
      tell_first(true);
  }
  /// What waits now has reached nobody, as far as is known.
  void fail() {
    while (!waiting_.empty())
      tell_first(false);
  }

private:
  struct entry {
    int64_t written_ms; ///< 0: not yet
    teller tell;
  };
  void tell_first(bool delivered) {
    auto tell = std::move(waiting_.front().tell);
    waiting_.pop_front();
    tell(delivered);
  }
  std::deque<entry> waiting_;
};

} // namespace neuroshard::http
