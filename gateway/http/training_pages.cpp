#include "gateway/http/json.hpp"
#include "gateway/http/snapshot_pages.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <string_view>

namespace neuroshard::http {

namespace {

constexpr uint64_t verify_steps_min = 10;
constexpr size_t verified_points_min = 5;

double mean(const double* from, const double* to) noexcept {
  return std::accumulate(from, to, 0.0) / static_cast<double>(to - from);
}

bool counts(const peer_info& peer) noexcept {
  return peer.state == peer_state::online;
}

/// Share of equal unit hashes among their holders that report the last completed outer step, the mean over
/// units (training.md section 10). A node by itself agrees with itself.
double hash_agreement(const node_snapshot& s) {
  uint64_t last = s.model_version;
  for (const peer_info& peer : *s.peers)
    if (counts(peer) && peer.node.architecture_id == s.identity.architecture_id && !peer.node.units.empty())
      last = std::max(last, peer.node.model_version);
  std::map<std::string_view, std::map<kernels::digest, uint64_t>> groups;
  const auto add = [&](const std::vector<unit_state>& units) {
    for (const unit_state& unit : units)
      ++groups[unit.unit][unit.unit_hash];
  };
  if (s.model_version == last)
    add(s.units);
  for (const peer_info& peer : *s.peers)
    if (counts(peer) && peer.node.architecture_id == s.identity.architecture_id &&
        peer.node.model_version == last)
      add(peer.node.units);
  double sum = 0;
  for (const auto& [unit, hashes] : groups) {
    uint64_t holders = 0, largest = 0;
    for (const auto& [hash, nodes] : hashes) {
      holders += nodes;
      largest = std::max(largest, nodes);
    }
    sum += static_cast<double>(largest) / static_cast<double>(holders);
  }
  return groups.empty() ? 1.0 : sum / static_cast<double>(groups.size());
}

/// What all nodes report together.
struct global_training {
  std::optional<double> loss, loss_min;
  uint64_t steps = 0, tokens = 0, nodes = 0;
  std::set<uint64_t> shards;
};
global_training all_together(const node_snapshot& s) {
  const training_progress& t = *s.training;
  global_training all;
  all.steps = t.inner_step;
  all.tokens = t.tokens_trained;
  all.nodes = t.enabled ? 1 : 0;
  all.shards.insert(t.shards_covered.begin(), t.shards_covered.end());
  all.loss_min = t.loss_min;
  std::vector<double> losses;
  if (t.loss_ema)
    losses.push_back(*t.loss_ema);
  for (const peer_info& peer : *s.peers) {
    if (!counts(peer))
      continue;
    all.nodes += peer.node.training;
    const training_report& r = peer.training;
    all.steps = std::max(all.steps, r.step);
    all.tokens += r.tokens;
    if (r.loss <= 0)
      continue; // it trains nothing of its own
    losses.push_back(r.loss);
    all.loss_min = std::min(all.loss_min.value_or(r.loss), r.loss);
    all.shards.insert(r.shard_id);
  }
  if (!losses.empty())
    all.loss = std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
  return all;
}

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

training_verdict judge_training(const node_snapshot& s) {
  const training_progress& t = *s.training;
  training_verdict v;
  v.agreement = hash_agreement(s);
  v.trend = loss_trend(t.loss_history);
  const std::string_view trend = v.trend;
  v.converging =
      v.agreement >= 0.5 && (trend == "improving_strongly" || trend == "improving" || trend == "stable");
  const auto& last = t.loss_history;
  const auto& first = t.loss_first;
  if (last.size() >= verified_points_min && first.size() >= 3)
    v.verified = mean(last.data() + last.size() - 3, last.data() + last.size()) <
                 0.9 * mean(first.data(), first.data() + 3);
  return v;
}

std::string render_training_global(const node_snapshot& s) {
  const training_progress& t = *s.training;
  const training_verdict v = judge_training(s);
  const global_training all = all_together(s);
  json_writer out;
  out.begin().put("global_avg_loss", all.loss).put("global_min_loss", all.loss_min);
  out.put("hash_agreement_rate", v.agreement).put("total_nodes_training", all.nodes);
  out.put("successful_syncs", t.syncs_done).put("failed_syncs", t.syncs_failed);
  out.put("sync_success_rate", t.sync_success_rate);
  out.put("global_steps", all.steps).put("global_tokens", all.tokens);
  out.key("data_shards_covered").begin_list();
  for (const uint64_t shard : all.shards)
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
  const training_verdict v = judge_training(s);
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
  } else if (v.agreement < 0.5) {
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
    out.put("hash_agreement", fmt::format("{:.1f}%", v.agreement * 100))
        .put("global_loss", all_together(s).loss)
        .end();
  } else {
    out.put("action", action);
  }
  out.put("state", state).end();
  return out.take();
}

} // namespace neuroshard::http
