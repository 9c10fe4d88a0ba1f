#include "actors/peer_manager/peer_table.hpp"

#include <algorithm>
#include <array>
#include <iterator>

namespace neuroshard {

namespace {

using namespace peer_rules;

constexpr uint32_t unreachable_after = 3;

caf::error not_met(errc code, const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.reason = reason;
  return refuse(code, std::move(what));
}

void forget_older(std::deque<int64_t>& times, int64_t now_us) {
  while (!times.empty() && now_us - times.front() >= window_us)
    times.pop_front();
}

bool same_place(const node_description& a, const node_description& b) {
  return a.host == b.host && a.grpc_port == b.grpc_port;
}

bool holds(const node_description& node, std::string_view unit) {
  if (unit == "embed")
    return node.has_embedding;
  if (unit == "head")
    return node.has_lm_head;
  constexpr std::string_view prefix = "layer.";
  if (!unit.starts_with(prefix) || unit.size() > prefix.size() + 5)
    return false;
  uint32_t layer = 0;
  for (const char c : unit.substr(prefix.size())) {
    if (c < '0' || c > '9')
      return false;
    layer = layer * 10 + static_cast<uint32_t>(c - '0');
  }
  return layer >= node.layer_begin && layer < node.layer_end;
}

/// XOR of a node id's 16 bytes, ended by zeros, with the target.
std::array<uint8_t, 20> distance(std::string_view node_id, const std::array<uint8_t, 20>& target) {
  std::array<uint8_t, 20> out = target;
  if (std::array<uint8_t, 16> id{}; from_hex(node_id, id.data(), id.size()))
    for (size_t i = 0; i < id.size(); ++i)
      out[i] ^= id[i];
  return out;
}

} // namespace

std::string address_of_peer(const peer_table::entry& of) {
  const auto& node = of.node->what;
  const std::string& host = node.host.empty() ? of.seen_host : node.host;
  if (host.empty() || node.grpc_port == 0)
    return {};
  const auto port = ":" + std::to_string(node.grpc_port);
  return host.find(':') != std::string::npos ? "[" + host + "]" + port : host + port;
}

peer_table::learned peer_table::learn(const signed_node_ptr& node, int64_t now_us) {
  const auto& what = node->what;
  if (what.node_id == own_.node_id || banned(what.node_id, now_us))
    return learned::ignored;
  if (const auto grave = graves_.find(what.node_id); grave != graves_.end() && now_us < grave->second.second)
    if (what.sequence <= grave->second.first)
      return learned::ignored;
  if (auto* known = find(what.node_id)) {
    if (what.sequence <= known->node->what.sequence)
      return learned::known;
    const bool moved = !same_place(what, known->node->what);
    known->node = node;
    known->changed = ++changes_;
    if (moved && known->state != peer_state::fresh)
      known->next_call_us = now_us; // it is asked itself at its new place
    return learned::renewed;
  }
  if (entries_.size() >= known_max)
    return learned::ignored;
  entry made;
  made.node = node;
  made.heard_us = now_us;
  made.next_call_us = now_us;
  made.changed = ++changes_;
  entries_.emplace(what.node_id, std::move(made));
  return learned::added;
}

caf::expected<void> peer_table::meet(const signed_node_ptr& node, const std::string& seen_host,
                                     int64_t now_us, int64_t now_unix_us) {
  const auto& what = node->what;
  if (what.node_id == own_.node_id)
    return not_met(errc::already_exists, "own_node_id", "This node id is the receiver's own.");
  if (banned(what.node_id, now_us))
    return not_met(errc::forbidden, "banned", "This node is banned here.");
  auto* known = find(what.node_id);
  if (!known) {
    if (entries_.size() >= known_max)
      return not_met(errc::overloaded, "peer_table", "This node knows as many others as it can.");
    known = &entries_.emplace(what.node_id, entry{}).first->second;
    known->node = node;
    known->changed = ++changes_;
  } else if (what.sequence < known->node->what.sequence) {
    return not_met(errc::failed_precondition, "sequence", "A newer record of this node is known.");
  } else if (what.sequence > known->node->what.sequence) {
    if (!same_place(what, known->node->what)) {
      forget_older(known->moves, now_us);
      if (known->moves.size() >= moves_max)
        return not_met(errc::already_exists, "two_addresses", "Two nodes use this node id.");
      known->moves.push_back(now_us);
    }
    known->node = node;
    known->changed = ++changes_;
  }
  graves_.erase(what.node_id);
  known->seen_host = seen_host;
  known->heard_us = now_us;
  if (known->state != peer_state::online) {
    if (known->connected_us == 0)
      known->connected_us = now_unix_us;
    known->state = peer_state::online;
    known->online_us = now_us;
    known->changed = ++changes_;
    known->next_call_us = std::min(known->next_call_us, now_us);
  }
  return {};
}

void peer_table::answered(std::string_view node_id, double latency_us, int64_t now_us) {
  auto* known = find(node_id);
  if (!known)
    return;
  known->failures = 0;
  known->heard_us = now_us;
  known->latency_us =
      known->latency_us ? (1 - latency_share) * *known->latency_us + latency_share * latency_us : latency_us;
  if (known->state == peer_state::stale) {
    known->state = peer_state::online;
    known->online_us = now_us;
    known->changed = ++changes_;
  }
}

void peer_table::failed(std::string_view node_id, int64_t) {
  const auto at = entries_.find(node_id);
  if (at == entries_.end())
    return;
  ++at->second.failures;
  // Of one that was never met there is only somebody's word.
  if (at->second.state == peer_state::fresh && at->second.failures >= unreachable_after)
    entries_.erase(at);
}

bool peer_table::leave(std::string_view node_id, int64_t now_us) {
  const auto at = entries_.find(node_id);
  if (at == entries_.end())
    return false;
  bury(node_id, at->second.node->what.sequence, now_us);
  entries_.erase(at);
  ++changes_;
  return true;
}

bool peer_table::bad_blob(std::string_view node_id, int64_t now_us) {
  refused({std::string(node_id), "invalid_blob"});
  if (suspects_.size() >= known_max && !suspects_.contains(node_id))
    return false;
  auto& times = suspects_[std::string(node_id)].bad_blobs;
  forget_older(times, now_us);
  times.push_back(now_us);
  if (times.size() < bad_blobs_max)
    return false;
  ban(node_id, now_us);
  return true;
}

void peer_table::refused(const peer_refused& what) {
  auto* peer = find(what.node_id);
  if (!peer)
    return;
  auto& standing = peer->standing;
  standing.ignored_until_round = std::max(standing.ignored_until_round, what.ignored_until_round);
  if (what.reason.empty())
    return;
  ++standing.refused;
  standing.reason = what.reason;
}

void peer_table::ban(std::string_view node_id, int64_t now_us) {
  auto& suspect = suspects_[std::string(node_id)];
  suspect.bad_blobs.clear();
  suspect.banned_until_us = now_us + ban_us;
  if (auto* known = find(node_id)) {
    known->state = peer_state::banned;
    known->changed = ++changes_;
  }
}

bool peer_table::banned(std::string_view node_id, int64_t now_us) const {
  const auto at = suspects_.find(node_id);
  return at != suspects_.end() && now_us < at->second.banned_until_us;
}

std::vector<peer_table::change> peer_table::tick(int64_t now_us) {
  std::vector<change> all;
  for (auto at = entries_.begin(); at != entries_.end();) {
    auto& one = at->second;
    const int64_t silent_us = now_us - one.heard_us;
    const auto before = one.state;
    if (before == peer_state::banned) {
      if (banned(at->first, now_us)) {
        ++at;
        continue;
      }
    } else if (silent_us < dead_us) {
      if (before == peer_state::online && silent_us >= stale_us) {
        one.state = peer_state::stale;
        one.changed = ++changes_;
        all.push_back({at->first, before, peer_state::stale});
      }
      ++at;
      continue;
    }
    all.push_back({at->first, before, peer_state::dead});
    bury(at->first, one.node->what.sequence, now_us);
    at = entries_.erase(at);
    ++changes_;
  }
  std::erase_if(graves_, [&](const auto& grave) { return now_us >= grave.second.second; });
  for (auto& [id, suspect] : suspects_)
    forget_older(suspect.bad_blobs, now_us);
  std::erase_if(suspects_, [&](const auto& suspect) {
    return suspect.second.bad_blobs.empty() && now_us >= suspect.second.banned_until_us;
  });
  return all;
}

void peer_table::bury(std::string_view node_id, uint64_t sequence, int64_t now_us) {
  if (graves_.size() < known_max || graves_.contains(node_id))
    graves_[std::string(node_id)] = {sequence, now_us + grave_us};
}

peer_table::entry* peer_table::find(std::string_view node_id) {
  const auto at = entries_.find(node_id);
  return at == entries_.end() ? nullptr : &at->second;
}

size_t peer_table::count(peer_state state) const noexcept {
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(),
                                           [&](const auto& one) { return one.second.state == state; }));
}

std::pair<std::vector<signed_blob>, uint64_t>
peer_table::changed_since(uint64_t since, std::string_view except, size_t limit) const {
  std::vector<const entry*> found;
  for (const auto& [id, one] : entries_)
    if (one.state == peer_state::online && one.changed > since && id != except)
      found.push_back(&one);
  std::sort(found.begin(), found.end(), [](auto* a, auto* b) { return a->changed < b->changed; });
  const bool all = found.size() <= limit;
  found.resize(std::min(found.size(), limit));
  std::vector<signed_blob> records;
  for (const auto* one : found)
    records.push_back(one->node->blob);
  return {std::move(records), all ? changes_ : found.back()->changed};
}

std::vector<signed_blob> peer_table::select(const find_peers_request& wanted) const {
  std::vector<const entry*> found;
  for (const auto& [id, one] : entries_) {
    const auto& node = one.node->what;
    if (one.state != peer_state::online ||
        std::find(wanted.exclude.begin(), wanted.exclude.end(), id) != wanted.exclude.end() ||
        (!wanted.unit.empty() && !holds(node, wanted.unit)) ||
        (wanted.role && std::find(node.roles.begin(), node.roles.end(), *wanted.role) == node.roles.end()))
      continue;
    found.push_back(&one);
  }
  if (wanted.target)
    std::sort(found.begin(), found.end(), [&](auto* a, auto* b) {
      return distance(a->node->what.node_id, *wanted.target) <
             distance(b->node->what.node_id, *wanted.target);
    });
  const size_t limit = wanted.limit == 0 ? 20 : std::min<size_t>(wanted.limit, told_peers_max);
  found.resize(std::min(found.size(), limit));
  std::vector<signed_blob> records;
  for (const auto* one : found)
    records.push_back(one->node->blob);
  return records;
}

peer_list_ptr peer_table::peers() const {
  auto all = std::make_shared<peer_list>();
  all->reserve(entries_.size());
  for (const auto& [id, one] : entries_) {
    auto& info = all->emplace_back();
    info.node = one.node->what;
    if (info.node.host.empty())
      info.node.host = one.seen_host;
    info.state = one.state;
    info.latency_ms = one.latency_us.value_or(0) / 1e3;
    info.training = one.training;
    info.standing = one.standing;
    if (one.connected_us != 0)
      info.connected_since_unix_us = one.connected_us;
  }
  return all;
}

caf::expected<model_route> peer_table::route(const route_request& request, const hop_scores& scores,
                                             int64_t now_us, uint64_t random) const {
  const auto failed = [&](const std::string& id) {
    return std::find(request.exclude.begin(), request.exclude.end(), id) != request.exclude.end();
  };
  std::vector<route_candidate> able;
  const auto add = [&](const node_description& node) -> route_candidate& {
    auto& one = able.emplace_back();
    one.hop.node_id = node.node_id;
    one.hop.layer_begin = node.layer_begin;
    one.hop.layer_end = node.layer_end;
    one.embed = node.has_embedding;
    one.head = node.has_lm_head;
    one.wallet = node.wallet_address;
    one.queue = node.queue_depth;
    return one;
  };
  if (!failed(own_.node_id))
    add(own_);
  for (const auto& [id, peer] : entries_) {
    const auto& node = peer.node->what;
    if (peer.state != peer_state::online || !node.accepting || node.model_version != request.model_version ||
        node.architecture_id != own_.architecture_id || node.layer_begin >= node.layer_end || failed(id) ||
        scores.circuit_open(id, now_us))
      continue;
    auto address = address_of_peer(peer);
    if (address.empty())
      continue;
    auto& one = add(node);
    one.hop.local = false;
    one.hop.address = std::move(address);
    one.hop.tls_cert_sha256 = node.tls_cert_sha256;
    one.hop.budget_ms = scores.budget_ms(id, request.what);
    const auto measured = scores.latency_ms(id, request.what);
    one.latency_ms = measured          ? *measured
                     : peer.latency_us ? *peer.latency_us / 1e3
                                       : routing_rules::latency_default_ms;
    one.failures = std::max(scores.failures(id), peer.failures);
    one.age_us = now_us - peer.heard_us;
  }
  return plan_route(able, total_layers_, own_.wallet_address, random);
}

} // namespace neuroshard
