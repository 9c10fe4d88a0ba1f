#pragma once

#include "actors/peer_link/peer_link_actor.hpp"

#include <string>

namespace neuroshard {

/// Where a node is called that has told its address: its gRPC port, an IPv6 host in brackets.
inline peer_address address_of(const node_description& node) {
  const bool v6 = node.host.find(':') != std::string::npos;
  return {node.node_id, (v6 ? "[" + node.host + "]" : node.host) + ":" + std::to_string(node.grpc_port),
          node.tls_cert_sha256};
}

} // namespace neuroshard
