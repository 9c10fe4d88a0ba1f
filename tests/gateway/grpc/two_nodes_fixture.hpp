#pragma once

#include "actors/peer_manager/node_info.hpp"
#include "actors/peer_manager/peer_manager.hpp"
#include "gateway/grpc/credentials.hpp"
#include "gateway/grpc/link.hpp"
#include "gateway/grpc/server.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/scoped_actor.hpp>

#include <arpa/inet.h>
#include <chrono>
#include <functional>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace neuroshard::test {

inline uint16_t free_port() {
  const int s = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  REQUIRE(::bind(s, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
  REQUIRE(::getsockname(s, reinterpret_cast<sockaddr*>(&at), &size) == 0);
  ::close(s);
  return ntohs(at.sin_port);
}

inline bool wait_for(const std::function<bool()>& condition) {
  for (int i = 0; i < 1'000; ++i) {
    if (condition())
      return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

/// Real servers, links and peer managers on loopback, with threads.
struct real_peers {
  struct config : caf::actor_system_config {
    config() {
      add_message_types<caf::id_block::neuroshard_common>();
      add_message_types<caf::id_block::neuroshard_status>();
      add_message_types<caf::id_block::neuroshard_peer_manager>();
      add_message_types<caf::id_block::neuroshard_peer_link>();
      add_message_types<caf::id_block::neuroshard_grpc_link>();
      add_message_types<caf::id_block::neuroshard_layer_worker>();
      add_message_types<caf::id_block::neuroshard_relay>();
      add_message_types<caf::id_block::neuroshard_work_link>();
      add_message_types<caf::id_block::neuroshard_gradient_exchanger>();
      add_message_types<caf::id_block::neuroshard_exchange_link>();
      add_message_types<caf::id_block::neuroshard_http>();
      set("scheduler.max-threads", 2);
    }
  };
  struct node {
    std::shared_ptr<const node_identity> who;
    std::optional<rpc::node_certificate> certificate;
    std::shared_ptr<rpc::caller_table> callers = std::make_shared<rpc::caller_table>();
    peer_link_actor link;
    work_link_actor work;
    exchange_link_actor exchange;
    gradient_exchanger_actor exchanger;
    relay_actor relay;
    peer_manager_actor manager;
    std::unique_ptr<rpc::server> server;
    uint16_t port = 0;
    std::string address() const { return "127.0.0.1:" + std::to_string(port); }
  };

  temporary_directory root;
  config cfg;
  caf::actor_system sys{cfg};
  caf::scoped_actor self{sys};
  std::vector<std::unique_ptr<node>> nodes;
  std::function<relay_actor(caf::actor_system&)> make_relay; ///< of the nodes that join; none: they have none
  std::function<gradient_exchanger_actor(caf::actor_system&)> make_exchanger; ///< likewise

  ~real_peers() {
    for (auto& one : nodes) {
      one->server.reset();
      caf::anon_send_exit(one->manager, caf::exit_reason::kill);
      caf::anon_send_exit(one->link, caf::exit_reason::kill);
      if (one->relay)
        caf::anon_send_exit(one->relay, caf::exit_reason::kill);
      if (one->exchanger)
        caf::anon_send_exit(one->exchanger, caf::exit_reason::kill);
    }
  }

  node& join(unsigned number, std::vector<std::string> seeds, bool insecure = false,
             const std::string& network = "main", uint32_t layers = 0) {
    rpc::allow_tls_13_only();
    rpc::log_to_node_log();
    auto made = std::make_unique<node>();
    auto token = parse_token(std::string(60, 'c') + std::to_string(1'000 + number));
    REQUIRE(static_cast<bool>(token));
    auto identity = node_identity::make(*token, 0, system_time()->unix_us() / 1'000);
    REQUIRE(static_cast<bool>(identity));
    made->who = std::make_shared<const node_identity>(std::move(*identity));
    if (!insecure) {
      auto certificate = rpc::load_or_make_certificate(root.path() + "/" + std::to_string(number));
      REQUIRE(static_cast<bool>(certificate));
      made->certificate = std::move(*certificate);
    }
    made->port = free_port();
    const auto link = rpc::spawn_link(sys, {made->certificate, network, made->who->node_id(), made->callers,
                                            system_time(), system_random()});
    made->link = link;
    made->work = link;
    made->exchange = link;
    if (make_relay)
      made->relay = make_relay(sys);
    if (make_exchanger)
      made->exchanger = make_exchanger(sys);
    peer_manager_options options;
    auto& own = options.own;
    own.node_id = made->who->node_id();
    own.wallet_address = made->who->address();
    own.host = "127.0.0.1";
    own.grpc_port = made->port;
    if (made->certificate)
      own.tls_cert_sha256 = made->certificate->sha256;
    own.sequence = static_cast<uint64_t>(system_time()->unix_us());
    own.roles = {node_role::driver, node_role::worker};
    options.seed_peers = std::move(seeds);
    options.total_layers = own.layer_end = layers;
    own.has_embedding = own.has_lm_head = layers > 0;
    made->manager = sys.spawn(peer_manager, peer_manager_parts{made->link, made->who}, options);
    auto parts = std::make_unique<rpc::service_parts>(sys, made->manager, made->callers, network, insecure,
                                                      nullptr, system_time(), made->relay);
    parts->exchanger = made->exchanger;
    auto server = rpc::server::start({"127.0.0.1", made->port, made->certificate}, std::move(parts));
    REQUIRE(static_cast<bool>(server));
    made->server = std::move(*server);
    nodes.push_back(std::move(made));
    return *nodes.back();
  }

  peer_list peers(const node& of) {
    peer_list found;
    self->request(of.manager, std::chrono::seconds(10), peers_atom_v)
        .receive([&](const peer_list_ptr& all) { found = *all; },
                 [](const caf::error&) { FAIL("no answer"); });
    return found;
  }
  bool sees(const node& of, const node& other) {
    for (const auto& one : peers(of))
      if (one.node.node_id == other.who->node_id() && one.state == peer_state::online)
        return true;
    return false;
  }
  /// What a call over a node's link comes to: nothing, or why it failed.
  template <class Reply, class Request>
  std::pair<std::optional<Reply>, caf::error> call(const node& from, peer_address to, Request what) {
    std::pair<std::optional<Reply>, caf::error> end;
    self->request(from.link, std::chrono::seconds(20),
                  peer_call<Request>{std::move(to), std::move(what), 5'000})
        .receive([&](Reply& reply) { end.first = std::move(reply); },
                 [&](caf::error& why) { end.second = std::move(why); });
    return end;
  }
};

} // namespace neuroshard::test
