#include "gateway/http/middlewares/client_address.hpp"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

namespace neuroshard::http {

std::optional<ip_bytes> parse_ip(std::string_view text) noexcept {
  char terminated[INET6_ADDRSTRLEN] = {};
  if (text.size() >= sizeof terminated)
    return std::nullopt;
  std::memcpy(terminated, text.data(), text.size());
  ip_bytes out{};
  if (inet_pton(AF_INET6, terminated, out.data()) == 1)
    return out;
  out = {};
  out[10] = out[11] = 0xFF;
  if (inet_pton(AF_INET, terminated, out.data() + 12) == 1)
    return out;
  return std::nullopt;
}

namespace {

bool is_ipv4(const ip_bytes& ip) noexcept {
  static constexpr uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  return std::memcmp(ip.data(), mapped, sizeof mapped) == 0;
}

/// "1.2.3.4:567", "[::1]:567" and "[::1]" lose port and brackets.
std::string_view without_port(std::string_view text) noexcept {
  if (!text.empty() && text[0] == '[') {
    const size_t end = text.find(']');
    return end == std::string_view::npos ? text : text.substr(1, end - 1);
  }
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos && text.find(':', colon + 1) == std::string_view::npos)
    return text.substr(0, colon);
  return text;
}

} // namespace

std::string budget_address(std::string_view address) {
  const auto ip = parse_ip(address);
  if (!ip || is_ipv4(*ip))
    return std::string(address);
  ip_bytes network = *ip;
  std::memset(network.data() + 8, 0, 8);
  char text[INET6_ADDRSTRLEN];
  inet_ntop(AF_INET6, network.data(), text, sizeof text);
  return std::string(text) + "/64";
}

trusted_proxies::trusted_proxies(const std::vector<std::string>& addresses_or_cidr) {
  for (const std::string& entry : addresses_or_cidr) {
    const size_t slash = entry.find('/');
    const auto base = parse_ip(std::string_view(entry).substr(0, slash));
    if (!base)
      continue; // the configuration has refused it before
    range r{*base, 128};
    if (slash != std::string::npos) {
      unsigned bits = 0;
      std::from_chars(entry.data() + slash + 1, entry.data() + entry.size(), bits);
      r.bits = is_ipv4(*base) ? 96 + std::min(bits, 32u) : std::min(bits, 128u);
    }
    ranges_.push_back(r);
  }
}

bool trusted_proxies::contains(std::string_view address) const noexcept {
  if (ranges_.empty())
    return false;
  const auto ip = parse_ip(address);
  if (!ip)
    return false;
  for (const range& r : ranges_) {
    const unsigned bytes = r.bits / 8;
    const unsigned rest = r.bits % 8;
    if (std::memcmp(ip->data(), r.base.data(), bytes) != 0)
      continue;
    if (rest == 0 || ((*ip)[bytes] >> (8 - rest)) == (r.base[bytes] >> (8 - rest)))
      return true;
  }
  return false;
}

void trusted_proxies::find_client(exchange& x) const {
  x.who.address = x.link.peer_address();
  x.who.secure = x.link.encrypted();
  if (ranges_.empty() || !contains(x.who.address))
    return;
  x.who.secure = x.who.secure || equal_ignoring_case(trimmed(x.in.header("X-Forwarded-Proto")), "https");
  std::string_view hops = {};
  const std::string joined = x.in.joined_header("X-Forwarded-For");
  hops = joined;
  while (!hops.empty()) {
    const size_t comma = hops.rfind(',');
    const std::string_view hop =
        without_port(trimmed(comma == std::string_view::npos ? hops : hops.substr(comma + 1)));
    hops = comma == std::string_view::npos ? std::string_view() : hops.substr(0, comma);
    if (!parse_ip(hop))
      return; // nothing beyond a malformed entry can be believed
    x.who.address = std::string(hop);
    if (!contains(hop))
      return;
  }
}

} // namespace neuroshard::http
