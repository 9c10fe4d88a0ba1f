#include "actors/peer_manager/peer_manager.hpp"

#include "actors/common/log.hpp"
#include "actors/peer_manager/node_info.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

using namespace peer_rules;

constexpr auto tick_period = std::chrono::seconds(1);
constexpr uint32_t call_budget_ms = 5'000;
constexpr uint32_t leave_budget_ms = 1'000;
constexpr int64_t search_every_us = 30 * second_us;
constexpr int64_t seed_wait_max_us = 60 * second_us;
/// A stored peer that does not answer is asked now and then for as long as it is kept.
constexpr uint32_t stored_tries = 10;
constexpr int64_t stored_wait_us = 600 * second_us;
constexpr size_t agreeing_observers = 2;
constexpr size_t observers_max = 64;

constexpr const char* state_names[] = {"new", "online", "stale", "dead", "banned"};

const char* name_of(peer_state state) noexcept {
  return state_names[static_cast<size_t>(state)];
}

caf::error refused_peer(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  return refuse(code, std::move(what));
}

} // namespace

void peer_manager_state::start(peer_manager_parts with, peer_manager_options how) {
  parts = std::move(with);
  options = std::move(how);
  table = peer_table{options.own, options.total_layers};
  for (const auto& address : options.seed_peers)
    seeds.push_back({address, {}, 0, 0, false});
  started_us = parts.time->steady_us();
  if (parts.identity)
    sign_own();
  begin_store();
}

void peer_manager_state::sign_own() {
  own = sign_node(*parts.identity, table.own());
}

void peer_manager_state::change_own(node_description what) {
  const auto& old = table.own();
  if (what.host.empty())
    what.host = old.host;
  what.sequence = old.sequence;
  if (what == old)
    return;
  // Begins at unix microseconds; a clock that was set back must not make the newer record the older one.
  what.sequence =
      std::max(old.sequence + 1, static_cast<uint64_t>(std::max<int64_t>(0, parts.time->unix_us())));
  table.set_own(std::move(what));
  if (parts.identity)
    sign_own();
}

// ------------------------------------------------------------------------------------- what others ask

caf::expected<signed_node_ptr> peer_manager_state::met(const signed_blob& node, const connection_end& end) {
  if (!connected_to_others())
    return refused_peer(errc::unavailable, "alone", "This node takes part in no network.");
  const int64_t now_us = parts.time->steady_us();
  auto read = read_node(node, parts.time->unix_us() / 1'000);
  if (!read) {
    // Only one whose certificate is bound can be blamed.
    if (!end.node_id.empty() && code_of(read.error()) == errc::unauthorized)
      table.bad_blob(end.node_id, now_us);
    return read.error();
  }
  const auto& what = (*read)->what;
  if (!end.node_id.empty() && end.node_id != what.node_id)
    return refused_peer(errc::unauthorized, "wrong_signer", "This connection belongs to another node.");
  if (end.tls_cert_sha256 && what.tls_cert_sha256 != end.tls_cert_sha256)
    return refused_peer(errc::unauthorized, "wrong_certificate",
                        "The certificate of this connection is not the one in the node's record.");
  if (what.economics_hash && table.own().economics_hash && what.economics_hash != table.own().economics_hash)
    return refused_peer(errc::forbidden, "economics", "The two nodes have different economics.");
  if (auto in = table.meet(*read, end.host, now_us, parts.time->unix_us()); !in)
    return in.error();
  if (met_us == 0)
    met_us = now_us;
  return read;
}

void peer_manager_state::learn(std::vector<signed_blob>& records, std::string_view from) {
  const int64_t now_us = parts.time->steady_us();
  for (auto& blob : records) {
    const auto read = read_node(std::move(blob), parts.time->unix_us() / 1'000);
    if (!read) {
      if (code_of(read.error()) == errc::unauthorized && table.bad_blob(from, now_us))
        log::warn(name, "banned node={} why=\"passed on records with bad signatures\"", from);
      continue;
    }
    if (table.learn(*read, now_us) == peer_table::learned::added)
      log::info(name, "heard-of node={} from={}", (*read)->what.node_id, from);
  }
}

caf::result<announce_reply> peer_manager_state::announced(announce_request& from) {
  if (from.known_peers.size() > known_peers_max)
    return refused_peer(errc::invalid_request, "too_many", "At most 20 known peers are announced.");
  const auto before = table.count(peer_state::online);
  auto node = met(from.node, from.from);
  if (!node)
    return node.error();
  const auto& id = (*node)->what.node_id;
  if (table.count(peer_state::online) > before)
    log::info(name, "peer-up node={} address={}", id, address_of_peer(*table.find(id)));
  learn(from.known_peers, id);
  announce_reply reply;
  reply.self = own->blob;
  auto* known = table.find(id);
  auto [records, upto] = table.changed_since(0, id, told_peers_max);
  reply.peers = std::move(records);
  if (known) { // unless what it passed on has banned it
    known->told = upto;
    known->told_sequence = table.own().sequence;
  }
  fill_in_map(reply, id);
  reply.observed_host = from.from.host;
  reply.heartbeat_interval_ms = static_cast<uint32_t>(heartbeat_us / 1'000);
  reply.bound_node_id = id;
  reply.bound_sequence = (*node)->what.sequence;
  return reply;
}

caf::result<heartbeat_reply> peer_manager_state::heartbeat(const heartbeat_request& from) {
  auto node = met(from.node, from.from);
  if (!node)
    return node.error();
  if (!std::isfinite(from.training.loss) || from.training.loss < 0)
    return refused_peer(errc::invalid_request, "loss", "The loss of a node's training is not a number.");
  auto& peer = *table.find((*node)->what.node_id);
  peer.training = from.training;
  heartbeat_reply reply;
  reply.map_version = map ? map->what.version : 0;
  auto [records, upto] = table.changed_since(peer.told, (*node)->what.node_id, told_peers_max);
  reply.delta = std::move(records);
  peer.told = upto;
  return reply;
}

caf::result<find_peers_reply> peer_manager_state::find_peers(const find_peers_request& from) {
  if (!connected_to_others())
    return refused_peer(errc::unavailable, "alone", "This node takes part in no network.");
  auto wanted = from;
  wanted.exclude.push_back(from.from.node_id); // it knows itself
  return find_peers_reply{table.select(wanted)};
}

caf::result<ping_reply> peer_manager_state::pinged(ping_request& from) {
  if (!connected_to_others())
    return refused_peer(errc::unavailable, "alone", "This node takes part in no network.");
  ping_reply reply;
  reply.received_unix_us = parts.time->unix_us();
  if (from.node) {
    auto node = met(*from.node, from.from);
    if (!node)
      return node.error();
    reply.bound_node_id = (*node)->what.node_id;
    reply.bound_sequence = (*node)->what.sequence;
  }
  reply.self = own->blob;
  reply.payload = std::move(from.payload);
  reply.state = leaving ? "draining" : table.own().training ? "training" : "running";
  reply.sent_unix_us = parts.time->unix_us();
  return reply;
}

void peer_manager_state::left(const leave_request& from) {
  if (!table.leave(from.from.node_id, parts.time->steady_us()))
    return;
  log::info(name, "peer-left node={}", from.from.node_id);
  gone(from.from.node_id, parts.time->steady_us() + seed_wait_max_us); // it needs a while to end
  scores.forget(from.from.node_id);
  if (parts.link)
    self->send(parts.link, forget_peer{from.from.node_id});
}

// ----------------------------------------------------------------------------------- what this node asks

caf::result<model_route> peer_manager_state::route(const route_request& wanted) {
  uint64_t random = 0;
  parts.random->fill(&random, sizeof random);
  auto found = table.route(wanted, scores, parts.time->steady_us(), random);
  if (!found) { // what this node itself holds may be newer than the last tick
    refresh_own();
    found = table.route(wanted, scores, parts.time->steady_us(), random);
  }
  if (!found)
    return found.error();
  found->model_hash = model_hash_of(wanted.model_version);
  return std::move(*found);
}

void peer_manager_state::hop_ended(const hop_outcome& of) {
  if (table.find(of.node_id) && static_cast<size_t>(of.what) < request_classes)
    scores.note(of, parts.time->steady_us());
}

/// Others place, route and compare by this: they hear of it with the next tick, not the next heartbeat.
static bool matters_at_once(const node_description& was, const node_description& is) {
  return was.layer_begin != is.layer_begin || was.layer_end != is.layer_end ||
         was.has_embedding != is.has_embedding || was.has_lm_head != is.has_lm_head ||
         was.accepting != is.accepting || was.model_version != is.model_version || was.units != is.units;
}

void peer_manager_state::refresh_own() {
  if (!parts.refresh)
    return;
  const int64_t now_us = parts.time->steady_us();
  auto now = table.own();
  parts.refresh(now, training);
  const bool urgent = matters_at_once(table.own(), now);
  change_own(std::move(now));
  if (urgent)
    for (const auto& [id, peer] : table.entries())
      table.find(id)->next_call_us = now_us;
}

void peer_manager_state::tick() {
  if (!connected_to_others() || leaving)
    return;
  const int64_t now_us = parts.time->steady_us();
  for (const auto& change : table.tick(now_us)) {
    log::info(name, "peer-{} node={} was={}", name_of(change.to), change.node_id, name_of(change.from));
    if (change.to != peer_state::dead)
      continue;
    seen_as.erase(change.node_id);
    gone(change.node_id, now_us);
    scores.forget(change.node_id);
    self->send(parts.link, forget_peer{change.node_id});
  }
  refresh_own();
  try_seeds(now_us);
  try_stored(now_us);
  call_peers(now_us);
  search(now_us);
  keep_stored(now_us);
  keep_directory(now_us);
  keep_map(now_us);
}

peer_manager_state::seed* peer_manager_state::seed_at(std::string_view address) {
  const auto at = std::find_if(seeds.begin(), seeds.end(), [&](auto& one) { return one.address == address; });
  if (at != seeds.end())
    return &*at;
  for (auto& [id, one] : stored)
    if (one.at.address == address && one.at.asked)
      return &one.at;
  return nullptr;
}

void peer_manager_state::try_seeds(int64_t now_us) {
  for (auto& one : seeds) {
    if (!one.node_id.empty() && table.find(one.node_id))
      continue; // kept in touch with as everybody
    one.node_id.clear();
    if (one.asked || now_us < one.next_try_us)
      continue;
    one.asked = true;
    announce_to({{}, one.address, {}}, one.address);
  }
}

void peer_manager_state::call_peers(int64_t now_us) {
  size_t in_touch = table.count(peer_state::online) + table.count(peer_state::stale);
  std::vector<std::string> due;
  for (const auto& [id, peer] : table.entries()) {
    if (now_us < peer.next_call_us || peer.state == peer_state::banned)
      continue;
    if (peer.state == peer_state::fresh && in_touch++ >= options.peers_max)
      continue;
    due.push_back(id);
  }
  for (const auto& id : due) {
    auto& peer = *table.find(id);
    // +-10 %, so that a network that was started at once does not call at once for ever.
    uint32_t random = 0;
    parts.random->fill(&random, sizeof random);
    peer.next_call_us = now_us + heartbeat_us * 9 / 10 + random % (heartbeat_us / 5);
    const auto address = address_of_peer(peer);
    if (address.empty())
      continue; // it calls us
    if (peer.state == peer_state::fresh)
      announce_to({id, address, peer.node->what.tls_cert_sha256}, {});
    else
      heartbeat_to(id, peer);
  }
}

void peer_manager_state::announce_to(const peer_address& to, std::string seed_address) {
  announce_request call;
  call.node = own->blob;
  call.known_peers = table.changed_since(0, to.node_id, known_peers_max).first;
  const int64_t sent_us = parts.time->steady_us();
  self->request(parts.link, caf::infinite, peer_call<announce_request>{to, std::move(call), call_budget_ms})
      .then([this, to, seed_address,
             sent_us](announce_reply& reply) { announce_answered(to, seed_address, reply, sent_us); },
            [this, to, seed_address](const caf::error& why) {
              const auto what = problem_of(why);
              const int64_t now_us = parts.time->steady_us();
              if (auto* seed = seed_at(seed_address)) {
                seed->asked = false;
                seed->next_try_us =
                    now_us + std::min(seed_wait_max_us, second_us << std::min(seed->tries, 6U));
                if (seed < seeds.data() || seed >= seeds.data() + seeds.size()) { // of the stored table
                  if (++seed->tries >= stored_tries)
                    seed->next_try_us = now_us + stored_wait_us;
                  log::debug(name, "stored-peer-not-met address={} why=\"{}\"", seed_address, what.message);
                  return;
                }
                // Once, and then only now and then: a seed may be down for days.
                if (seed->tries++ % 10 == 0)
                  log::warn(name, "seed-not-joined address={} why=\"{}\"", seed_address, what.message);
                return;
              }
              log::debug(name, "peer-not-met node={} address={} why=\"{}\"", to.node_id, to.address,
                         what.message);
              table.failed(to.node_id, now_us);
            });
}

void peer_manager_state::announce_answered(const peer_address& to, const std::string& seed_address,
                                           announce_reply& reply, int64_t sent_us) {
  const int64_t now_us = parts.time->steady_us();
  auto* seed = seed_at(seed_address);
  if (seed)
    seed->asked = false;
  auto end = reply.by;
  end.node_id = to.node_id;
  const auto before = table.count(peer_state::online);
  const auto node = met(reply.self, end);
  if (!node) {
    log::warn(name, "peer-refused address={} why=\"{}\"", to.address, problem_of(node.error()).message);
    if (seed)
      seed->next_try_us = now_us + seed_wait_max_us;
    table.failed(to.node_id, now_us);
    return;
  }
  const std::string id = (*node)->what.node_id;
  if (table.count(peer_state::online) > before)
    log::info(name, "peer-up node={} address={}", id, to.address);
  table.answered(id, static_cast<double>(now_us - sent_us), now_us);
  if (auto* peer = table.find(id)) {
    peer->told_sequence = table.own().sequence;
    uint32_t random = 0;
    parts.random->fill(&random, sizeof random);
    peer->next_call_us = now_us + heartbeat_us * 9 / 10 + random % (heartbeat_us / 5);
  }
  if (seed) {
    seed->node_id = id;
    seed->tries = 0;
  }
  if (reply.peers.size() <= told_peers_max)
    learn(reply.peers, id);
  if (reply.layer_map) {
    if (seed)
      note_seed_parameters(*reply.layer_map);
    consider_map(std::move(*reply.layer_map), id);
  }
  told_own_host(id, reply.observed_host);
}

void peer_manager_state::heartbeat_to(const std::string& node_id, peer_table::entry& peer) {
  heartbeat_request call;
  call.node = own->blob;
  call.training = training;
  call.map_version = map ? map->what.version : 0;
  const uint64_t sequence = table.own().sequence;
  const int64_t sent_us = parts.time->steady_us();
  peer_address to{node_id, address_of_peer(peer), peer.node->what.tls_cert_sha256};
  self->request(parts.link, caf::infinite,
                peer_call<heartbeat_request>{std::move(to), std::move(call), call_budget_ms})
      .then(
          [this, node_id, sent_us, sequence](heartbeat_reply& reply) {
            const int64_t now_us = parts.time->steady_us();
            table.answered(node_id, static_cast<double>(now_us - sent_us), now_us);
            if (auto* known = table.find(node_id))
              known->told_sequence = sequence;
            if (reply.delta.size() <= told_peers_max)
              learn(reply.delta, node_id);
            fetch_map(node_id, reply.map_version, now_us);
          },
          [this, node_id](const caf::error& why) {
            const auto what = problem_of(why);
            log::debug(name, "heartbeat-failed node={} why=\"{}\"", node_id, what.message);
            table.failed(node_id, parts.time->steady_us());
            const auto* known = table.find(node_id);
            if (known && what.reason == "announce_first") // it has been started anew, or had given us up
              announce_to({node_id, address_of_peer(*known), known->node->what.tls_cert_sha256}, {});
          });
}

/// Two that agree are believed; a single one too, while nobody says otherwise: a network of two has no
/// second.
void peer_manager_state::told_own_host(const std::string& by, const std::string& host) {
  if (host.empty() || !options.own.host.empty() || !options.may_listen_anywhere)
    return;
  if (seen_as.size() < observers_max || seen_as.contains(by))
    seen_as[by] = host;
  std::map<std::string, size_t> votes;
  for (const auto& [who, what] : seen_as)
    ++votes[what];
  const auto most = std::max_element(votes.begin(), votes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most->second < agreeing_observers && seen_as.size() > 1)
    return;
  auto changed = table.own();
  if (changed.host == most->first)
    return;
  changed.host = most->first;
  log::info(name, "own-address host={} observers={}", changed.host, most->second);
  change_own(std::move(changed));
}

/// A node with few peers asks one of them, now and then, whom it knows.
void peer_manager_state::search(int64_t now_us) {
  if (now_us < next_search_us || table.entries().size() >= options.peers_min)
    return;
  next_search_us = now_us + search_every_us;
  if (parts.directory)
    parts.directory->look();
  std::vector<const std::pair<const std::string, peer_table::entry>*> online;
  for (const auto& one : table.entries())
    if (one.second.state == peer_state::online && !address_of_peer(one.second).empty())
      online.push_back(&one);
  if (online.empty())
    return;
  uint32_t random = 0;
  parts.random->fill(&random, sizeof random);
  const auto& [id, peer] = *online[random % online.size()];
  find_peers_request call;
  call.limit = told_peers_max;
  for (const auto& [known, entry] : table.entries())
    call.exclude.push_back(known);
  peer_address to{id, address_of_peer(peer), peer.node->what.tls_cert_sha256};
  self->request(parts.link, caf::infinite,
                peer_call<find_peers_request>{std::move(to), std::move(call), call_budget_ms})
      .then(
          [this, id = id](find_peers_reply& reply) {
            if (reply.peers.size() <= told_peers_max)
              learn(reply.peers, id);
          },
          [](const caf::error&) {}); // asked again in half a minute
}

void peer_manager_state::leave(caf::typed_response_promise<caf::unit_t> done) {
  leaving = true;
  const auto open = std::make_shared<size_t>(1);
  const auto answered = [open, done] {
    if (--*open == 0)
      caf::typed_response_promise<caf::unit_t>{done}.deliver(caf::unit);
  };
  for (const auto& [id, peer] : table.entries()) {
    const auto address = address_of_peer(peer);
    if (peer.state != peer_state::online || address.empty() || !parts.link)
      continue;
    ++*open;
    peer_address to{id, address, peer.node->what.tls_cert_sha256};
    self->request(parts.link, caf::infinite,
                  peer_call<leave_request>{std::move(to), {{}, "shutdown"}, leave_budget_ms})
        .then(answered, [answered](const caf::error&) { answered(); });
  }
  if (store) {
    ++*open;
    self->request(store, caf::infinite, what_to_store()).then(answered, [answered](const caf::error&) {
      answered();
    });
  }
  answered();
}

actor_status peer_manager_state::status() const {
  return {name,
          actor_status::health::ok,
          "",
          {{"peers", std::to_string(table.entries().size())},
           {"online", std::to_string(table.count(peer_state::online))},
           {"map_version", std::to_string(map ? map->what.version : 0)}}};
}

peer_manager_actor::behavior_type peer_manager(peer_manager_actor::stateful_pointer<peer_manager_state> self,
                                               peer_manager_parts parts, peer_manager_options options) {
  self->state.self = self;
  self->state.start(std::move(parts), std::move(options));
  self->send(self, tick_atom_v);
  return {
      [self](node_description& own) { self->state.change_own(std::move(own)); },
      [self](peers_atom) -> peer_list_ptr { return self->state.table.peers(); },
      [self](const route_request& request) { return self->state.route(request); },
      [self](const hop_outcome& of) { self->state.hop_ended(of); },
      [self](const peer_refused& what) { self->state.table.refused(what); },
      [self](publish_sink& sink) { self->state.publish_sinks[sink.kind] = std::move(sink.to); },
      [self](publish_own& what) { self->state.publish_of_own(what.kind, std::move(what.blob)); },
      [self](const found_record& what) { self->state.found_in_directory(what); },
      [self](const seen_in_directory& as) { self->state.told_own_host("the directory", as.host); },
      [self](announce_request& from) { return self->state.announced(from); },
      [self](const heartbeat_request& from) { return self->state.heartbeat(from); },
      [self](const leave_request& from) { self->state.left(from); },
      [self](const find_peers_request& from) { return self->state.find_peers(from); },
      [self](ping_request& from) { return self->state.pinged(from); },
      [self](const get_layer_map_request& from) { return self->state.layer_map_for(from); },
      [self](publish_request& from) { return self->state.publish(from); },
      [self](leave_atom) -> caf::result<void> {
        auto done = self->make_response_promise<caf::unit_t>();
        self->state.leave(done);
        return done;
      },
      [self](tick_atom) {
        self->state.tick();
        self->delayed_send(self, tick_period, tick_atom_v);
      },
      [self](status_atom) { return self->state.status(); },
  };
}

} // namespace neuroshard
