#include "actors/telemetry/telemetry.hpp"

#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr auto period = std::chrono::seconds(1);
constexpr auto patience = std::chrono::seconds(5);

int severity(const std::string& value) {
  return value == "error" ? 2 : value == "degraded" ? 1 : 0;
}

std::string worst(const std::map<std::string, std::string>& values) {
  std::string result = "ok";
  for (const auto& [source, value] : values)
    if (severity(value) > severity(result))
      result = value;
  return result;
}

const char* text_of(actor_status::health h) {
  switch (h) {
  case actor_status::health::ok:
    return "ok";
  case actor_status::health::degraded:
    return "degraded";
  case actor_status::health::error:
    return "error";
  }
  return "error";
}

} // namespace

const char* to_string(node_state s) noexcept {
  switch (s) {
  case node_state::starting:
    return "starting";
  case node_state::syncing:
    return "syncing";
  case node_state::running:
    return "running";
  case node_state::training:
    return "training";
  case node_state::draining:
    return "draining";
  case node_state::error:
    return "error";
  }
  return "error";
}

void telemetry_state::collect_counters() {
  const auto& c = *from.counters;
  const int64_t now = from.time->steady_us();
  next.requests_total = c.inference_requests.load();
  next.tokens_generated = c.inference_tokens.load();
  next.steps_total = next.training->inner_step;
  next.gradients_submitted = c.gradients_submitted.load();
  next.gradients_accepted = c.gradients_accepted.load();
  next.bytes_sent = c.bytes_sent.load();
  next.bytes_received = c.bytes_received.load();
  next.rpc_calls = c.rpc_calls.load();
  requests_per_minute.observe(now, next.requests_total);
  steps_per_hour.observe(now, c.training_steps.load());
  next.requests_per_minute = static_cast<double>(requests_per_minute.growth());
  next.steps_per_hour = static_cast<double>(steps_per_hour.growth());

  const size_t held = std::min<size_t>(c.latency_count.load(), node_counters::latency_ring_size);
  std::vector<uint32_t> latencies(held);
  for (size_t i = 0; i < held; ++i)
    latencies[i] = c.latency_us[i].load(std::memory_order_relaxed);
  const auto summary = summarize(latencies);
  next.avg_latency_ms = summary.mean_ms;
  next.p99_latency_ms = summary.p99_ms;

  const auto machine = resources.sample();
  next.cpu_percent = machine.cpu_percent;
  next.ram_used = machine.ram_used;
  next.ram_total = machine.ram_total;
  next.memory_used_mb = machine.process_bytes >> 20;
  next.uptime_s = static_cast<uint64_t>(std::max<int64_t>((now - started_us) / 1'000'000, 0));
  next.unix_us = from.time->unix_us();
  if (from.rewards)
    next.rewards = from.rewards();
  if (from.disk_free) {
    const uint64_t free = from.disk_free();
    health["storage"]["disk"] = free < (64ULL << 20) ? "error" : free < (1ULL << 30) ? "degraded" : "ok";
  }
}

void telemetry_state::judge_health() {
  next.health_network = worst(health["network"]);
  next.health_storage = worst(health["storage"]);
  next.health_model = worst(health["model"]);
  const bool anybody = std::any_of(next.peers->begin(), next.peers->end(),
                                   [](const peer_info& p) { return p.state == peer_state::online; });
  next.health_peers = anybody ? "ok" : "degraded";
  next.active_connections =
      static_cast<uint64_t>(std::count_if(next.peers->begin(), next.peers->end(),
                                          [](const peer_info& p) { return p.state == peer_state::online; }));
}

void telemetry_state::publish() {
  // A node that is up is RUNNING, TRAINING or SYNCING by what its trainer does, so that is read off, not
  // told.
  const bool up = told == node_state::running || told == node_state::training;
  next.state = !up                      ? told
               : next.training->syncing ? node_state::syncing
               : next.training->running ? node_state::training
                                        : node_state::running;
  next.model_version = next.training->outer_step;
  if (from.held) {
    auto [layers, roles, units] = from.held(next.model_version);
    for (auto& layer : layers) // what was held before keeps its status
      for (const auto& before : next.layers)
        if (before.index == layer.index && before.type == layer.type)
          layer.status = before.status;
    next.layers = std::move(layers);
    next.roles = std::move(roles);
    next.units = std::move(units);
  }
  judge_health();
  // While draining the layers are what they were.
  const bool broken = next.state == node_state::error && next.health_model == "error";
  const bool active = next.state == node_state::running || next.state == node_state::training;
  if (broken || active)
    for (auto& layer : next.layers)
      layer.status = active ? "active" : "error";
  from.board->publish(std::make_shared<const node_snapshot>(next));
}

telemetry_actor::behavior_type telemetry(telemetry_actor::stateful_pointer<telemetry_state> self,
                                         telemetry_sources from) {
  self->state.from = std::move(from);
  self->state.next = *self->state.from.board->read();
  self->state.told = self->state.next.state;
  self->state.started_us = self->state.from.time->steady_us();
  self->state.health["model"]["start"] = "degraded";
  self->send(self, tick_atom_v);
  return {
      [self](const state_changed& changed) {
        auto& s = self->state;
        log::info("telemetry", "state-changed from={} to={}", to_string(s.told), to_string(changed.state));
        s.told = changed.state;
        const bool up = changed.state == node_state::running || changed.state == node_state::training;
        s.health["model"]["start"] = changed.state == node_state::error ? "error" : up ? "ok" : "degraded";
        if (!up)
          return s.publish();
        // A node that has just come up shows where training stands from its first page on.
        self->request(s.from.trainer, patience, progress_atom_v)
            .then(
                [self](const training_progress_ptr& p) {
                  self->state.next.training = p;
                  self->state.publish();
                },
                [self](const caf::error&) { self->state.publish(); });
      },
      [self](const health_changed& changed) {
        auto& s = self->state;
        if (changed.value != "ok")
          log::warn("telemetry", "health-changed part={} value={} why={}", changed.part, changed.value,
                    changed.why);
        s.health[changed.part]["told"] = changed.value;
        s.publish();
      },
      [self](tick_atom) {
        auto& s = self->state;
        self->delayed_send(self, period, tick_atom_v);
        self->request(s.from.trainer, patience, progress_atom_v)
            .then([self](const training_progress_ptr& p) { self->state.next.training = p; },
                  [](const caf::error&) {});
        self->request(s.from.peers, patience, peers_atom_v)
            .then([self](const peer_list_ptr& p) { self->state.next.peers = p; }, [](const caf::error&) {});
        // The hash of a copy is known some time after the copy is; until then the old one stands.
        self->request(s.from.worker, patience, serving_hash{0})
            .then([self](const std::string& hash) { self->state.next.serving_hash = hash; },
                  [](const caf::error&) {});
        for (const auto& [part, actor] : s.from.watched)
          self->request(actor, patience, status_atom_v)
              .then(
                  [self, part = part](const actor_status& status) {
                    self->state.health[part][status.name] = text_of(status.state);
                  },
                  [](const caf::error&) {}); // A dead actor is the supervisor's business.
        s.collect_counters();
        s.publish();
      },
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"uptime_s", std::to_string(self->state.next.uptime_s)}}};
      },
  };
}

} // namespace neuroshard
