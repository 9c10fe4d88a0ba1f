#include "gateway/http/json.hpp"
#include "gateway/http/snapshot_pages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace neuroshard::http {

namespace {

constexpr uint64_t verify_steps_min = 10;
constexpr size_t verified_points_min = 5;

double mean(const double* from, const double* to) noexcept {
  return std::accumulate(from, to, 0.0) / static_cast<double>(to - from);
}

/// Share of equal unit hashes among their holders (training.md section 10); a node by itself agrees with
/// itself.
constexpr double agreement_alone = 1.0;

} // namespace

const char* loss_trend(const std::vector<double>& history) noexcept {
  if (history.size() < 2)
    return "insufficient_data";
  const size_t half = history.size() / 2;
  const double first = mean(history.data(), history.data() + half);
  const double second = mean(history.data() + half, history.data() + history.size());
  const double improvement = first == 0 ? 0 : (first - second) / first;
  if (improvement > 0.10)
    return "improving_strongly";
  if (improvement > 0.02)
    return "improving";
  if (improvement > -0.02)
    return "stable";
  if (improvement > -0.10)
    return "degrading_slightly";
  return "degrading";
}

training_verdict judge_training(const training_progress& t) {
  training_verdict v;
  v.trend = loss_trend(t.loss_history);
  const std::string_view trend = v.trend;
  v.converging =
      agreement_alone >= 0.5 && (trend == "improving_strongly" || trend == "improving" || trend == "stable");
  const auto& last = t.loss_history;
  const auto& first = t.loss_first;
  if (last.size() >= verified_points_min && first.size() >= 3)
    v.verified = mean(last.data() + last.size() - 3, last.data() + last.size()) <
                 0.9 * mean(first.data(), first.data() + 3);
  return v;
}

std::string render_training_global(const node_snapshot& s) {
  const training_progress& t = *s.training;
  const training_verdict v = judge_training(t);
  uint64_t training_nodes = t.enabled ? 1 : 0;
  for (const peer_info& p : *s.peers)
    training_nodes += p.state == peer_state::online && p.node.training;
  json_writer out;
  out.begin().put("global_avg_loss", t.loss_ema).put("global_min_loss", t.loss_min);
  out.put("hash_agreement_rate", agreement_alone).put("total_nodes_training", training_nodes);
  out.put("successful_syncs", 0).put("failed_syncs", 0).put("sync_success_rate", 0.0);
  out.put("global_steps", t.inner_step).put("global_tokens", t.tokens_trained);
  out.key("data_shards_covered").begin_list();
  for (const uint64_t shard : t.shards_covered)
    out.value(shard);
  out.end_list();
  out.put("is_converging", v.converging).put("training_verified", v.verified).put("loss_trend", v.trend);
  out.key("local").begin();
  out.put("node_id", s.identity.node_id).put("training_rounds", t.outer_step).put("current_loss", t.loss_ema);
  out.put("is_training", t.enabled && t.running).put("model_hash", t.outer_model_hash).end();
  const double progress =
      t.diloco_steps == 0 ? 0 : static_cast<double>(t.steps_in_round) / static_cast<double>(t.diloco_steps);
  out.key("diloco").begin();
  out.put("enabled", t.enabled)
      .put("inner_step_count", t.steps_in_round)
      .put("inner_steps_total", t.diloco_steps);
  out.put("progress", std::clamp(progress, 0.0, 1.0)).put("outer_step_count", t.outer_step).end();
  out.end();
  return out.take();
}

std::string render_training_verify(const node_snapshot& s) {
  const training_progress& t = *s.training;
  const training_verdict v = judge_training(t);
  const char* state = "unverified";
  std::string reason = "The loss has not fallen far enough yet to call training verified.";
  std::string action = "Let the node train on; look again after some hundred steps.";
  if (!t.enabled) {
    state = "disabled";
    reason = "Training is switched off on this node.";
    action = "Set training.enabled to true with PATCH /api/v1/config or in node.toml.";
  } else if (t.inner_step < verify_steps_min) {
    state = "insufficient_data";
    reason = fmt::format("{} of at least {} steps are done.", t.inner_step, verify_steps_min);
    action = "Wait until some steps are done.";
  } else if (agreement_alone < 0.5) {
    state = "diverged";
    reason = "Most nodes hold other weights.";
    action = "Wait for the next outer step, or resynchronize.";
  } else if (v.verified && v.converging) {
    state = "working";
    reason = "The loss is well below where it began and not rising.";
  } else if (!t.error.empty()) {
    reason = t.error;
    action = "See the node's log.";
  } else if (!v.converging) {
    reason = fmt::format("The loss is {}.", std::string_view(v.trend) == "insufficient_data"
                                                ? "not known for long enough"
                                                : "rising");
    action = "Check the learning rate and the data.";
  }
  const bool working = std::string_view(state) == "working";
  json_writer out;
  out.begin().put("is_working", working).put("reason", reason);
  if (working) {
    out.key("metrics").begin().put("loss_trend", v.trend);
    out.put("hash_agreement", fmt::format("{:.1f}%", agreement_alone * 100))
        .put("global_loss", t.loss_ema)
        .end();
  } else {
    out.put("action", action);
  }
  out.put("state", state).end();
  return out.take();
}

} // namespace neuroshard::http
