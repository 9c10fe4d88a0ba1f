#include "gateway/node/description.hpp"

#include "gateway/node/model_group.hpp"

namespace neuroshard {

namespace {

bool is_wildcard(std::string_view host) {
  return host == "0.0.0.0" || host == "::";
}

uint64_t offered_mb(const node_config& c, const kernels::device& on) {
  return c.memory_mb > 0 ? static_cast<uint64_t>(c.memory_mb) : (on.info().memory_total / 10 * 7) >> 20;
}

} // namespace

node_description describe(const node_identity& who, const node_config& c, const model::architecture& a,
                          const kernels::device& on) {
  node_description d;
  d.node_id = who.node_id();
  d.wallet_address = who.address();
  d.host = c.announce_ip.empty() && !is_wildcard(c.grpc_host) ? c.grpc_host : c.announce_ip;
  d.grpc_port = static_cast<uint32_t>(c.announce_port > 0 ? c.announce_port : grpc_port(c));
  d.http_port = http_is_loopback(c) ? 0 : static_cast<uint32_t>(c.port);
  d.sequence = static_cast<uint64_t>(system_time()->unix_us());
  if (takes_layers(c))
    d.roles = {node_role::driver, node_role::validator, node_role::worker};
  d.max_layers = static_cast<uint32_t>(c.peers.max_layers);
  d.memory_total_mb = takes_layers(c) ? offered_mb(c, on) : 0;
  d.device = on.ops().name;
  d.accepting = true;
  d.training = c.training.enabled && takes_layers(c);
  d.architecture_id = model::architecture_id(a);
  d.software_version = NEUROSHARD_VERSION;
  return d;
}

node_snapshot first_snapshot(const node_identity& who, const node_config& c, const model::architecture& a,
                             const kernels::device& on, int64_t unix_us) {
  node_snapshot first;
  first.unix_us = unix_us;
  first.identity.node_id = who.node_id();
  first.identity.address = who.address();
  first.identity.version = NEUROSHARD_VERSION;
  first.identity.architecture_id = model::architecture_id(a);
  first.identity.architecture_name = c.model.preset == "auto" ? "pico" : c.model.preset;
  first.identity.total_layers = static_cast<uint32_t>(a.num_layers);
  first.identity.hidden_dim = static_cast<uint32_t>(a.hidden_dim);
  first.identity.parameters = static_cast<uint64_t>(a.parameters());
  first.identity.context_length = static_cast<uint32_t>(a.max_seq_len);
  first.memory_offered_mb = takes_layers(c) ? offered_mb(c, on) : 0;
  training_progress idle;
  idle.enabled = c.training.enabled && takes_layers(c);
  idle.diloco_steps = static_cast<uint64_t>(c.training.diloco_steps);
  first.training = std::make_shared<const training_progress>(std::move(idle));
  first.peers = std::make_shared<const peer_list>();
  return first;
}

} // namespace neuroshard
