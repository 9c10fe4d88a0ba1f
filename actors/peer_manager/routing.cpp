#include "actors/peer_manager/routing.hpp"

#include "actors/peer_manager/layer_map.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

using namespace routing_rules;

caf::error no_way(std::string message, std::string unit) {
  problem what;
  what.message = std::move(message);
  what.reason = "no_route";
  what.details.emplace_back("unit", std::move(unit));
  return refuse(errc::no_route, std::move(what));
}

caf::error no_holder(const std::string& unit) {
  return no_way("no node holds " + unit + " of the model", unit);
}

/// splitmix64: one choice after the other from the bits that were passed in.
uint64_t next_bits(uint64_t& state) noexcept {
  state += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

struct option {
  const route_candidate* who = nullptr;
  uint32_t end = 0; ///< as far as it can take the route
  double score = 0;
};

/// Where a route goes on that a node has taken from `layer`; `layer` itself when it cannot take it there. A
/// node runs all the layers it holds, as one; the head goes with the last of them.
uint32_t reach(const route_candidate& of, uint32_t layer, uint32_t total) noexcept {
  const auto& hop = of.hop;
  if (hop.layer_begin != layer || hop.layer_end <= layer || hop.layer_end > total ||
      (layer == 0 && !of.embed) || (hop.layer_end == total && !of.head))
    return layer;
  return hop.layer_end;
}

/// The layers from which the ranges of some nodes, one after the other, come to the end of the model.
std::vector<bool> ways_on(const std::vector<route_candidate>& candidates, uint32_t total) {
  std::vector<bool> open(size_t{total} + 1, false);
  open[total] = true;
  for (uint32_t layer = total; layer-- > 0;)
    open[layer] = std::any_of(candidates.begin(), candidates.end(), [&](const route_candidate& one) {
      const uint32_t end = reach(one, layer, total);
      return end > layer && open[end];
    });
  return open;
}

/// The furthest layer that ranges, one after the other, come to from the first one.
uint32_t stuck_at(const std::vector<route_candidate>& candidates, uint32_t total) {
  std::vector<bool> reached(size_t{total} + 1, false);
  reached[0] = true;
  uint32_t furthest = 0;
  for (uint32_t layer = 0; layer < total; ++layer)
    if (reached[layer]) {
      furthest = layer;
      for (const auto& one : candidates)
        reached[reach(one, layer, total)] = true;
    }
  return furthest;
}

/// Why the nodes, of which none takes the route on from `layer`, do not make up a model.
caf::error no_way_on(const std::vector<route_candidate>& candidates, uint32_t layer, uint32_t total) {
  const auto any = [&](auto has) { return std::any_of(candidates.begin(), candidates.end(), has); };
  if (layer == 0 && !any([](const auto& one) { return one.embed; }))
    return no_holder("embed");
  for (uint32_t at = layer; at < total; ++at)
    if (!any([&](const auto& one) { return at >= one.hop.layer_begin && at < one.hop.layer_end; }))
      return no_holder(unit_of_layer(at));
  if (!any([](const auto& one) { return one.head; }))
    return no_holder("head");
  const auto unit = unit_of_layer(layer);
  return no_way("no node's layers begin with " + unit + " where those of others end", unit);
}

} // namespace

void hop_scores::note(const hop_outcome& of, int64_t now_us) {
  auto& node = nodes_[of.node_id];
  if (of.failed) {
    ++node.failures;
    node.failed_us = now_us;
    return;
  }
  node.failures = 0;
  auto& latency = node.latency_ms[static_cast<size_t>(of.what)];
  const double ms = static_cast<double>(std::max<int64_t>(0, of.latency_us)) / 1e3;
  latency = latency ? (1 - new_latency_share) * *latency + new_latency_share * ms : ms;
}

void hop_scores::forget(std::string_view node_id) {
  if (const auto at = nodes_.find(node_id); at != nodes_.end())
    nodes_.erase(at);
}

std::optional<double> hop_scores::latency_ms(std::string_view node_id, request_class what) const {
  const auto at = nodes_.find(node_id);
  return at == nodes_.end() ? std::nullopt : at->second.latency_ms[static_cast<size_t>(what)];
}

uint32_t hop_scores::failures(std::string_view node_id) const {
  const auto at = nodes_.find(node_id);
  return at == nodes_.end() ? 0 : at->second.failures;
}

bool hop_scores::circuit_open(std::string_view node_id, int64_t now_us) const {
  const auto at = nodes_.find(node_id);
  return at != nodes_.end() && at->second.failures >= failures_max &&
         now_us - at->second.failed_us < circuit_us;
}

uint32_t hop_scores::budget_ms(std::string_view node_id, request_class what) const {
  const double wanted =
      std::max(budget_floor_ms, budget_ewmas * latency_ms(node_id, what).value_or(latency_default_ms));
  return static_cast<uint32_t>(std::min(std::ceil(wanted), 3.6e6));
}

double score_of(const route_candidate& of) noexcept {
  double score = 0.4 * std::min(1.0, of.latency_ms / 500) + 0.6 * std::min(1.0, of.queue / 100.0);
  if (of.failures > 0)
    score += std::min(1.0, 0.1 * std::exp2(std::min(of.failures, 16U)));
  if (of.age_us > late_us)
    score += std::min(1.0, static_cast<double>(of.age_us) / 60e6);
  return score;
}

caf::expected<model_route> plan_route(const std::vector<route_candidate>& candidates, uint32_t total_layers,
                                      std::string_view own_wallet, uint64_t random) {
  model_route found;
  if (total_layers == 0)
    return no_holder("embed");
  const auto open = ways_on(candidates, total_layers);
  if (!open[0])
    return no_way_on(candidates, stuck_at(candidates, total_layers), total_layers);
  for (uint32_t layer = 0; layer < total_layers;) {
    std::vector<option> able;
    for (const auto& one : candidates)
      if (const uint32_t end = reach(one, layer, total_layers); end > layer && open[end])
        able.push_back({&one, end, score_of(one)});
    const auto own = std::find_if(able.begin(), able.end(), [](auto& one) { return one.who->hop.local; });
    option chosen;
    if (own != able.end()) {
      chosen = *own;
    } else {
      std::sort(able.begin(), able.end(), [](const option& a, const option& b) {
        return std::pair(a.score, std::string_view(a.who->hop.node_id)) <
               std::pair(b.score, std::string_view(b.who->hop.node_id));
      });
      able.resize(std::min(able.size(), candidates_max));
      chosen = *std::max_element(able.begin(), able.end(),
                                 [](const option& a, const option& b) { return a.end < b.end; });
      // Now and then another that is as good, so that not everybody goes the same way.
      std::erase_if(able, [&](const option& one) {
        return one.end != chosen.end || std::abs(one.score - chosen.score) > equal_within;
      });
      const uint64_t bits = next_bits(random);
      if (static_cast<double>(bits >> 40) < random_share * static_cast<double>(1 << 24))
        chosen = able[static_cast<size_t>(bits & 0xffff) % able.size()];
    }
    auto hop = chosen.who->hop;
    hop.layer_begin = layer;
    hop.layer_end = layer = chosen.end;
    found.own_layers_only &= chosen.who->wallet == own_wallet;
    found.hops.push_back(std::move(hop));
  }
  return found;
}

} // namespace neuroshard
