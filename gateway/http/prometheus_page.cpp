#include "gateway/http/snapshot_pages.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <sstream>

namespace neuroshard::http {

namespace {

/// Collects families of one sample each.
class page_builder {
public:
  void counter(const char* name, const char* help, uint64_t value) {
    counter(name, help, static_cast<double>(value));
  }
  void counter(const char* name, const char* help, double value) {
    prometheus::ClientMetric sample;
    sample.counter.value = value;
    add(name, help, prometheus::MetricType::Counter, std::move(sample));
  }
  void gauge(const char* name, const char* help, double value) {
    prometheus::ClientMetric sample;
    sample.gauge.value = std::isfinite(value) ? value : 0;
    add(name, help, prometheus::MetricType::Gauge, std::move(sample));
  }
  std::string text() const {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, families_);
    return out.str();
  }

private:
  void add(const char* name, const char* help, prometheus::MetricType type, prometheus::ClientMetric sample) {
    prometheus::MetricFamily family;
    family.name = std::string("neuroshard_") + name;
    family.help = help;
    family.type = type;
    family.metric.push_back(std::move(sample));
    families_.push_back(std::move(family));
  }
  std::vector<prometheus::MetricFamily> families_;
};

/// The only place where money becomes floating point: the text format knows nothing else.
double approximate(neuro_amount a) {
  return static_cast<double>(a.atto) / static_cast<double>(atto_per_neuro);
}

} // namespace

std::string render_prometheus(const node_snapshot& s) {
  page_builder out;
  const training_progress& t = *s.training;
  out.counter("inference_requests_total", "Admitted generations.", s.requests_total);
  out.gauge("inference_requests_per_minute", "Generations admitted in the last 60 s.", s.requests_per_minute);
  out.gauge("inference_avg_latency_ms", "Mean latency of the last 1000 generations.", s.avg_latency_ms);
  out.gauge("inference_p99_latency_ms", "99th percentile of the same.", s.p99_latency_ms);
  out.counter("inference_tokens_generated", "Tokens generated.", s.tokens_generated);
  out.counter("training_steps_total", "Committed inner steps since the start.", s.steps_total);
  out.gauge("training_steps_per_hour", "Inner steps in the last hour.", s.steps_per_hour);
  out.counter("training_gradients_submitted", "Contributions offered to other nodes.", s.gradients_submitted);
  out.counter("training_gradients_accepted", "Contributions accepted.", s.gradients_accepted);
  out.gauge("training_loss", "Loss, smoothed; 0 while unknown.", t.loss_ema.value_or(t.loss.value_or(0)));
  out.gauge("training_tokens_per_second", "Label tokens per second.", t.tokens_per_second);
  out.counter("network_bytes_sent", "Bytes sent to peers.", s.bytes_sent);
  out.counter("network_bytes_received", "Bytes received from peers.", s.bytes_received);
  out.gauge("network_active_connections", "Open connections.", static_cast<double>(s.active_connections));
  out.counter("network_rpc_calls", "Calls between nodes.", s.rpc_calls);
  out.gauge("network_peer_count", "Peers online.", static_cast<double>(online_peers(s)));
  out.gauge("rewards_earned_today", "NEURO earned this UTC day.", approximate(s.rewards.earned_today));
  out.counter("rewards_earned_total", "NEURO earned.", approximate(s.rewards.earned_total));
  out.gauge("rewards_pending", "NEURO not matured yet.", approximate(s.rewards.pending));
  out.gauge("uptime_seconds", "Seconds since the start.", static_cast<double>(s.uptime_s));
  return out.text();
}

} // namespace neuroshard::http
