#pragma once

#include "actors/rate_limiter/rate_limiter_actor.hpp"
#include "gateway/http/exchange.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

namespace neuroshard::http {

/// The limits in force, so that an unlimited class needs no question to the rate limiter. Thread safe.
class shared_rates {
public:
  explicit shared_rates(const rate_limits& from) { set(from); }
  void set(const rate_limits& to) noexcept;
  bool limited(limit_class of) const noexcept {
    return rates_[static_cast<size_t>(of)].load(std::memory_order_relaxed) != 0;
  }

private:
  std::array<std::atomic<uint32_t>, 5> rates_;
};

/// Whose budget a request of this class spends: the digest of a valid token, otherwise the client's address;
/// health and failed authentication always the address.
std::string budget_identity(const exchange& x, limit_class of);
/// Leaves X-RateLimit-Limit, -Remaining and -Reset for the response.
void add_rate_headers(exchange& x, const admit_verdict& v);
/// 429 with the seconds to wait.
caf::error over_limit(const admit_verdict& v);

} // namespace neuroshard::http
