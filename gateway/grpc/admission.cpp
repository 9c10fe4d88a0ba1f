#include "gateway/grpc/admission.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::rpc {

namespace {

constexpr uint32_t running_of_peer_max = 64;
constexpr uint32_t running_max = 256;
constexpr size_t peers_max = 4'096;
constexpr int64_t idle_us = 120'000'000;
constexpr uint32_t busy_retry_ms = 100;

/// Calls a second, and how many at once. Zero: no limit of its own.
struct rate {
  double per_s = 0, burst = 0;
};
constexpr rate rates[call_classes] = {{0, 0}, {1, 60}, {10, 100}, {20, 20}, {2'000, 2'000}};

} // namespace

std::optional<uint32_t> admission::enter(std::string_view caller, call_class what) {
  const int64_t now_us = time_->steady_us();
  const std::lock_guard hold{lock_};
  if (running_ >= running_max)
    return busy_retry_ms;
  auto at = peers_.find(caller);
  if (at == peers_.end()) {
    if (peers_.size() >= peers_max)
      forget_idle(now_us);
    if (peers_.size() >= peers_max)
      return busy_retry_ms;
    at = peers_.emplace(caller, peer{}).first;
  }
  auto& from = at->second;
  if (from.running >= running_of_peer_max)
    return busy_retry_ms;
  if (const auto& allowed = rates[static_cast<size_t>(what)]; allowed.per_s > 0 && !rates_lifted_) {
    auto& held = from.buckets[static_cast<size_t>(what)];
    if (!held)
      held = bucket{allowed.burst, now_us};
    held->tokens = std::min(allowed.burst, held->tokens + static_cast<double>(now_us - held->filled_us) /
                                                              1e6 * allowed.per_s);
    held->filled_us = now_us;
    if (held->tokens < 1)
      return static_cast<uint32_t>(std::ceil((1 - held->tokens) / allowed.per_s * 1e3));
    held->tokens -= 1;
  }
  from.seen_us = now_us;
  ++from.running;
  ++running_;
  return std::nullopt;
}

void admission::leave(std::string_view caller) {
  const std::lock_guard hold{lock_};
  const auto at = peers_.find(caller);
  if (at == peers_.end() || at->second.running == 0)
    return;
  --at->second.running;
  --running_;
}

void admission::forget_idle(int64_t now_us) {
  std::erase_if(peers_, [&](const auto& one) {
    return one.second.running == 0 && now_us - one.second.seen_us > idle_us;
  });
}

size_t admission::running() const {
  const std::lock_guard hold{lock_};
  return running_;
}

} // namespace neuroshard::rpc
