#include "tests/simulation/peer_node.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

namespace neuroshard::simulation {

namespace {

constexpr int64_t born_unix_ms = 1'800'000'000'000;

/// Made once: a key takes longer than a message.
std::shared_ptr<const node_identity> simulated_identity(unsigned number) {
  static std::map<unsigned, std::shared_ptr<const node_identity>> made;
  auto& one = made[number];
  if (!one) {
    auto token = parse_token(std::string(60, 'c') + std::to_string(1'000 + number));
    auto identity =
        token ? node_identity::make(*token, 0, born_unix_ms) : caf::expected<node_identity>(token.error());
    if (!identity)
      throw std::runtime_error("no identity");
    one = std::make_shared<const node_identity>(std::move(*identity));
  }
  return one;
}

const peer_info* record_of(const peer_list& in, const std::string& id) {
  const auto at = std::find_if(in.begin(), in.end(), [&](const auto& one) { return one.node.node_id == id; });
  return at == in.end() ? nullptr : &*at;
}

std::string address_in(const node_description& node) {
  return node.host + ":" + std::to_string(node.grpc_port);
}

} // namespace

std::unique_ptr<peer_node> make_peer_node(world& in, unsigned number) {
  auto made = std::make_unique<peer_node>();
  made->number = number;
  made->identity = simulated_identity(number);
  made->address = "10.0.0." + std::to_string(number) + ":9000";
  made->clock = std::make_shared<skewed_clock>(in.clock(), in.random().between(-10, 10) * second_us);
  auto& own = made->options.own;
  own.node_id = made->id();
  own.wallet_address = made->identity->address();
  own.host = "10.0.0." + std::to_string(number);
  own.grpc_port = 9'000;
  own.tls_cert_sha256 = kernels::sha256::of("certificate of " + made->id());
  own.roles = {node_role::driver, node_role::worker};
  own.memory_total_mb = 1'000;
  own.accepting = true;
  return made;
}

void start_peers(world& in, network& on, peer_node& node,
                 std::function<void(const placement_changed&)> placed) {
  node.up = true;
  ++node.life;
  node.sequence = static_cast<uint64_t>(node.clock->unix_us());
  auto options = node.options;
  options.own.sequence = node.sequence;
  node.address = address_in(options.own);
  auto& at = on.connect({node.id(), node.address, options.own.tls_cert_sha256, {}, {}, {}, {}});
  peer_manager_parts parts;
  parts.link = at.link;
  parts.identity = node.identity;
  parts.time = node.clock;
  parts.random = std::make_shared<dice_random>(in.random().fork());
  parts.refresh = [board = node.board](node_description& own, training_report& report) {
    own.layer_begin = board->held.begin;
    own.layer_end = board->held.end;
    own.has_embedding = board->held.embed;
    own.has_lm_head = board->held.head;
    own.units = board->units;
    own.model_version = board->model_version;
    own.training = board->training;
    report = board->report;
  };
  parts.placed = std::move(placed);
  parts.exchanging = [board = node.board] { return board->exchanging; };
  node.manager = in.keep(in.system().spawn(peer_manager, std::move(parts), std::move(options)));
  at.manager = node.manager;
  node.actors = {caf::actor_cast<caf::strong_actor_ptr>(at.link),
                 caf::actor_cast<caf::strong_actor_ptr>(node.manager)};
  in.note("node {} starts, life {}, {}", node.number, node.life, node.address);
}

void crash(world& in, network& on, peer_node& node) {
  in.note("node {} ends", node.number);
  in.kill(node.actors);
  node.actors.clear();
  on.disconnect(node.address);
  node.up = false;
}

std::string strangers_among(world& in, const std::vector<std::unique_ptr<peer_node>>& nodes) {
  for (const auto& one : nodes) {
    if (!one->up)
      continue;
    const auto seen = in.ask<peer_list_ptr>(one->manager, peers_atom_v);
    if (!seen)
      return fmt::format("node {} does not answer", one->number);
    size_t there = 0;
    for (const auto& other : nodes) {
      if (!other->up || other == one)
        continue;
      ++there;
      const auto* record = record_of(**seen, other->id());
      if (record == nullptr || record->state != peer_state::online)
        return fmt::format("node {} does not see node {} as ONLINE", one->number, other->number);
      if (record->node.sequence < other->sequence || address_in(record->node) != other->address)
        return fmt::format("node {} holds an old record of node {}", one->number, other->number);
    }
    if ((*seen)->size() != there)
      return fmt::format("node {} knows {} others where {} are up", one->number, (*seen)->size(), there);
  }
  return {};
}

std::string maps_among(world& in, const std::vector<std::unique_ptr<peer_node>>& nodes) {
  std::set<std::string> up;
  for (const auto& one : nodes)
    if (one->up)
      up.insert(one->id());
  signed_map_ptr first;
  uint64_t capacity = 0;
  for (const auto& one : nodes) {
    if (!one->up)
      continue;
    const uint32_t total = one->options.total_layers;
    capacity += one->options.own.max_layers == 0 ? total : one->options.own.max_layers;
    auto reply = in.ask<get_layer_map_reply>(one->manager, get_layer_map_request{});
    if (!reply || !reply->layer_map)
      return fmt::format("node {} holds no map", one->number);
    const auto map = read_map(*reply->layer_map, in.clock()->unix_us() / 1'000);
    if (!map)
      return fmt::format("node {} holds a map that cannot be read", one->number);
    if (first && ((*map)->signer != first->signer || (*map)->what != first->what))
      return fmt::format("node {} holds version {} of {}, others {} of {}", one->number, (*map)->what.version,
                         (*map)->signer.substr(0, 4), first->what.version, first->signer.substr(0, 4));
    first = *map;
    if (const auto range = range_in((*map)->what, one->id()); range != one->board->held)
      return fmt::format("node {} holds [{}, {}) and is to hold [{}, {})", one->number,
                         one->board->held.begin, one->board->held.end, range.begin, range.end);
  }
  if (!first || up.empty())
    return {};
  if (first->signer != *up.begin())
    return fmt::format("the keeper is {}, not the lowest {}", first->signer.substr(0, 4),
                       up.begin()->substr(0, 4));
  for (const auto& unit : first->what.layers)
    for (const auto& holder : unit.holders)
      if (!up.contains(holder))
        return fmt::format("{} is given to {}, who is gone", unit.unit, holder.substr(0, 4));
  if (capacity >= layers_of(first->what) && !complete(first->what))
    return "there is room for all layers, and not all have a holder";
  return {};
}

} // namespace neuroshard::simulation
