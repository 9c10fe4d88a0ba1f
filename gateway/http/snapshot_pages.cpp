#include "gateway/http/snapshot_pages.hpp"

#include "actors/ledger/utc_date.hpp"
#include "gateway/http/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace neuroshard::http {

namespace {

/// /status and /network show 0.0 for a loss that is not known.
double known_loss(const training_progress& t) {
  const double loss = t.loss_ema.value_or(t.loss.value_or(0));
  return std::isfinite(loss) ? loss : 0;
}

double finite(double v) {
  return std::isfinite(v) ? v : 0;
}

constexpr const char* peer_states[] = {"new", "online", "stale", "dead", "banned"};

} // namespace

const char* role_name(node_role r) noexcept {
  switch (r) {
  case node_role::driver:
    return "driver";
  case node_role::validator:
    return "validator";
  case node_role::worker:
    break;
  }
  return "worker";
}

const char* main_role(const std::vector<node_role>& roles) noexcept {
  for (const node_role r : {node_role::driver, node_role::validator, node_role::worker})
    if (std::find(roles.begin(), roles.end(), r) != roles.end())
      return role_name(r);
  return "worker";
}

size_t online_peers(const node_snapshot& s) noexcept {
  return static_cast<size_t>(std::count_if(s.peers->begin(), s.peers->end(),
                                           [](const peer_info& p) { return p.state == peer_state::online; }));
}

std::string short_count(uint64_t n) {
  const double d = static_cast<double>(n);
  if (d >= 1e9)
    return fmt::format("{:.1f}B", d / 1e9);
  if (d >= 1e6)
    return fmt::format("{:.1f}M", d / 1e6);
  if (d >= 1e3)
    return fmt::format("{:.1f}K", d / 1e3);
  return fmt::format("{}", n);
}

std::string render_status(const node_snapshot& s) {
  const training_progress& t = *s.training;
  json_writer out;
  out.begin();
  out.put("node_id", s.identity.node_id).put("version", s.identity.version).put("uptime_seconds", s.uptime_s);
  out.put("status", to_string(s.state)).put("role", main_role(s.roles));
  out.key("roles").begin_list();
  for (const node_role r : s.roles)
    out.value(role_name(r));
  out.end_list();
  std::vector<uint32_t> layers;
  bool embedding = false, head = false;
  for (const held_layer& l : s.layers) {
    if (l.type == "transformer")
      layers.push_back(l.index);
    embedding = embedding || l.type == "embedding";
    head = head || l.type == "lm_head";
  }
  std::sort(layers.begin(), layers.end());
  out.key("layers").begin_list();
  for (const uint32_t l : layers)
    out.value(l);
  out.end_list();
  out.put("peer_count", uint64_t{online_peers(s)}).put("has_embedding", embedding).put("has_lm_head", head);
  out.key("training").begin();
  out.put("enabled", t.enabled)
      .put("epoch", t.outer_step)
      .put("step", t.inner_step)
      .put("loss", known_loss(t))
      .end();
  out.key("resources").begin();
  out.put("gpu_memory_used", s.gpu_memory_used).put("gpu_memory_total", s.gpu_memory_total);
  out.put("cpu_percent", std::clamp(finite(s.cpu_percent), 0.0, 100.0));
  out.put("ram_used", s.ram_used).put("ram_total", s.ram_total).end();
  out.key("model").begin();
  out.put("architecture", s.identity.architecture_name)
      .put("version", s.model_version)
      .put("hash", s.serving_hash);
  out.put("trained", t.trained).put("tokens_trained", t.tokens_trained).end();
  out.end();
  return out.take();
}

std::string render_metrics(const node_snapshot& s) {
  json_writer out;
  out.begin().put("timestamp", timestamp_text(s.unix_us));
  out.key("inference").begin();
  out.put("requests_total", s.requests_total).put("requests_per_minute", finite(s.requests_per_minute));
  out.put("avg_latency_ms", finite(s.avg_latency_ms)).put("p99_latency_ms", finite(s.p99_latency_ms));
  out.put("tokens_generated", s.tokens_generated).end();
  out.key("training").begin();
  out.put("steps_total", s.steps_total).put("steps_per_hour", finite(s.steps_per_hour));
  out.put("gradients_submitted", s.gradients_submitted).put("gradients_accepted", s.gradients_accepted).end();
  out.key("network").begin();
  out.put("bytes_sent", s.bytes_sent).put("bytes_received", s.bytes_received);
  out.put("active_connections", s.active_connections).put("rpc_calls", s.rpc_calls);
  out.put("peer_count", uint64_t{online_peers(s)}).end();
  out.key("rewards").begin();
  out.put("earned_today", s.rewards.earned_today).put("earned_total", s.rewards.earned_total);
  out.put("pending", s.rewards.pending).end();
  out.end();
  return out.take();
}

std::string render_checks(const node_snapshot& s) {
  json_writer out;
  out.begin().put("gpu", s.health_gpu).put("network", s.health_network).put("storage", s.health_storage);
  out.put("peers", s.health_peers).put("model", s.health_model).end();
  return out.take();
}

std::string render_health(const node_snapshot& s) {
  json_writer out;
  out.begin().put("healthy", s.healthy()).key("checks").raw(render_checks(s)).end();
  return out.take();
}

std::string render_network(const node_snapshot& s) {
  uint64_t total = 1, drivers = 0, workers = 0, validators = 0;
  const auto count_roles = [&](const std::vector<node_role>& roles) {
    for (const node_role r : roles)
      ++(r == node_role::driver ? drivers : r == node_role::worker ? workers : validators);
  };
  count_roles(s.roles);
  uint64_t memory_mb = s.memory_offered_mb, used_mb = s.memory_used_mb;
  for (const peer_info& p : *s.peers) {
    if (p.state != peer_state::online)
      continue;
    ++total;
    count_roles(p.node.roles);
    memory_mb += p.node.memory_total_mb;
    used_mb += p.node.memory_total_mb - std::min(p.node.memory_free_mb, p.node.memory_total_mb);
  }
  json_writer out;
  out.begin().key("nodes").begin();
  out.put("total", total).put("drivers", drivers).put("workers", workers).put("validators", validators).end();
  out.key("architecture").begin();
  out.put("layers", s.identity.total_layers).put("hidden_dim", s.identity.hidden_dim);
  out.put("parameters", short_count(s.identity.parameters))
      .put("parameter_count", s.identity.parameters)
      .end();
  out.key("capacity").begin();
  out.put("total_memory_gb", static_cast<double>(memory_mb) / 1024);
  out.put("used_memory_gb", static_cast<double>(used_mb) / 1024).end();
  const training_progress& t = *s.training;
  out.key("training").begin();
  out.put("epoch", t.outer_step).put("global_step", t.inner_step).put("loss", known_loss(t)).end();
  out.end();
  return out.take();
}

std::string render_peers(const node_snapshot& s) {
  json_writer out;
  out.begin().key("peers").begin_list();
  for (const peer_info& p : *s.peers) {
    out.begin().put("id", p.node.node_id);
    const bool ipv6 = p.node.host.find(':') != std::string::npos;
    const std::string host = ipv6 ? fmt::format("[{}]", p.node.host) : p.node.host;
    out.put("address", fmt::format("{}:{}", host, p.node.grpc_port));
    out.put("role", main_role(p.node.roles)).key("layers").begin_list();
    for (uint32_t l = p.node.layer_begin; l < std::min(p.node.layer_end, p.node.layer_begin + 4096); ++l)
      out.value(l);
    out.end_list().put("latency_ms", finite(p.latency_ms)).key("connected_since");
    if (p.connected_since_unix_us)
      out.value(timestamp_text(*p.connected_since_unix_us));
    else
      out.null();
    out.put("state", peer_states[static_cast<size_t>(p.state) % std::size(peer_states)]);
    const auto& [refused, reason, ignored_until_round] = p.standing;
    out.put("refused", refused);
    out.put("refused_reason", reason.empty() ? std::nullopt : std::optional(reason));
    out.put("ignored_until_round",
            ignored_until_round == 0 ? std::nullopt : std::optional(ignored_until_round));
    out.end();
  }
  out.end_list().put("total", uint64_t{s.peers->size()}).end();
  return out.take();
}

std::string render_layers(const node_snapshot& s) {
  json_writer out;
  uint64_t mine = 0;
  out.begin().key("layers").begin_list();
  for (const held_layer& l : s.layers) {
    mine += l.type == "transformer";
    out.begin()
        .put("index", l.index)
        .put("type", l.type)
        .put("memory_mb", l.memory_mb)
        .put("status", l.status)
        .end();
  }
  out.end_list().put("total_layers", s.identity.total_layers).put("my_layer_count", mine).end();
  return out.take();
}

} // namespace neuroshard::http
