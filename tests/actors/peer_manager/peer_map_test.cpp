// The layer map, routes and gossip between whole peer managers.
#include "actors/peer_manager/layer_map.hpp"
#include "tests/actors/peer_manager/peer_fixture.hpp"
#include "tests/support/ask.hpp"

#include <algorithm>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct map_fixture : peer_fixture {
  /// The map that a node holds, as it tells others.
  layer_map map_of(const member& of) {
    const auto reply = ask<get_layer_map_reply>(*this, of.manager, get_layer_map_request{});
    if (!reply || !reply->layer_map)
      return {};
    const auto read = read_map(*reply->layer_map, clock->unix_us() / 1'000);
    REQUIRE(static_cast<bool>(read));
    signer = (*read)->signer;
    return (*read)->what;
  }
  std::string signer; ///< of the map read last

  void announces(const member& of, unsigned number, uint32_t begin, uint32_t end, uint64_t version = 0) {
    auto node = description_of(*of.who, "10.0.0." + std::to_string(number));
    node.layer_begin = begin;
    node.layer_end = end;
    node.has_embedding = begin == 0;
    node.has_lm_head = end == 6;
    node.accepting = true;
    node.model_version = version;
    CHECK(ask<caf::unit_t>(*this, of.manager, node));
  }
  std::string lowest() const {
    std::string id;
    for (const auto& one : members)
      if (id.empty() || one.who->node_id() < id)
        id = one.who->node_id();
    return id;
  }
  publish_request round_end_by(const node_identity& who, std::string payload, uint32_t ttl) {
    publish_request call;
    call.kind = publish_kind::round_end;
    call.id = kernels::sha256::of(payload);
    call.blob = who.sign_as_node("neuroshard-round-v1", std::move(payload));
    call.ttl = ttl;
    return call;
  }
};

publish_listener::behavior_type listen(publish_listener::pointer,
                                       std::shared_ptr<std::vector<published>> to) {
  return {[to](published& one) { to->push_back(std::move(one)); }};
}

} // namespace

TEST_CASE_FIXTURE(map_fixture, "a node alone keeps its own map") {
  const auto a = join(1, {});
  run_s(2);
  const auto map = map_of(a);
  CHECK(map.version == 1);
  CHECK(signer == a.who->node_id());
  CHECK(range_in(map, a.who->node_id()) == held_range{0, 6, true, true});
  run_s(60);
  CHECK(map_of(a).version == 1); // nothing has changed
}

TEST_CASE_FIXTURE(map_fixture, "nodes that meet hold one map within seconds, later the lowest id's") {
  for (unsigned i = 1; i <= 4; ++i)
    join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1)});
  run_s(15);
  auto map = map_of(members[0]);
  CHECK(map.layers[1].holders.size() == 4);
  for (const auto& one : members)
    CHECK(map_of(one) == map);
  run_s(70);
  map = map_of(members[0]);
  CHECK(signer == lowest());
  for (const auto& one : members)
    CHECK(map_of(one) == map);
}

TEST_CASE_FIXTURE(map_fixture, "a late joiner hears of the map and its part in it with its announcement") {
  const auto a = join(1, {});
  run_s(70);
  const auto who = identity_of(2);
  const auto node = description_of(*who, "10.0.0.2");
  const announce_request call{{"", "10.0.0.2", node.tls_cert_sha256}, sign_node(*who, node)->blob, {}};
  auto reply = ask<announce_reply>(*this, a.manager, call);
  REQUIRE(reply->layer_map.has_value());
  CHECK(reply->assigned_end == 0); // not in it yet
  run_s(1);
  reply = ask<announce_reply>(*this, a.manager, call);
  CHECK(reply->assigned_end == 6);
  CHECK(reply->assigned_embedding);
  CHECK(reply->assigned_head);
  const auto again = ask<get_layer_map_reply>(*this, a.manager, get_layer_map_request{{}, 2});
  CHECK(again->not_modified);
  CHECK_FALSE(again->layer_map.has_value());
}

TEST_CASE_FIXTURE(map_fixture, "a blip moves nothing; one that is dead is left out of the map") {
  for (unsigned i = 1; i <= 3; ++i)
    join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1)});
  run_s(80);
  const auto at =
      static_cast<size_t>(std::find_if(members.begin(), members.end(),
                                       [&](const auto& one) { return one.who->node_id() != lowest(); }) -
                          members.begin());
  const auto& watched = *std::find_if(members.begin(), members.end(),
                                      [&](const auto& one) { return one.who->node_id() == lowest(); });
  const auto before = map_of(watched);
  network->down.insert(members[at].address);
  run_s(30);
  CHECK(map_of(watched) == before);
  run_s(45);
  const auto after = map_of(watched);
  CHECK(after.version > before.version);
  CHECK(range_in(after, members[at].who->node_id()).empty());
  CHECK(after.layers[1].holders.size() == 2);
}

TEST_CASE_FIXTURE(map_fixture, "when the keeper is gone the next lowest goes on, one version higher") {
  for (unsigned i = 1; i <= 3; ++i)
    join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1), address(2)});
  run_s(80);
  const auto keeper = lowest();
  const auto at = std::find_if(members.begin(), members.end(),
                               [&](const auto& one) { return one.who->node_id() == keeper; });
  const auto before = map_of(*at);
  network->down.insert(at->address);
  run_s(75);
  members.erase(at);
  const auto after = map_of(members[0]);
  CHECK(signer == lowest());
  CHECK(after.version > before.version);
  CHECK(range_in(after, keeper).empty());
  CHECK(map_of(members[1]) == after);
}

TEST_CASE_FIXTURE(map_fixture, "two halves of a network come back to one map") {
  for (unsigned i = 1; i <= 2; ++i)
    join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1)});
  run_s(80);
  network->down.insert(address(2));
  run_s(120);
  network->down.clear();
  run_s(150);
  const auto map = map_of(members[0]);
  CHECK(signer == lowest());
  CHECK(map.layers[1].holders.size() == 2);
  CHECK(map_of(members[1]) == map);
}

TEST_CASE_FIXTURE(map_fixture,
                  "the node is told its part when that changes, and of networks unlike its own") {
  std::vector<placement_changed> told;
  const auto who = identity_of(7);
  peer_manager_options options;
  options.own = description_of(*who, "10.0.0.7");
  options.own.max_layers = 4;
  options.total_layers = 6;
  options.architecture = "{}";
  options.seed_peers = {address(1)};
  const auto link = keep(sys.spawn(network_link, network, address(7)));
  peer_manager_parts parts{link, who, clock, std::make_shared<counting_random>(7)};
  parts.placed = [&](const placement_changed& now) { told.push_back(now); };
  const auto manager = keep(sys.spawn(peer_manager, parts, options));
  network->hosts[address(7)] = {manager, who->node_id(), address(7), options.own.tls_cert_sha256, {}};
  run_s(3);
  REQUIRE(told.size() == 1);
  CHECK(told[0].layer_end - told[0].layer_begin <= 4); // it alone, within its own limit
  CHECK(told[0].architecture == "{}");
  CHECK_FALSE(told[0].other_architecture);
  const auto a = join(1, {}); // names no architecture
  run_s(75);
  REQUIRE(told.size() >= 2);
  CHECK(told[1].other_architecture);
  CHECK(told[1].layer_end == 0);
  CHECK(range_in(map_of({who, address(7), manager}), a.who->node_id()).begin == 0);
}

TEST_CASE_FIXTURE(map_fixture, "a map of one node has its own parameters, and a network keeps those it has") {
  std::string own = R"({"batch_size":1})";
  std::vector<placement_changed> told;
  const auto who = identity_of(7);
  peer_manager_options options;
  options.own = description_of(*who, "10.0.0.7");
  options.total_layers = 6;
  const auto link = keep(sys.spawn(network_link, network, address(7)));
  peer_manager_parts parts{link, who, clock, std::make_shared<counting_random>(7)};
  parts.network_parameters = [&] { return own; };
  parts.placed = [&](const placement_changed& now) { told.push_back(now); };
  const auto manager = keep(sys.spawn(peer_manager, parts, options));
  network->hosts[address(7)] = {manager, who->node_id(), address(7), options.own.tls_cert_sha256, {}};
  run_s(65);
  const member first{who, address(7), manager};
  CHECK(map_of(first).training == own);
  REQUIRE_FALSE(told.empty());
  CHECK(told.back().other_nodes == 0);
  own = R"({"batch_size":2})"; // changed by its operator
  run_s(12);
  CHECK(map_of(first).training == own);
  const auto b = join(2, {address(7)});
  run_s(10);
  CHECK(map_of(b).training == R"({"batch_size":2})");
  CHECK(told.back().other_nodes == 1);
  own = R"({"batch_size":3})";
  run_s(80); // also when another keeps the map
  CHECK(map_of(b).training == R"({"batch_size":2})");
  CHECK(map_of(first).training == R"({"batch_size":2})");
}

TEST_CASE_FIXTURE(map_fixture, "of two nodes that have just begun, the parameters of the seed count") {
  const auto begin = [&](unsigned number, std::vector<std::string> seeds) {
    peer_manager_options options;
    const auto who = identity_of(number);
    options.own = description_of(*who, "10.0.0." + std::to_string(number));
    options.total_layers = 6;
    options.seed_peers = std::move(seeds);
    peer_manager_parts parts{keep(sys.spawn(network_link, network, address(number))), who, clock,
                             std::make_shared<counting_random>(number)};
    parts.network_parameters = [number] { return std::to_string(number); };
    const member made{who, address(number), keep(sys.spawn(peer_manager, parts, options))};
    network->hosts[address(number)] = {
        made.manager, who->node_id(), address(number), options.own.tls_cert_sha256, {}};
    return made;
  };
  const auto in_order = [](unsigned a, unsigned b) {
    return identity_of(a)->node_id() < identity_of(b)->node_id() ? std::pair{a, b} : std::pair{b, a};
  };
  const auto [lower, higher] = in_order(3, 4); // the guest's id makes it the keeper
  for (const auto& [seed, guest] : {in_order(1, 2), std::pair{higher, lower}}) {
    CAPTURE(seed);
    const auto first = begin(seed, {});
    run_s(3);
    const auto second = begin(guest, {address(seed)});
    run_s(20);
    CHECK(map_of(first).training == std::to_string(seed));
    CHECK(map_of(second).training == std::to_string(seed));
    run_s(90); // whoever keeps it then
    CHECK(map_of(first).training == std::to_string(seed));
    CHECK(map_of(second).training == std::to_string(seed));
  }
}

TEST_CASE_FIXTURE(map_fixture,
                  "the map carries the hash of a unit that more than half of its holders announce") {
  const auto a = join(1, {});
  const auto hash = kernels::sha256::of("layer 0");
  auto node = description_of(*a.who, "10.0.0.1");
  node.accepting = true;
  node.model_version = 3;
  node.units = {{"layer.0", hash, {}}};
  CHECK(ask<caf::unit_t>(*this, a.manager, node));
  run_s(12);
  auto map = map_of(a);
  CHECK(map.model_version == 3);
  CHECK(map.layers[1].unit_hash == hash);
  CHECK_FALSE(map.model_hash.has_value());
  node.units.clear();
  for (const auto& unit : map.layers)
    node.units.push_back({unit.unit, hash, {}});
  CHECK(ask<caf::unit_t>(*this, a.manager, node));
  run_s(12);
  map = map_of(a);
  kernels::sha256 all;
  for (size_t i = 0; i < 8; ++i)
    all.update(hash);
  const auto model_hash = all.finish();
  CHECK(map.model_hash == model_hash);
  // A route says what the model of its version is, also while the map tells of another.
  auto found = ask<model_route>(*this, a.manager, route_request{3, {}});
  REQUIRE(found);
  CHECK(found->model_hash == kernels::to_hex(model_hash));
  node.model_version = 4;
  node.units[0].unit_hash = kernels::sha256::of("embed");
  CHECK(ask<caf::unit_t>(*this, a.manager, node));
  found = ask<model_route>(*this, a.manager, route_request{4, {}});
  REQUIRE(found);
  kernels::sha256 next;
  for (const auto& unit : node.units)
    next.update(unit.unit_hash);
  CHECK(found->model_hash == kernels::to_hex(next.finish()));
  node.model_version = 5;
  node.units.pop_back();
  CHECK(ask<caf::unit_t>(*this, a.manager, node));
  found = ask<model_route>(*this, a.manager, route_request{5, {}});
  REQUIRE(found);
  CHECK(found->model_hash.empty());
}

TEST_CASE_FIXTURE(map_fixture,
                  "a route goes over others that announce the version, and names what is missing") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  announces(a, 1, 0, 2, 5);
  announces(b, 2, 2, 6, 5);
  run_s(8);
  const auto found = ask<model_route>(*this, a.manager, route_request{5, {}});
  REQUIRE(static_cast<bool>(found));
  REQUIRE(found->hops.size() == 2);
  CHECK(found->hops[0].local);
  CHECK_FALSE(found->hops[1].local);
  CHECK(found->hops[1].address == address(2));
  CHECK(found->hops[1].layer_begin == 2);
  CHECK(found->hops[1].layer_end == 6);
  CHECK(found->hops[1].tls_cert_sha256 == description_of(*b.who, "10.0.0.2").tls_cert_sha256);
  CHECK(found->hops[1].budget_ms >= 200);
  CHECK_FALSE(found->own_layers_only);
  CHECK(ask<model_route>(*this, a.manager, route_request{6, {}}).code() == errc::no_route);
  CHECK(ask<model_route>(*this, a.manager, route_request{5, {b.who->node_id()}}).code() == errc::no_route);
  // Five failures close the way for half a minute.
  for (int i = 0; i < 5; ++i)
    self->send(a.manager, hop_outcome{b.who->node_id(), request_class::decode, 0, true});
  sched.run();
  CHECK(ask<model_route>(*this, a.manager, route_request{5, {}}).code() == errc::no_route);
  run_s(31);
  CHECK(ask<model_route>(*this, a.manager, route_request{5, {}}));
}

TEST_CASE_FIXTURE(map_fixture, "what was refused of a peer is counted and told with it") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  run_s(2);
  const auto id = b.who->node_id();
  self->send(a.manager, peer_refused{id, "not_finite"});
  self->send(a.manager, peer_refused{id, "above_count"});
  self->send(a.manager, peer_refused{id, {}, 12});
  self->send(a.manager, peer_refused{id, {}, 11});
  self->send(a.manager, peer_refused{std::string(32, 'f'), "nobody"});
  sched.run();
  const auto all = ask<peer_list_ptr>(*this, a.manager, peers_atom_v);
  REQUIRE(all);
  REQUIRE((*all)->size() == 1);
  const auto& standing = (*all)->front().standing;
  CHECK(standing.refused == 2);
  CHECK(standing.reason == "above_count");
  CHECK(standing.ignored_until_round == 12);
}

TEST_CASE_FIXTURE(map_fixture, "what is published reaches everybody once, also those it was not sent to") {
  std::vector<std::shared_ptr<std::vector<published>>> heard;
  for (unsigned i = 1; i <= 10; ++i) {
    const auto& one = join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1)});
    heard.push_back(std::make_shared<std::vector<published>>());
    const auto sink = keep(sys.spawn(listen, heard.back()));
    self->send(one.manager, publish_sink{publish_kind::round_end, sink});
  }
  run_s(20);
  const auto by = members[4];
  CHECK(ask<caf::unit_t>(
      *this, by.manager,
      publish_own{publish_kind::round_end, by.who->sign_as_node("neuroshard-round-v1", "round 1")}));
  for (size_t i = 0; i < members.size(); ++i) {
    CAPTURE(i);
    REQUIRE(heard[i]->size() == (i == 4 ? 0U : 1U));
    if (i != 4) {
      CHECK(heard[i]->at(0).blob.payload == "round 1");
      CHECK(heard[i]->at(0).signer.node_id == by.who->node_id());
    }
  }
}

TEST_CASE_FIXTURE(map_fixture, "what is published is passed on and heard only if it proves itself") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  const auto heard = std::make_shared<std::vector<published>>();
  self->send(b.manager, publish_sink{publish_kind::round_end, keep(sys.spawn(listen, heard))});
  run_s(10);
  const auto reason = [&](publish_request call) {
    call.from = {a.who->node_id(), "10.0.0.1", {}};
    const auto reply = ask<publish_reply>(*this, b.manager, call);
    if (!reply)
      return std::string("refused");
    return reply->accepted ? "accepted" : reply->duplicate ? "duplicate" : reply->reason;
  };
  auto call = round_end_by(*a.who, "one", 0);
  auto wrong = call;
  wrong.blob.sig[3] ^= 1;
  CHECK(reason(wrong) == "bad_signature");
  wrong = call;
  wrong.id[0] ^= 1;
  CHECK(reason(wrong) == "refused");
  wrong = call;
  wrong.ttl = 7;
  CHECK(reason(wrong) == "refused");
  wrong = call;
  wrong.kind = publish_kind::receipt; // signed for another domain
  CHECK(reason(wrong) == "bad_signature");
  wrong = call;
  wrong.kind = static_cast<publish_kind>(3);
  CHECK(reason(wrong) == "unknown_kind");
  CHECK(reason(round_end_by(*identity_of(9), "two", 6)) == "unknown_signer");
  wrong = round_end_by(*a.who, std::string(publish_bytes_max + 1, 'x'), 0);
  CHECK(reason(wrong) == "refused");
  CHECK(heard->empty());
  // An invalid copy did not spoil the valid one.
  CHECK(reason(call) == "accepted");
  CHECK(reason(call) == "duplicate");
  CHECK(heard->size() == 1);
  clock->advance_s(601);
  CHECK(reason(call) == "accepted");
  // A map by one that is not the keeper.
  run_s(30);
  layer_map map = map_of(b);
  map.version = 99;
  const auto& other = a.who->node_id() == lowest() ? b : a;
  publish_request stolen;
  stolen.kind = publish_kind::layer_map;
  stolen.blob = sign_map(*other.who, map)->blob;
  stolen.id = kernels::sha256::of(stolen.blob.payload);
  stolen.from = {other.who->node_id(), "10.0.0.2", {}};
  const auto& judge = a.who->node_id() == lowest() ? a : b;
  run_s(60);
  CHECK(ask<publish_reply>(*this, judge.manager, stolen)->reason == "not_the_keeper");
  CHECK(map_of(judge).version < 99);
}

TEST_CASE_FIXTURE(map_fixture, "ten invalid publications within a minute ban the one that passes them on") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  run_s(3);
  for (int i = 0; i < 10; ++i) {
    auto call = round_end_by(*a.who, "n" + std::to_string(i), 0);
    call.blob.sig[3] ^= 1;
    call.from = {a.who->node_id(), "10.0.0.1", {}};
    CHECK_FALSE(ask<publish_reply>(*this, b.manager, call)->accepted);
  }
  CHECK(state(b, 1) == peer_state::banned);
}
