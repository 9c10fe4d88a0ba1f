#pragma once

#include "actors/gradient_exchanger/exchange_link_actor.hpp"
#include "actors/gradient_exchanger/exchange_records.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard::test {

/// ExchangeGradient and gossip between the nodes of one process.
struct exchange_network {
  std::map<std::string, gradient_exchanger_actor> exchangers; ///< by host:port
  std::map<std::string, std::string> addresses;               ///< by node id
  std::map<std::string, peer_info> records;                   ///< by node id
  std::map<std::pair<std::string, publish_kind>, publish_listener> sinks;
  std::set<std::string> down; ///< node ids that reach nobody and that nobody reaches
  std::vector<std::string> published_log;
  size_t calls = 0;
  uint64_t bytes = 0;
  /// Looks at, and may change, a call; false loses it.
  std::function<bool(const std::string& from, const std::string& to, exchange_request&)> on_call;
  /// The same for its answer; one that is lost was processed all the same.
  std::function<bool(const std::string& from, const std::string& to, exchange_reply&, bool fetched)>
      on_answer;
  std::function<bool(const std::string& from, const std::string& to, publish_kind)> on_publish;
  /// Looks at, and may change, what a node publishes, once for all who hear it.
  std::function<void(const std::string& from, publish_kind, signed_blob&)> on_word;
  /// How many times a call is delivered before the one that is answered.
  std::function<size_t()> copies;

  std::map<std::string, std::vector<peer_refused>> refused; ///< told to the peer manager, by node id
  peer_list_ptr list() const {
    auto all = std::make_shared<peer_list>();
    for (const auto& [id, record] : records)
      all->push_back(record);
    return all;
  }
};
using exchange_network_ptr = std::shared_ptr<exchange_network>;

/// What the exchanger of node `own_id` sees of a peer manager.
inline exchange_peers_actor::behavior_type
network_exchange_peers(exchange_peers_actor::pointer self, exchange_network_ptr network, std::string own_id) {
  return {
      [=](peers_atom) { return network->list(); },
      [=](const publish_sink& sink) {
        network->sinks[{own_id, sink.kind}] = sink.to;
      },
      [=](publish_own what) {
        if (network->on_word)
          network->on_word(own_id, what.kind, what.blob);
        network->published_log.push_back(own_id + (what.kind == publish_kind::round_end ? " end" : " set"));
        for (const auto& [where, sink] : network->sinks)
          if (where.second == what.kind && where.first != own_id && !network->down.contains(own_id) &&
              !network->down.contains(where.first) &&
              (!network->on_publish || network->on_publish(own_id, where.first, what.kind)))
            self->send(sink, published{what.kind, what.blob, {own_id, {}}, own_id});
      },
      [=](const peer_refused& what) { network->refused[own_id].push_back(what); },
  };
}

/// The link of node `own_id`.
inline exchange_link_actor::behavior_type
network_exchange_link(exchange_link_actor::pointer self, exchange_network_ptr network, std::string own_id) {
  return {[=](peer_call<exchange_request>& call) -> caf::result<exchange_reply> {
    const auto lost = [] { return refuse(errc::unavailable, "The node cannot be reached."); };
    const auto to = call.to.node_id;
    const auto at = network->exchangers.find(call.to.address);
    ++network->calls;
    if (at == network->exchangers.end() || network->down.contains(to) || network->down.contains(own_id) ||
        (network->on_call && !network->on_call(own_id, to, call.what)))
      return lost();
    call.what.from.node_id = own_id;
    network->bytes += call.what.part_data ? call.what.part_data->size() : 0;
    for (size_t copy = network->copies ? network->copies() : 0; copy > 0; --copy)
      self->request(at->second, caf::infinite, call.what)
          .then([](const exchange_reply&) {}, [](const caf::error&) {});
    auto promise = self->make_response_promise<exchange_reply>();
    const bool fetched = call.what.fetch.has_value();
    self->request(at->second, caf::infinite, std::move(call.what))
        .then(
            [=](exchange_reply& reply) mutable {
              if (network->down.contains(to) ||
                  (network->on_answer && !network->on_answer(own_id, to, reply, fetched)))
                promise.deliver(lost());
              else {
                network->bytes += reply.reply_data ? reply.reply_data->size() : 0;
                promise.deliver(std::move(reply));
              }
            },
            [=](caf::error& why) mutable { promise.deliver(std::move(why)); });
    return promise;
  }};
}

} // namespace neuroshard::test
