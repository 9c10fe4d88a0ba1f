#include "actors/gradient_exchanger/exchange_reputation.hpp"

#include <algorithm>

namespace neuroshard {

void exchange_reputation::passed(const std::string& node_id) {
  const auto found = nodes_.find(node_id);
  if (found == nodes_.end())
    return;
  found->second.failures = 0;
  if (found->second.ignored_to == 0)
    nodes_.erase(found);
}

bool exchange_reputation::failed(const std::string& node_id, uint64_t round) {
  if (nodes_.size() >= nodes_max && !nodes_.contains(node_id))
    nodes_.erase(std::min_element(nodes_.begin(), nodes_.end(), [](const auto& a, const auto& b) {
      return a.second.heard < b.second.heard;
    }));
  auto& now = nodes_[node_id];
  now.heard = std::max(now.heard, round);
  if (++now.failures < failures_max)
    return false;
  now.failures = 0; // after its time it begins anew
  now.ignored_to = round + ignored_rounds;
  return true;
}

bool exchange_reputation::ignored(const std::string& node_id, uint64_t round) const {
  const auto found = nodes_.find(node_id);
  return found != nodes_.end() && found->second.ignored_to != 0 && round <= found->second.ignored_to;
}

uint32_t exchange_reputation::failures(const std::string& node_id) const {
  const auto found = nodes_.find(node_id);
  return found == nodes_.end() ? 0 : found->second.failures;
}

} // namespace neuroshard
