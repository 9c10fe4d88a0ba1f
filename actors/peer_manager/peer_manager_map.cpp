#include "actors/common/log.hpp"
#include "actors/peer_manager/peer_manager.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

/// Where it is still open who keeps the map, a node that has just met others first hears whether one has it.
constexpr int64_t map_patience_us = peer_rules::heartbeat_us;
/// Nodes come to a new version one after the other; the map says so once.
constexpr int64_t hashes_every_us = 10 * peer_rules::second_us;
constexpr int64_t fetch_every_us = peer_rules::second_us;
constexpr uint32_t map_budget_ms = 5'000;

placement_node as_placement_node(const node_description& node, bool online, bool reachable) {
  placement_node one;
  one.id = node.node_id;
  one.memory_mb = node.memory_total_mb;
  one.ms_per_layer = node.ms_per_layer;
  one.max_layers = node.max_layers;
  one.validator = std::find(node.roles.begin(), node.roles.end(), node_role::validator) != node.roles.end();
  one.takes_layers = reachable && !node.roles.empty();
  one.online = online;
  one.held = {node.layer_begin, node.layer_end, node.has_embedding, node.has_lm_head};
  return one;
}

bool same_holders(const layer_map& a, const layer_map& b) {
  return std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                    [](const auto& x, const auto& y) { return x.holders == y.holders; });
}

} // namespace

std::vector<keeper_candidate> peer_manager_state::keeper_candidates() const {
  std::vector<keeper_candidate> found;
  for (const auto& [id, peer] : table.entries())
    if (peer.state == peer_state::online && peer.node->what.architecture_id == table.own().architecture_id)
      found.push_back({id, peer.online_us});
  return found;
}

/// The map as it should be now, if this node keeps it.
layer_map peer_manager_state::next_map(int64_t now_us) const {
  const auto& own_node = table.own();
  layer_map made;
  made.architecture = options.architecture;
  if (map && !names_only(map->what, own_node.node_id))
    made.training = map->what.training;
  else if (parts.network_parameters)
    made.training = parts.network_parameters();
  placement_input in;
  in.total_layers = options.total_layers;
  in.costs = options.costs;
  in.previous = map ? &map->what : nullptr;
  in.moved_us = moved_us;
  in.now_us = now_us;
  in.exchanging = parts.exchanging && parts.exchanging();
  in.nodes.push_back(as_placement_node(own_node, true, true));
  std::map<uint64_t, size_t> versions;
  const auto count = [&](const node_description& node) {
    if (node.layer_begin < node.layer_end)
      ++versions[node.model_version];
  };
  count(own_node);
  for (const auto& [id, peer] : table.entries()) {
    const auto& node = peer.node->what;
    if (peer.state == peer_state::banned || node.architecture_id != own_node.architecture_id)
      continue;
    const bool online = peer.state == peer_state::online;
    in.nodes.push_back(as_placement_node(node, online, !address_of_peer(peer).empty()));
    if (online)
      count(node);
  }
  if (in.nodes.size() > 1 && !seed_parameters.empty() && (!map || names_only(map->what, own_node.node_id)))
    made.training = seed_parameters;
  for (const auto& [version, nodes] : versions)
    if (nodes >= versions[made.model_version])
      made.model_version = version;
  in.trained = made.model_version > 0;
  made.layers = place(in).units;
  add_hashes(made);
  return made;
}

/// Of each unit the hash that more than half of those announce who hold it in that version.
void peer_manager_state::add_hashes(layer_map& to) const {
  std::map<std::string_view, std::map<kernels::digest, size_t>> votes;
  const auto add = [&](const node_description& node) {
    if (node.architecture_id == table.own().architecture_id && node.model_version == to.model_version)
      for (const auto& unit : node.units)
        ++votes[unit.unit][unit.unit_hash];
  };
  add(table.own());
  for (const auto& [id, peer] : table.entries())
    if (peer.state == peer_state::online)
      add(peer.node->what);
  kernels::sha256 all;
  bool every = !to.layers.empty();
  for (auto& unit : to.layers) {
    size_t sum = 0;
    for (const auto& [hash, count] : votes[unit.unit])
      sum += count;
    for (const auto& [hash, count] : votes[unit.unit])
      if (2 * count > sum)
        unit.unit_hash = hash;
    every &= unit.unit_hash.has_value();
    if (unit.unit_hash)
      all.update(*unit.unit_hash);
  }
  if (every)
    to.model_hash = all.finish();
}

/// The held map's; what a map made now would say while the held one tells of another version.
std::string peer_manager_state::model_hash_of(uint64_t version) const {
  if (!map)
    return {};
  auto now = map->what;
  if (now.model_version != version || !now.model_hash) {
    now.model_version = version;
    now.model_hash.reset();
    for (auto& unit : now.layers)
      unit.unit_hash.reset();
    add_hashes(now);
  }
  return now.model_hash ? kernels::to_hex(*now.model_hash) : std::string();
}

void peer_manager_state::keep_map(int64_t now_us) {
  const auto others = keeper_candidates();
  const auto& own_id = table.own().node_id;
  keeper = keeper_of(own_id, started_us, others, map ? map->signer : std::string_view{}, now_us);
  std::erase_if(moved_us,
                [&](const auto& one) { return now_us - one.second >= placement_rules::node_rest_us; });
  if (keeper != own_id || options.total_layers == 0 || options.total_layers > map_rules::layers_max)
    return;
  if (!others.empty() && !keeper_is_settled(started_us, others, now_us) && now_us - met_us < map_patience_us)
    return;
  auto next = next_map(now_us);
  const bool moved = !map || map->signer != own_id || map->what.architecture != next.architecture ||
                     map->what.training != next.training || !same_holders(map->what, next);
  if (!moved && now_us < next_hashes_us)
    return;
  next.version = map ? map->what.version : 0;
  if (!moved && next == map->what)
    return;
  next_hashes_us = now_us + hashes_every_us;
  next.version = next_version(highest_version);
  adopt(sign_map(*parts.identity, std::move(next)), now_us);
  publish_of_own(publish_kind::layer_map, map->blob);
}

void peer_manager_state::adopt(signed_map_ptr next, int64_t now_us) {
  const bool moved = !map || map->signer != next->signer || !same_holders(map->what, next->what);
  if (map && layers_of(map->what) == layers_of(next->what)) {
    const auto note = [&](const std::string& id) {
      const auto before = range_in(map->what, id), after = range_in(next->what, id);
      if (!before.empty() && !after.empty() && (before.begin != after.begin || before.end != after.end))
        moved_us[id] = now_us;
    };
    note(table.own().node_id);
    for (const auto& [id, peer] : table.entries())
      note(id);
  }
  map = std::move(next);
  highest_version = std::max(highest_version, map->what.version);
  if (moved)
    log::info(name, "layer-map version={} keeper={} complete={}", map->what.version, map->signer,
              complete(map->what));
  tell_placement(map->what, false);
}

peer_manager_state::heard peer_manager_state::consider_map(signed_blob blob, std::string_view from) {
  const int64_t now_us = parts.time->steady_us();
  auto read = read_map(std::move(blob), parts.time->unix_us() / 1'000);
  if (!read) {
    if (table.bad_blob(from, now_us))
      log::warn(name, "banned node={} why=\"passed on invalid layer maps\"", from);
    return heard::invalid;
  }
  const auto& next = **read;
  const auto& own_id = table.own().node_id;
  if (next.signer == own_id) { // of an earlier life, or back from others
    highest_version = std::max(highest_version, next.what.version);
    return heard::known;
  }
  if (map && map->signer == next.signer && map->what.version == next.what.version)
    return heard::known;
  if (!table.find(next.signer) || table.banned(next.signer, now_us))
    return heard::not_the_keepers;
  if (next.what.architecture != options.architecture || layers_of(next.what) != options.total_layers) {
    tell_placement(next.what, true);
    return heard::other_architecture;
  }
  const auto others = keeper_candidates();
  const auto by_rule = keeper_of(own_id, started_us, others, map ? map->signer : std::string_view{}, now_us);
  if (!supersedes(next, map, by_rule, keeper_is_settled(started_us, others, now_us)))
    return heard::not_the_keepers;
  adopt(std::move(*read), now_us);
  return heard::adopted;
}

/// A node that joins is a guest, also where its id makes it the keeper: what counts are the parameters of the
/// one it joined.
void peer_manager_state::note_seed_parameters(const signed_blob& blob) {
  if (map && !names_only(map->what, table.own().node_id))
    return;
  const auto read = read_map(blob, parts.time->unix_us() / 1'000);
  if (read && (*read)->what.architecture == options.architecture && !(*read)->what.training.empty())
    seed_parameters = (*read)->what.training;
}

void peer_manager_state::tell_placement(const layer_map& of, bool other_architecture) {
  if (!parts.placed)
    return;
  placement_changed now;
  if (!other_architecture) {
    const auto range = range_in(of, table.own().node_id);
    const auto self_node = as_placement_node(table.own(), true, true);
    now.layer_begin = range.begin;
    now.layer_end = range.end;
    // A keeper that takes this node for larger than it is does not make it so.
    while (now.layer_end > now.layer_begin &&
           !fits(self_node, now.layer_begin, now.layer_end, options.total_layers, options.costs))
      --now.layer_end;
    const bool some = now.layer_end > now.layer_begin;
    now.embed = range.embed && some;
    now.head = range.head && some && now.layer_end == range.end;
  }
  now.map_version = of.version;
  now.architecture = of.architecture;
  now.training = of.training;
  now.other_nodes = nodes_in(of) - (range_in(of, table.own().node_id).empty() ? 0 : 1);
  now.other_architecture = other_architecture;
  const auto same = [&](const placement_changed& before) {
    return before.layer_begin == now.layer_begin && before.layer_end == now.layer_end &&
           before.embed == now.embed && before.head == now.head && before.architecture == now.architecture &&
           before.training == now.training && before.other_nodes == now.other_nodes &&
           before.other_architecture == now.other_architecture;
  };
  if (told && same(*told))
    return;
  told = now;
  parts.placed(now);
}

void peer_manager_state::fetch_map(const std::string& node_id, uint64_t its_version, int64_t now_us) {
  const uint64_t held = map ? map->what.version : 0;
  // Two that made maps on their own may have come to the same version: then the keeper's counts, whatever its
  // number.
  const bool of_another = node_id == keeper && map && map->signer != keeper;
  const bool newer =
      its_version > held || (node_id == keeper && its_version != 0 && (of_another || its_version != held));
  const auto* peer = table.find(node_id);
  if (!newer || !peer || now_us < next_fetch_us)
    return;
  next_fetch_us = now_us + fetch_every_us;
  peer_address to{node_id, address_of_peer(*peer), peer->node->what.tls_cert_sha256};
  self->request(parts.link, caf::infinite,
                peer_call<get_layer_map_request>{std::move(to), {{}, of_another ? 0 : held}, map_budget_ms})
      .then(
          [this, node_id](get_layer_map_reply& reply) {
            if (reply.layer_map)
              consider_map(std::move(*reply.layer_map), node_id);
          },
          [](const caf::error&) {}); // the next heartbeat tells again
}

void peer_manager_state::fill_in_map(announce_reply& reply, std::string_view caller) const {
  if (!map)
    return;
  reply.layer_map = map->blob;
  const auto range = range_in(map->what, caller);
  reply.assigned_begin = range.begin;
  reply.assigned_end = range.end;
  reply.assigned_embedding = range.embed;
  reply.assigned_head = range.head;
}

caf::result<get_layer_map_reply> peer_manager_state::layer_map_for(const get_layer_map_request& from) const {
  if (!connected_to_others())
    return refuse(errc::unavailable, "This node takes part in no network.");
  get_layer_map_reply reply;
  reply.not_modified = map && map->what.version == from.known_version;
  if (map && !reply.not_modified)
    reply.layer_map = map->blob;
  return reply;
}

} // namespace neuroshard
