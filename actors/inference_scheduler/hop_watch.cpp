#include "actors/inference_scheduler/hop_watch.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

constexpr double new_share = 0.3; ///< of a new value in an EWMA, as the peer manager has it
constexpr double ewmas = 4;
constexpr double decode_us_default = 100'000;

void blend(double& into, double value) {
  into = into > 0 ? (1 - new_share) * into + new_share * value : value;
}

} // namespace

std::vector<hop_outcome> hop_watch::answered(const model_route& route, const std::vector<hop_report>& reports,
                                             request_class what, int64_t whole_us, uint32_t positions,
                                             int64_t now_us) {
  std::vector<int64_t> share(route.hops.size(), 0);
  int64_t rest = std::max<int64_t>(whole_us, 0);
  int64_t others = 0;
  for (size_t i = 0; i < route.hops.size(); ++i) {
    others += route.hops[i].local ? 0 : 1;
    if (reports.size() != route.hops.size())
      continue;
    // What a node says of itself never makes up more than there was.
    const auto& said = reports[i].share;
    const auto most = static_cast<uint64_t>(rest);
    share[i] =
        static_cast<int64_t>(std::min(most, std::min(most, said.compute_us) + std::min(most, said.queue_us)));
    rest -= share[i];
  }
  std::vector<hop_outcome> tell;
  for (size_t i = 0; i < route.hops.size(); ++i) {
    const auto& hop = route.hops[i];
    const int64_t latency_us = share[i] + (hop.local || others == 0 ? 0 : rest / others);
    if (nodes_.size() >= nodes_max && !nodes_.contains(hop.node_id))
      nodes_.erase(nodes_.begin());
    auto& node = nodes_[hop.node_id];
    if (what == request_class::decode)
      blend(node.decode_us, static_cast<double>(std::max<int64_t>(latency_us, 1)));
    else
      blend(node.prefill_us_per_position,
            static_cast<double>(std::max<int64_t>(latency_us, 1)) / std::max(positions, 1U));
    auto& told_us = node.told_us[static_cast<size_t>(what)];
    if (hop.local || (told_us != 0 && now_us - told_us < report_every_us))
      continue;
    told_us = now_us;
    tell.push_back({hop.node_id, what, latency_us, false});
  }
  return tell;
}

int64_t hop_watch::budget_us(const route_hop& hop, request_class what, uint32_t positions) const {
  const auto at = nodes_.find(hop.node_id);
  if (what == request_class::decode) {
    double wanted = 1e3 * hop.budget_ms;
    if (hop.local || hop.budget_ms == 0)
      wanted = ewmas *
               (at == nodes_.end() || at->second.decode_us <= 0 ? decode_us_default : at->second.decode_us);
    return std::clamp(static_cast<int64_t>(std::min(wanted, 1e9)), decode_us_min, decode_us_max);
  }
  if (at == nodes_.end() || at->second.prefill_us_per_position <= 0)
    return prefill_us_max;
  const double wanted = ewmas * at->second.prefill_us_per_position * positions;
  return std::clamp(static_cast<int64_t>(std::min(wanted, 1e9)), prefill_us_min, prefill_us_max);
}

} // namespace neuroshard
