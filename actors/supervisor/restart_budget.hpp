#pragma once

#include <cstdint>
#include <deque>

namespace neuroshard {

/// How often something may be restarted: at most `limit` times in a sliding minute. Plain logic.
class restart_budget {
public:
  explicit restart_budget(size_t limit = 5) : limit_(limit) {}
  /// Takes one restart at `now_us`; false when the budget is spent.
  bool take(int64_t now_us) {
    while (!taken_.empty() && taken_.front() <= now_us - 60'000'000)
      taken_.pop_front();
    if (taken_.size() >= limit_)
      return false;
    taken_.push_back(now_us);
    return true;
  }

private:
  size_t limit_;
  std::deque<int64_t> taken_;
};

} // namespace neuroshard
