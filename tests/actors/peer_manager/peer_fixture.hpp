#pragma once

#include "actors/peer_manager/node_info.hpp"
#include "actors/peer_manager/peer_manager.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/peer_network.hpp"
#include "tests/support/test.hpp"

#include <functional>
#include <string>
#include <vector>

namespace neuroshard::test {

/// A node identity by number.
inline std::shared_ptr<const node_identity> identity_of(unsigned number) {
  auto token = parse_token(std::string(60, 'b') + std::to_string(1'000 + number));
  REQUIRE(static_cast<bool>(token));
  auto made = node_identity::make(*token, 0, 1'800'000'000'000);
  REQUIRE(static_cast<bool>(made));
  return std::make_shared<const node_identity>(std::move(*made));
}

inline node_description description_of(const node_identity& who, const std::string& host,
                                       uint32_t port = 9'000) {
  node_description node;
  node.node_id = who.node_id();
  node.wallet_address = who.address();
  node.host = host;
  node.grpc_port = port;
  node.tls_cert_sha256 = kernels::sha256::of("certificate of " + who.node_id());
  node.sequence = 1'800'000'000'000'000;
  node.roles = {node_role::driver, node_role::worker};
  node.layer_end = 6;
  node.has_embedding = true;
  node.has_lm_head = true;
  node.architecture_id = "0123456789abcdef";
  return node;
}

/// Peer managers on one network, one clock.
struct peer_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_peer_manager, caf::id_block::neuroshard_peer_link,
                    caf::id_block::neuroshard_peer_store> {
  struct member {
    std::shared_ptr<const node_identity> who;
    std::string address;
    peer_manager_actor manager;
  };
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  peer_network_ptr network = std::make_shared<peer_network>();
  std::vector<member> members;
  /// Changes what the next nodes are made of.
  std::function<void(peer_manager_parts&, peer_manager_options&)> adjust;

  /// A node at 10.0.0.<number>; `names_host` false: it must be told its own address.
  member& join(unsigned number, std::vector<std::string> seeds, bool names_host = true,
               uint64_t sequence = 0) {
    member made;
    made.who = identity_of(number);
    const std::string host = "10.0.0." + std::to_string(number);
    made.address = host + ":9000";
    peer_manager_options options;
    options.own = description_of(*made.who, names_host ? host : "");
    if (sequence != 0)
      options.own.sequence = sequence;
    options.total_layers = 6;
    options.seed_peers = std::move(seeds);
    const auto link = keep(sys.spawn(network_link, network, made.address));
    peer_manager_parts parts{link, made.who, clock, std::make_shared<counting_random>(number)};
    if (adjust)
      adjust(parts, options);
    made.manager = keep(sys.spawn(peer_manager, std::move(parts), options));
    network->hosts[made.address] = {
        made.manager, made.who->node_id(), made.address, options.own.tls_cert_sha256, {}};
    members.push_back(made);
    return members.back();
  }
  static std::string address(unsigned number) { return "10.0.0." + std::to_string(number) + ":9000"; }

  void run_s(int seconds) {
    for (int i = 0; i < seconds; ++i) {
      sched.run();
      clock->advance_s(1);
      sched.advance_time(std::chrono::seconds(1));
    }
    sched.run();
  }
  peer_list peers(const member& of) {
    peer_list found;
    auto answer = self->request(of.manager, caf::infinite, peers_atom_v);
    sched.run();
    answer.receive([&](const peer_list_ptr& all) { found = *all; },
                   [](const caf::error&) { FAIL("no answer"); });
    return found;
  }
  /// The state in which `of` sees the node of that number; nothing when it does not know it.
  std::optional<peer_state> state(const member& of, unsigned number) {
    const auto id = identity_of(number)->node_id();
    for (const auto& one : peers(of))
      if (one.node.node_id == id)
        return one.state;
    return std::nullopt;
  }
};

} // namespace neuroshard::test
