#pragma once

#include "actors/peer_link/peer_link_actor.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

namespace neuroshard::test {

/// A network between actors of one process: who listens where, and who cannot be reached.
struct peer_network {
  struct host {
    peer_manager_actor manager;
    std::string node_id, address;
    std::optional<kernels::digest> certificate;
    std::set<std::string> bound; ///< node ids it has met
  };
  std::map<std::string, host> hosts; ///< by host:port
  std::set<std::string> down;        ///< addresses that nobody reaches, and that reach nobody
  uint64_t calls = 0;
};
using peer_network_ptr = std::shared_ptr<peer_network>;

/// The link of the node at `own` (host:port): hands a request to the peer manager at the other address, as
/// that node's gateway would.
inline peer_link_actor::behavior_type network_link(peer_link_actor::pointer self, peer_network_ptr network,
                                                   std::string own) {
  const auto unreachable = [] { return refuse(errc::unavailable, "The node cannot be reached."); };
  const auto host_of = [](const std::string& address) { return address.substr(0, address.rfind(':')); };
  const auto there = [=](const peer_address& to) -> peer_network::host* {
    ++network->calls;
    const auto at = network->hosts.find(to.address);
    return at == network->hosts.end() || network->down.contains(own) || network->down.contains(to.address)
               ? nullptr
               : &at->second;
  };
  const auto end_of = [=](const std::string& address, bool bound) {
    const auto& host = network->hosts.at(address);
    return connection_end{bound ? host.node_id : "", host_of(address), host.certificate};
  };
  const auto known = [=](peer_network::host& to) {
    return to.bound.contains(network->hosts.at(own).node_id);
  };
  const auto announce_first = [] {
    problem what;
    what.message = "Announce first.";
    what.reason = "announce_first";
    return refuse(errc::unauthorized, std::move(what));
  };
  return {
      [=](peer_call<announce_request>& call) -> caf::result<announce_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        call.what.from = end_of(own, false);
        auto done = self->make_response_promise<announce_reply>();
        self->request(to->manager, caf::infinite, std::move(call.what))
            .then(
                [=, at = call.to.address](announce_reply& reply) mutable {
                  network->hosts.at(at).bound.insert(reply.bound_node_id);
                  reply.by = end_of(at, false);
                  done.deliver(std::move(reply));
                },
                [done](caf::error& why) mutable { done.deliver(std::move(why)); });
        return done;
      },
      [=](peer_call<heartbeat_request>& call) -> caf::result<heartbeat_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        if (!known(*to))
          return announce_first();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](peer_call<leave_request>& call) -> caf::result<void> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](peer_call<find_peers_request>& call) -> caf::result<find_peers_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](peer_call<ping_request>& call) -> caf::result<ping_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](peer_call<get_layer_map_request>& call) -> caf::result<get_layer_map_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        if (!known(*to))
          return announce_first();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](peer_call<publish_request>& call) -> caf::result<publish_reply> {
        auto* to = there(call.to);
        if (!to)
          return unreachable();
        if (!known(*to))
          return announce_first();
        call.what.from = end_of(own, true);
        return self->delegate(to->manager, std::move(call.what));
      },
      [=](const forget_peer& who) { network->hosts.at(own).bound.erase(who.node_id); },
      [](drain_atom) {},
      [](status_atom) {
        return actor_status{"peer_link", actor_status::health::ok, "", {}};
      },
  };
}

} // namespace neuroshard::test
