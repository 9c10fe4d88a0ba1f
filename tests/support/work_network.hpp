#pragma once

#include "actors/relay/relay.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace neuroshard::test {

/// Forward and Backward between the nodes of one process. Addresses are those of the nodes' records.
struct work_network {
  std::map<std::string, relay_actor> relays; ///< by host:port
  std::set<std::string> down;                ///< addresses that nobody reaches
  std::set<std::string> stopped;             ///< addresses that take a call and never answer
  std::vector<caf::typed_response_promise<routed_forward_reply>> unanswered;
  time_source_ptr time; ///< where set, a call's deadline is what its budget leaves, as over a network
  peer_list_ptr peers = std::make_shared<peer_list>();
  publish_listener receipt_sink;  ///< the last one that wanted receipts
  std::vector<std::string> calls; ///< "<mode or action> <caller>-><address>", in order
  /// Looks at, and may change, what is sent; false loses it.
  std::function<bool(const std::string& address, routed_forward&)> on_forward;
  std::function<bool(const std::string& address, routed_backward&)> on_backward;
  /// Refuses a Forward in the place of the node asked; empty: it does not.
  std::function<caf::error(const std::string& address, const routed_forward&)> refuses;
  /// Looks at, and may change, what a Forward is answered with; false loses it.
  std::function<bool(const std::string& address, routed_forward_reply&)> on_answer;

  static std::string address_of(size_t index) { return "10.0.0." + std::to_string(index + 1) + ":9000"; }
  static std::string id_of(size_t index) { return std::string(31, '0') + std::to_string(index + 1); }

  /// The record of node `index`, which holds a range.
  static peer_info node(size_t index, uint32_t begin, uint32_t end, bool embed, bool head) {
    peer_info info;
    info.node.node_id = id_of(index);
    info.node.host = "10.0.0." + std::to_string(index + 1);
    info.node.grpc_port = 9'000;
    info.node.layer_begin = begin;
    info.node.layer_end = end;
    info.node.has_embedding = embed;
    info.node.has_lm_head = head;
    info.state = peer_state::online;
    return info;
  }
};
using work_network_ptr = std::shared_ptr<work_network>;

inline peer_directory_actor::behavior_type network_directory(peer_directory_actor::pointer,
                                                             work_network_ptr network) {
  return {[network](peers_atom) { return network->peers; },
          [network](const publish_sink& sink) {
            if (sink.kind == publish_kind::receipt)
              network->receipt_sink = sink.to;
          }};
}

/// The link of node `own_id`.
inline work_link_actor::behavior_type network_work_link(work_link_actor::pointer self,
                                                        work_network_ptr network, std::string own_id) {
  const auto unreachable = [] { return refuse(errc::unavailable, "The node cannot be reached."); };
  return {
      [=](peer_call<routed_forward>& call) -> caf::result<routed_forward_reply> {
        network->calls.push_back("forward" + std::to_string(static_cast<int>(call.what.work.mode)) + " " +
                                 own_id.substr(31) + "->" + call.to.node_id.substr(31));
        const auto at = network->relays.find(call.to.address);
        if (at == network->relays.end() || network->down.contains(call.to.address) ||
            (network->on_forward && !network->on_forward(call.to.address, call.what)))
          return unreachable();
        call.what.from.node_id = own_id;
        if (network->time)
          call.what.work.header.deadline_steady_us =
              network->time->steady_us() + int64_t{call.budget_ms} * 1'000;
        if (network->refuses)
          if (auto why = network->refuses(call.to.address, call.what))
            return why;
        if (network->stopped.contains(call.to.address)) {
          network->unanswered.push_back(self->make_response_promise<routed_forward_reply>());
          return network->unanswered.back();
        }
        if (!network->on_answer)
          return self->delegate(at->second, std::move(call.what));
        auto promise = self->make_response_promise<routed_forward_reply>();
        self->request(at->second, caf::infinite, std::move(call.what))
            .then(
                [=, address = call.to.address](routed_forward_reply& reply) mutable {
                  if (network->on_answer && !network->on_answer(address, reply))
                    promise.deliver(unreachable());
                  else
                    promise.deliver(std::move(reply));
                },
                [=](caf::error& why) mutable { promise.deliver(std::move(why)); });
        return promise;
      },
      [=](peer_call<routed_backward>& call) -> caf::result<routed_backward_reply> {
        network->calls.push_back("backward" + std::to_string(static_cast<int>(call.what.work.action)) + " " +
                                 own_id.substr(31) + "->" + call.to.node_id.substr(31));
        const auto at = network->relays.find(call.to.address);
        if (at == network->relays.end() || network->down.contains(call.to.address) ||
            (network->on_backward && !network->on_backward(call.to.address, call.what)))
          return unreachable();
        call.what.from.node_id = own_id;
        return self->delegate(at->second, std::move(call.what));
      },
  };
}

} // namespace neuroshard::test
