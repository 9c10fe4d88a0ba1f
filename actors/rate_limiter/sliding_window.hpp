#pragma once

#include "actors/rate_limiter/rate_limiter_actor.hpp"

#include <cstdint>
#include <deque>
#include <list>
#include <string>
#include <unordered_map>

namespace neuroshard {

/// Sliding windows of 60 s of request times, one per identity and class. Plain logic: time is an argument and
/// never runs backwards. Memory is bounded: at most `limit` times per window and `identities_max` windows;
/// past that the window that was quiet longest is forgotten (its owner starts with a full budget again).
class sliding_window {
public:
  static constexpr int64_t window_us = 60'000'000;

  explicit sliding_window(rate_limits limits, size_t identities_max = 65'536)
      : limits_(limits), identities_max_(identities_max) {}

  void set_limits(rate_limits limits) { limits_ = limits; }
  /// Counts a request at `now_us`, or refuses it without counting. `peek` only looks.
  admit_verdict admit(const admit_request& request, int64_t now_us);
  /// Forgets windows without a request inside the last 60 s.
  void expire(int64_t now_us);
  size_t windows() const noexcept { return windows_.size(); }

private:
  struct window {
    std::string key;
    std::deque<int64_t> times; ///< ascending, all inside the window once trimmed
  };
  using order = std::list<window>; ///< least recently counted first

  uint32_t limit_of(limit_class of) const noexcept;

  rate_limits limits_;
  size_t identities_max_;
  order order_;
  std::unordered_map<std::string, order::iterator> windows_;
};

} // namespace neuroshard
