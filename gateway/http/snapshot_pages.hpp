#pragma once

#include "actors/telemetry/snapshot.hpp"

#include <string>

/// The pages that show a node_snapshot: JSON and Prometheus text, and the small rules behind them. No HTTP
/// here.
namespace neuroshard::http {

std::string render_status(const node_snapshot& s);
std::string render_metrics(const node_snapshot& s);
std::string render_prometheus(const node_snapshot& s);
std::string render_health(const node_snapshot& s);
/// The object under "checks" alone.
std::string render_checks(const node_snapshot& s);
std::string render_network(const node_snapshot& s);
std::string render_peers(const node_snapshot& s);
std::string render_layers(const node_snapshot& s);
std::string render_training_global(const node_snapshot& s);
std::string render_training_verify(const node_snapshot& s);

/// "308.8M" and the like.
std::string short_count(uint64_t n);
/// The first of driver, validator, worker that is held; "worker" for a node that holds none.
const char* main_role(const std::vector<node_role>& roles) noexcept;
const char* role_name(node_role r) noexcept;
size_t online_peers(const node_snapshot& s) noexcept;

/// What training.md section 10 derives from the losses of this node.
struct training_verdict {
  double agreement = 1; ///< of unit hashes among their holders
  const char* trend = "insufficient_data";
  bool converging = false;
  bool verified = false;
};
training_verdict judge_training(const node_snapshot& s);
/// Trend of a history of losses; 2 points at least.
const char* loss_trend(const std::vector<double>& history) noexcept;

} // namespace neuroshard::http
