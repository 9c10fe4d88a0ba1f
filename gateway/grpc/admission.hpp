#pragma once

#include "actors/common/clock.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard::rpc {

/// Methods with a limit of their own.
enum class call_class : uint8_t { other, ping, publish, exchange, forward };
inline constexpr size_t call_classes = 5;

/// How much one peer, and all together, may ask (spec/grpc-api.md section 7). Thread safe.
class admission {
public:
  explicit admission(time_source_ptr time) : time_(std::move(time)) {}

  /// Lets a call of `caller` (a node id, or a certificate's hash in hex) in, or says after how many
  /// milliseconds to come back. What is let in must leave().
  std::optional<uint32_t> enter(std::string_view caller, call_class what);
  void leave(std::string_view caller);

  size_t running() const;
  /// No limit in calls a second any more: for a benchmark, which measures the calls. Before the first.
  void lift_rates() noexcept { rates_lifted_ = true; }

private:
  /// Tokens of a bucket that fills with time.
  struct bucket {
    double tokens = 0;
    int64_t filled_us = 0;
  };
  struct peer {
    uint32_t running = 0;
    int64_t seen_us = 0;
    std::array<std::optional<bucket>, call_classes> buckets;
  };
  void forget_idle(int64_t now_us);

  time_source_ptr time_;
  mutable std::mutex lock_;
  std::map<std::string, peer, std::less<>> peers_;
  uint32_t running_ = 0;
  bool rates_lifted_ = false;
};

} // namespace neuroshard::rpc
