#pragma once

#include "gateway/http/exchange.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::http {

/// An IPv4 or IPv6 address as 16 bytes (IPv4 mapped), without port.
using ip_bytes = std::array<uint8_t, 16>;
std::optional<ip_bytes> parse_ip(std::string_view text) noexcept;
/// What a client address counts as for budgets: the IPv4 address, or the /64 of an IPv6 address.
std::string budget_address(std::string_view address);

/// Proxies whose X-Forwarded-* headers are believed.
class trusted_proxies {
public:
  explicit trusted_proxies(const std::vector<std::string>& addresses_or_cidr);
  bool contains(std::string_view address) const noexcept;
  /// Fills in the caller's address and whether its way here was encrypted. The address is the last one of
  /// X-Forwarded-For that is no trusted proxy itself.
  void find_client(exchange& x) const;

private:
  struct range {
    ip_bytes base{};
    unsigned bits = 128;
  };
  std::vector<range> ranges_;
};

} // namespace neuroshard::http
