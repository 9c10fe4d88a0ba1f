#pragma once

#include "gateway/http/exchange.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::http {

/// Cross-origin requests of browsers: off unless origins are configured.
class cors_policy {
public:
  explicit cors_policy(std::vector<std::string> origins) : origins_(std::move(origins)) {}
  /// Adds the headers for an allowed origin to what every response of this request carries.
  void apply(exchange& x) const;
  /// Whether this OPTIONS request is a preflight that is to be answered; fills in the response. `methods` as
  /// for Allow.
  bool preflight(const exchange& x, std::string_view methods, response& out) const;

private:
  bool allowed(std::string_view origin) const noexcept;
  std::vector<std::string> origins_;
};

} // namespace neuroshard::http
