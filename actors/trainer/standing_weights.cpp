#include "actors/trainer/standing_weights.hpp"

#include "actors/peer_link/peer_address.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

namespace neuroshard {

namespace {

/// Those who hold a unit at one outer step with the same content.
struct holder_group {
  uint64_t version = 0;
  unit_state content;
  std::set<std::string> members;
  bool has(const std::string& node_id) const { return members.contains(node_id); }
  bool stands_before(const holder_group& other) const {
    if (members.size() != other.members.size())
      return members.size() > other.members.size();
    if (version != other.version)
      return version > other.version;
    return *members.begin() < *other.members.begin();
  }
};
using unit_groups = std::vector<holder_group>;

const unit_state* find_unit(const std::vector<unit_state>& in, const std::string& unit) {
  const auto at = std::find_if(in.begin(), in.end(), [&](const unit_state& one) { return one.unit == unit; });
  return at == in.end() ? nullptr : &*at;
}

/// Of those that the filter lets pass; null: none.
template <class Filter>
const holder_group* largest(const unit_groups& groups, Filter passes) {
  const holder_group* best = nullptr;
  for (const auto& group : groups)
    if (passes(group) && (!best || group.stands_before(*best)))
      best = &group;
  return best;
}
const holder_group& standing(const unit_groups& groups) {
  return *largest(groups, [](const holder_group&) { return true; });
}

void join_group(unit_groups& groups, uint64_t version, const unit_state& content,
                const std::string& node_id) {
  const auto at = std::find_if(groups.begin(), groups.end(), [&](const holder_group& group) {
    return group.version == version && group.content == content;
  });
  if (at != groups.end())
    at->members.insert(node_id);
  else
    groups.push_back({version, content, {node_id}});
}

bool counts(const own_weights& own, const peer_info& peer) {
  const auto& node = peer.node;
  return peer.state == peer_state::online && node.node_id != own.node_id && node.model_version > 0 &&
         node.architecture_id == own.architecture_id;
}

/// Somebody who has trained holds one of these units, and has not said yet what it is: a round begins there.
bool awaits_word(const own_weights& own, const peer_list& peers) {
  const auto held_by = [](const node_description& node, const std::string& unit) {
    if (unit == "embed" || unit == "head")
      return unit == "embed" ? node.has_embedding : node.has_lm_head;
    const auto layer = std::strtoul(unit.c_str() + unit.find('.') + 1, nullptr, 10);
    return layer >= node.layer_begin && layer < node.layer_end;
  };
  return std::any_of(peers.begin(), peers.end(), [&](const peer_info& peer) {
    return counts(own, peer) && peer.node.units.empty() &&
           std::any_of(own.units.begin(), own.units.end(),
                       [&](const std::string& unit) { return held_by(peer.node, unit); });
  });
}

/// Groups of a unit with this node in its own; empty where nobody else has trained it.
unit_groups groups_of(const std::string& unit, const own_weights& own, const peer_list& peers) {
  unit_groups groups;
  for (const auto& peer : peers)
    if (counts(own, peer))
      if (const auto* content = find_unit(peer.node.units, unit))
        join_group(groups, peer.node.model_version, *content, peer.node.node_id);
  if (groups.empty() || own.version == 0 || own.base_lost)
    return groups;
  unit_state mine{unit, {}, {}};
  if (const auto* content = find_unit(own.known, unit))
    mine = *content;
  else if (const auto* most =
               largest(groups, [&](const holder_group& group) { return group.version == own.version; }))
    mine = most->content; // not known to differ
  join_group(groups, own.version, mine, own.node_id);
  return groups;
}

/// The outer step at which the most units have what stands; of equal ones the later.
uint64_t version_of(const std::map<std::string, unit_groups>& of_units) {
  std::map<uint64_t, size_t> counted;
  for (const auto& [unit, groups] : of_units)
    ++counted[standing(groups).version];
  return std::max_element(counted.begin(), counted.end(),
                          [](const auto& a, const auto& b) {
                            return a.second < b.second || (a.second == b.second && a.first < b.first);
                          })
      ->first;
}

/// Splits the units among nodes that have them, as few nodes as a greedy choice finds; empty: somebody is
/// missing.
std::vector<weights_part> parts_of(std::map<std::string, const holder_group*> wanted, const own_weights& own,
                                   const peer_list& peers, const std::set<std::string>& avoid) {
  std::vector<const peer_info*> givers;
  for (const auto& peer : peers)
    if (counts(own, peer) && !peer.node.host.empty() && peer.node.grpc_port != 0)
      givers.push_back(&peer);
  const auto rank = [&](const peer_info* peer) {
    return std::tuple(avoid.contains(peer->node.node_id), peer->latency_ms, peer->node.node_id);
  };
  std::sort(givers.begin(), givers.end(), [&](const auto* a, const auto* b) { return rank(a) < rank(b); });
  const auto has = [&](const peer_info* peer, const std::string& unit) {
    return wanted.at(unit)->has(peer->node.node_id);
  };
  std::vector<weights_part> parts;
  while (!wanted.empty()) {
    std::vector<std::string> most;
    for (const auto* giver : givers) {
      std::vector<std::string> held;
      for (const auto& [unit, group] : wanted)
        if (has(giver, unit))
          held.push_back(unit);
      const bool failed = avoid.contains(giver->node.node_id);
      if (held.size() > most.size() && (!failed || most.empty()))
        most = std::move(held);
    }
    if (most.empty())
      return {};
    auto& part = parts.emplace_back();
    for (const auto* giver : givers)
      if (part.candidates.size() < part_candidates_max &&
          std::all_of(most.begin(), most.end(), [&](const auto& unit) { return has(giver, unit); }))
        part.candidates.push_back(address_of(giver->node));
    for (const auto& unit : most) {
      part.units.push_back(wanted.at(unit)->content);
      wanted.erase(unit);
    }
  }
  return parts;
}

} // namespace

standing_weights find_standing(const own_weights& own, const peer_list& peers,
                               const std::set<std::string>& avoid) {
  standing_weights found;
  std::map<std::string, unit_groups> of_units;
  for (const auto& unit : own.units)
    if (auto groups = groups_of(unit, own, peers); !groups.empty())
      of_units.emplace(unit, std::move(groups));
  if (of_units.empty()) {
    if (awaits_word(own, peers))
      found.where = standing_weights::place::unsettled;
    return found;
  }
  if (std::all_of(of_units.begin(), of_units.end(),
                  [&](const auto& one) { return standing(one.second).has(own.node_id); })) {
    found.where = standing_weights::place::in_step;
    return found;
  }
  found.where = standing_weights::place::unsettled;
  found.version = version_of(of_units);
  std::map<std::string, const holder_group*> wanted;
  for (const auto& [unit, groups] : of_units) {
    const auto* group = largest(groups, [&](const holder_group& one) {
      return one.version == found.version && (one.members.size() > 1 || !one.has(own.node_id));
    });
    if (!group)
      return found;
    wanted.emplace(unit, group);
  }
  found.parts = parts_of(std::move(wanted), own, peers, avoid);
  if (!found.parts.empty())
    found.where = standing_weights::place::apart;
  return found;
}

} // namespace neuroshard
