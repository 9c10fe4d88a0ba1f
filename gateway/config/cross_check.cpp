#include "gateway/config/schema.hpp"

#include "actors/common/money.hpp"

#include <fmt/core.h>

namespace neuroshard {

namespace {

/// Both were checked to be amounts.
bool amount_above(const std::string& a, const std::string& b) {
  neuro_amount x, y;
  parse_amount(a, amount_text::string, true, x);
  parse_amount(b, amount_text::string, true, y);
  return x > y;
}

std::string host_of(const std::string& host_port) {
  std::string host = host_port.substr(0, host_port.rfind(':'));
  if (host.size() > 2 && host.front() == '[')
    host = host.substr(1, host.size() - 2);
  return host;
}

std::optional<std::string> check_custom_model(const model_config& m) {
  const int64_t head_dim = m.hidden_dim % m.num_heads == 0 ? m.hidden_dim / m.num_heads : 0;
  if (head_dim != 32 && head_dim != 64 && head_dim != 128)
    return fmt::format("model.num_heads = {}: model.hidden_dim ({}) / model.num_heads must be 32, 64 or 128",
                       m.num_heads, m.hidden_dim);
  if (m.num_heads % m.num_kv_heads != 0)
    return fmt::format("model.num_kv_heads = {}: must divide model.num_heads ({})", m.num_kv_heads,
                       m.num_heads);
  if (m.ffn_dim % 8 != 0)
    return fmt::format("model.ffn_dim = {}: must be a multiple of 8", m.ffn_dim);
  if (m.vocab_capacity % 64 != 0)
    return fmt::format("model.vocab_capacity = {}: must be a multiple of 64", m.vocab_capacity);
  if ((m.num_experts == 0) != (m.top_k == 0) || m.top_k > m.num_experts)
    return fmt::format("model.top_k = {}: must be 0 without experts, else from 1 to model.num_experts ({})",
                       m.top_k, m.num_experts);
  return std::nullopt;
}

std::optional<std::string> check_insecure(const node_config& c) {
  if (!c.grpc.insecure)
    return std::nullopt;
  const auto refuse = [](std::string_view key, const std::string& value) {
    return fmt::format("grpc.insecure = true: every gRPC address must be loopback, but {} = {}", key, value);
  };
  if (!is_loopback_host(c.grpc_host))
    return refuse("grpc_host", c.grpc_host);
  if (!c.announce_ip.empty() && !is_loopback_host(c.announce_ip))
    return refuse("announce_ip", c.announce_ip);
  if (!c.tracker.empty() && !is_loopback_host(host_of(c.tracker)))
    return refuse("tracker", c.tracker);
  for (const std::string& peer : c.seed_peers)
    if (!is_loopback_host(host_of(peer)))
      return refuse("seed_peers", peer);
  return std::nullopt;
}

std::optional<std::string> check_economics(const economics_config& e, int64_t timeout_s) {
  if (amount_above(e.min_stake, e.max_stake))
    return fmt::format("economics.min_stake = {}: must not be above economics.max_stake ({})", e.min_stake,
                       e.max_stake);
  if (e.min_lock_days > e.max_lock_days)
    return fmt::format("economics.min_lock_days = {}: must not be above economics.max_lock_days ({})",
                       e.min_lock_days, e.max_lock_days);
  if (e.default_lock_days < e.min_lock_days || e.default_lock_days > e.max_lock_days)
    return fmt::format(
        "economics.default_lock_days = {}: must be from economics.min_lock_days ({}) to max_lock_days ({})",
        e.default_lock_days, e.min_lock_days, e.max_lock_days);
  if (const int64_t sum = e.driver_bp + e.worker_bp + e.validator_bp; sum != 10000)
    return fmt::format("economics.driver_bp + worker_bp + validator_bp = {}: must be 10000", sum);
  if (e.reservation_s < timeout_s + 60)
    return fmt::format("economics.reservation_s = {}: must be at least inference.timeout_s + 60 ({})",
                       e.reservation_s, timeout_s + 60);
  return std::nullopt;
}

} // namespace

std::optional<std::string> cross_check(const node_config& c) {
  if (c.training.compression == "topk_i8" && c.training.aggregation != "mean")
    return fmt::format("training.compression = topk_i8: needs training.aggregation = mean (it is {})",
                       c.training.aggregation);
  if (c.api.tls_cert.empty() != c.api.tls_key.empty())
    return fmt::format("api.tls.{} is not given: api.tls.cert and api.tls.key must be given both or neither",
                       c.api.tls_cert.empty() ? "cert" : "key");
  if (c.peers.min > c.peers.max)
    return fmt::format("peers.min = {}: must not be above peers.max ({})", c.peers.min, c.peers.max);
  if (auto wrong = check_insecure(c))
    return wrong;
  if (c.model.preset == "custom")
    if (auto wrong = check_custom_model(c.model))
      return wrong;
  return check_economics(c.economics, c.inference.timeout_s);
}

} // namespace neuroshard
