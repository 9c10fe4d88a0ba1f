#pragma once

#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/relay/relay_actor.hpp"

#include <string>
#include <vector>

/// A route as the peer manager gives it, in the words of the calls along it.
namespace neuroshard {

inline work_hop hop_of(const route_hop& hop) {
  return {hop.node_id, hop.address, hop.layer_begin, hop.layer_end, hop.tls_cert_sha256};
}

/// The stages behind the first one, in order.
inline std::vector<work_hop> hops_after_first(const model_route& route) {
  std::vector<work_hop> hops;
  for (size_t i = 1; i < route.hops.size(); ++i)
    hops.push_back(hop_of(route.hops[i]));
  return hops;
}

/// The stages before the last one, descending, without the first: where a driver sends the gradient from the
/// last stage on, which comes back to itself as the answer.
inline std::vector<work_hop> hops_back_to_second(const model_route& route) {
  std::vector<work_hop> hops;
  for (size_t i = route.hops.size(); i-- > 2;)
    hops.push_back(hop_of(route.hops[i - 1]));
  return hops;
}

/// The node that a call along a route failed at; empty: not told.
std::string failed_hop_of(const caf::error& why);
/// The same failure, with the node named unless one is named already: who is further on knows better.
caf::error failed_at_hop(const caf::error& why, const std::string& node_id);

inline peer_address address_of(const route_hop& hop) {
  return {hop.node_id, hop.address, hop.tls_cert_sha256};
}

} // namespace neuroshard
