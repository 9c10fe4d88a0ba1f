#include "gateway/http/middlewares/rate_limit.hpp"

#include "actors/common/error.hpp"
#include "gateway/http/middlewares/client_address.hpp"

#include <algorithm>

namespace neuroshard::http {

void shared_rates::set(const rate_limits& to) noexcept {
  const auto put = [this](limit_class of, uint32_t n) {
    rates_[static_cast<size_t>(of)].store(n, std::memory_order_relaxed);
  };
  put(limit_class::status, to.status);
  put(limit_class::inference, to.inference);
  put(limit_class::wallet, to.wallet);
  put(limit_class::health, to.health);
  put(limit_class::auth_failures, to.auth_failures);
}

std::string budget_identity(const exchange& x, limit_class of) {
  const bool by_address = of == limit_class::health || of == limit_class::auth_failures;
  if (x.who.token && !by_address)
    return "token:" + kernels::to_hex(x.who.token->digest);
  return "ip:" + budget_address(x.who.address);
}

void add_rate_headers(exchange& x, const admit_verdict& v) {
  if (v.limit == 0)
    return;
  add_header_line(x.headers, "X-RateLimit-Limit", uint64_t{v.limit});
  add_header_line(x.headers, "X-RateLimit-Remaining", uint64_t{v.remaining});
  add_header_line(x.headers, "X-RateLimit-Reset", uint64_t{v.reset_s});
}

caf::error over_limit(const admit_verdict& v) {
  problem what;
  what.message = "Too many requests.";
  what.details = {{"retry_after", static_cast<int64_t>(std::max(v.retry_after_s, 1u))}};
  return refuse(errc::rate_limited, std::move(what));
}

} // namespace neuroshard::http
