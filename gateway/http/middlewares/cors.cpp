#include "gateway/http/middlewares/cors.hpp"

#include <algorithm>

namespace neuroshard::http {

bool cors_policy::allowed(std::string_view origin) const noexcept {
  return !origin.empty() && std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

void cors_policy::apply(exchange& x) const {
  if (origins_.empty())
    return;
  add_header_line(x.headers, "Vary", "Origin");
  const std::string_view origin = x.in.header("Origin");
  if (!allowed(origin))
    return;
  add_header_line(x.headers, "Access-Control-Allow-Origin", origin);
  add_header_line(x.headers, "Access-Control-Expose-Headers",
                  "X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After");
}

bool cors_policy::preflight(const exchange& x, std::string_view methods, response& out) const {
  if (!allowed(x.in.header("Origin")) || x.in.header("Access-Control-Request-Method").empty() ||
      methods.empty())
    return false;
  out.status = 204;
  add_header_line(out.headers, "Access-Control-Allow-Methods", methods);
  add_header_line(out.headers, "Access-Control-Allow-Headers",
                  "Authorization, Content-Type, Idempotency-Key, X-Request-Id");
  add_header_line(out.headers, "Access-Control-Max-Age", "600");
  return true;
}

} // namespace neuroshard::http
