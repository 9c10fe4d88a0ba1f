#include "tests/actors/peer_manager/peer_fixture.hpp"
#include "tests/support/ask.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(peer_fixture, "two nodes meet within a second through one seed address") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  run_s(1);
  CHECK(state(a, 2) == peer_state::online);
  CHECK(state(b, 1) == peer_state::online);
  const auto seen = peers(b).at(0);
  CHECK(seen.node == description_of(*a.who, "10.0.0.1"));
  CHECK(seen.connected_since_unix_us.has_value());
}

TEST_CASE_FIXTURE(peer_fixture, "nodes that know one seed alone find each other") {
  for (unsigned i = 1; i <= 6; ++i)
    join(i, i == 1 ? std::vector<std::string>{} : std::vector{address(1)});
  run_s(12);
  for (const auto& one : members) {
    CHECK(peers(one).size() == 5);
    for (unsigned i = 1; i <= 6; ++i)
      if (identity_of(i)->node_id() != one.who->node_id())
        CHECK(state(one, i) == peer_state::online);
  }
}

TEST_CASE_FIXTURE(peer_fixture, "a node that does not know its address is told it and then found by others") {
  join(1, {});
  join(2, {address(1)}, false);
  join(3, {address(1)}, false);
  run_s(20);
  CHECK(state(members[1], 3) == peer_state::online);
  CHECK(state(members[2], 2) == peer_state::online);
  for (const auto& one : peers(members[0]))
    CHECK(one.node.host.starts_with("10.0.0."));
}

TEST_CASE_FIXTURE(peer_fixture, "a node that falls silent is stale, then gone, and back with its next word") {
  const auto a = join(1, {});
  join(2, {address(1)});
  run_s(10);
  REQUIRE(state(a, 2) == peer_state::online);
  network->down.insert(address(2));
  run_s(22);
  CHECK(state(a, 2) == peer_state::stale);
  run_s(50);
  CHECK_FALSE(state(a, 2).has_value());
  network->down.clear();
  run_s(70); // the seed is tried at least once a minute
  CHECK(state(a, 2) == peer_state::online);
  CHECK(state(members[1], 1) == peer_state::online);
}

TEST_CASE_FIXTURE(peer_fixture, "a goodbye is heard at once, and gossip does not bring the node back") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  const auto c = join(3, {address(1)});
  run_s(12);
  REQUIRE(state(c, 2) == peer_state::online);
  // c does not hear it.
  network->down.insert(address(3));
  CHECK(ask<caf::unit_t>(*this, b.manager, leave_atom_v));
  network->down.insert(address(2));
  CHECK_FALSE(state(a, 2).has_value());
  network->down.erase(address(3));
  run_s(8);
  CHECK_FALSE(state(a, 2).has_value());
  CHECK(state(c, 1) == peer_state::online);
}

TEST_CASE_FIXTURE(peer_fixture, "a node that was started anew replaces its ghost; the ghost is refused") {
  const auto a = join(1, {});
  const auto old = join(2, {address(1)});
  run_s(6);
  // The same wallet on the same machine, a later start: a higher sequence.
  network->down.insert("10.0.0.2:9000");
  auto later = description_of(*old.who, "10.0.0.22");
  later.sequence += 5'000'000;
  announce_request call;
  call.from = {"", "10.0.0.22", later.tls_cert_sha256};
  call.node = sign_node(*old.who, later)->blob;
  const auto taken = ask<announce_reply>(*this, a.manager, call);
  REQUIRE(static_cast<bool>(taken));
  CHECK(taken->observed_host == "10.0.0.22");
  CHECK(taken->bound_node_id == old.who->node_id());
  CHECK(taken->heartbeat_interval_ms == 5'000);
  CHECK(peers(a).at(0).node.host == "10.0.0.22");
  call.node = sign_node(*old.who, description_of(*old.who, "10.0.0.2"))->blob;
  const auto ghost = ask<announce_reply>(*this, a.manager, call);
  CHECK(ghost.code() == errc::failed_precondition);
  CHECK(ghost.reason() == "sequence");
  CHECK(peers(a).at(0).node.host == "10.0.0.22");
}

TEST_CASE_FIXTURE(peer_fixture, "an announcement that proves nothing is refused with the reason") {
  const auto a = join(1, {});
  const auto who = identity_of(2);
  const auto good = description_of(*who, "10.0.0.2");
  const auto refused = [&](announce_request call) {
    const auto answer = ask<announce_reply>(*this, a.manager, std::move(call));
    REQUIRE_FALSE(static_cast<bool>(answer));
    return std::pair(answer.code(), answer.reason());
  };
  const connection_end end{"", "10.0.0.2", good.tls_cert_sha256};
  auto forged = sign_node(*who, good)->blob;
  forged.sig[5] ^= 1;
  CHECK(refused({end, forged, {}}) == std::pair(errc::unauthorized, std::string("bad_signature")));
  CHECK(refused({{"", "10.0.0.2", kernels::sha256::of("other")}, sign_node(*who, good)->blob, {}}) ==
        std::pair(errc::unauthorized, std::string("wrong_certificate")));
  CHECK(refused({{a.who->node_id(), "10.0.0.2", good.tls_cert_sha256}, sign_node(*who, good)->blob, {}}) ==
        std::pair(errc::unauthorized, std::string("wrong_signer")));
  auto self_named = description_of(*a.who, "10.0.0.9");
  CHECK(refused({{"", "10.0.0.9", self_named.tls_cert_sha256}, sign_node(*a.who, self_named)->blob, {}}) ==
        std::pair(errc::already_exists, std::string("own_node_id")));
  CHECK(refused({end, sign_node(*who, good)->blob, std::vector(21, forged)}).first == errc::invalid_request);
  CHECK(peers(a).empty());
}

TEST_CASE_FIXTURE(peer_fixture, "who passes on ten records with bad signatures within a minute is banned") {
  const auto a = join(1, {});
  const auto who = identity_of(2);
  const auto node = description_of(*who, "10.0.0.2");
  const connection_end end{"", "10.0.0.2", node.tls_cert_sha256};
  const auto third = identity_of(3);
  auto forged = sign_node(*third, description_of(*third, "10.0.0.3"))->blob;
  forged.sig[5] ^= 1;
  CHECK(ask<announce_reply>(*this, a.manager,
                            announce_request{end, sign_node(*who, node)->blob, std::vector(9, forged)}));
  CHECK(state(a, 2) == peer_state::online);
  CHECK(ask<announce_reply>(*this, a.manager, announce_request{end, sign_node(*who, node)->blob, {forged}}));
  CHECK(state(a, 2) == peer_state::banned);
  CHECK_FALSE(state(a, 3).has_value());
  for (const auto& one : peers(a)) {
    CHECK(one.standing.refused == 10);
    CHECK(one.standing.reason == "invalid_blob");
  }
  const auto again =
      ask<announce_reply>(*this, a.manager, announce_request{end, sign_node(*who, node)->blob, {}});
  CHECK(again.reason() == "banned");
  run_s(120); // its silence does not lift the ban
  CHECK(state(a, 2) == peer_state::banned);
  clock->advance_s(24 * 3'600);
  run_s(2);
  CHECK_FALSE(state(a, 2).has_value());
  CHECK(ask<announce_reply>(*this, a.manager, announce_request{end, sign_node(*who, node)->blob, {}}));
}

TEST_CASE_FIXTURE(peer_fixture, "a node in two places at once is told so") {
  const auto a = join(1, {});
  const auto who = identity_of(2);
  errc last = errc::ok;
  for (int i = 0; i < 8; ++i) {
    auto node = description_of(*who, i % 2 == 0 ? "10.0.0.2" : "10.0.0.3");
    node.sequence += static_cast<uint64_t>(i);
    last = ask<announce_reply>(
               *this, a.manager,
               announce_request{{"", node.host, node.tls_cert_sha256}, sign_node(*who, node)->blob, {}})
               .code();
    CHECK(last == (i <= 3 || i % 2 == 1 ? errc::ok : errc::already_exists)); // it stays where it is
  }
  clock->advance_s(61);
  auto node = description_of(*who, "10.0.0.3");
  node.sequence += 100;
  CHECK(ask<announce_reply>(
      *this, a.manager,
      announce_request{{"", node.host, node.tls_cert_sha256}, sign_node(*who, node)->blob, {}}));
}

TEST_CASE_FIXTURE(peer_fixture, "another economy is not let in") {
  const auto a = join(1, {});
  auto own = description_of(*a.who, "10.0.0.1");
  own.economics_hash = kernels::sha256::of("ours");
  CHECK(ask<caf::unit_t>(*this, a.manager, own));
  const auto who = identity_of(2);
  auto node = description_of(*who, "10.0.0.2");
  node.economics_hash = kernels::sha256::of("theirs");
  const auto answer = ask<announce_reply>(
      *this, a.manager,
      announce_request{{"", "10.0.0.2", node.tls_cert_sha256}, sign_node(*who, node)->blob, {}});
  CHECK(answer.code() == errc::forbidden);
  CHECK(answer.reason() == "economics");
}

TEST_CASE_FIXTURE(peer_fixture, "a change of the own record reaches the others with the next heartbeat") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  run_s(2);
  auto changed = description_of(*b.who, "10.0.0.2");
  changed.model_version = 7;
  CHECK(ask<caf::unit_t>(*this, b.manager, changed));
  run_s(7);
  const auto seen = peers(a).at(0).node;
  CHECK(seen.model_version == 7);
  CHECK(seen.sequence > changed.sequence);
}

TEST_CASE_FIXTURE(peer_fixture, "peers are found by unit, role and distance, never the one that asks") {
  const auto a = join(1, {});
  for (unsigned i = 2; i <= 4; ++i)
    join(i, {address(1)});
  run_s(1);
  find_peers_request call;
  call.from.node_id = identity_of(2)->node_id();
  CHECK(ask<find_peers_reply>(*this, a.manager, call)->peers.size() == 2);
  call.limit = 1;
  auto& target = call.target.emplace();
  REQUIRE(from_hex(identity_of(4)->node_id(), target.data(), 16));
  const auto nearest = ask<find_peers_reply>(*this, a.manager, call);
  REQUIRE(nearest->peers.size() == 1);
  CHECK(node_id_of(nearest->peers[0].key) == identity_of(4)->node_id());
  call.unit = "layer.5";
  CHECK(ask<find_peers_reply>(*this, a.manager, call)->peers.size() == 1);
  call.unit = "layer.6";
  CHECK(ask<find_peers_reply>(*this, a.manager, call)->peers.empty());
  call.unit.clear();
  call.role = node_role::validator;
  CHECK(ask<find_peers_reply>(*this, a.manager, call)->peers.empty());
}

TEST_CASE_FIXTURE(peer_fixture, "a ping answers with the own record and the payload") {
  const auto a = join(1, {});
  ping_request call;
  call.payload = "hello";
  const auto answer = ask<ping_reply>(*this, a.manager, call);
  REQUIRE(static_cast<bool>(answer));
  CHECK(answer->payload == "hello");
  CHECK(answer->bound_node_id.empty());
  CHECK(node_id_of(answer->self.key) == a.who->node_id());
  CHECK(answer->state == "running");
}

TEST_CASE_FIXTURE(peer_fixture, "a node without a link is alone and says so") {
  peer_manager_options options;
  options.own = description_of(*identity_of(1), "");
  options.seed_peers = {address(2)};
  const auto alone = keep(sys.spawn(peer_manager, peer_manager_parts{{}, {}, clock}, options));
  run_s(3);
  CHECK(ask<announce_reply>(*this, alone, announce_request{}).code() == errc::unavailable);
  CHECK(ask<ping_reply>(*this, alone, ping_request{}).code() == errc::unavailable);
  CHECK(ask<caf::unit_t>(*this, alone, leave_atom_v));
}
