#include "gateway/node/checkpoint_groups.hpp"

#include "actors/checkpointer/checkpoint_receiver.hpp"
#include "actors/checkpointer/checkpoint_server.hpp"
#include "gateway/grpc/checkpoint_link.hpp"

#include <caf/actor_system.hpp>

#include <algorithm>
#include <utility>

namespace neuroshard {

namespace {

bool names_unit(const std::vector<unit_state>& units, const std::string& unit) {
  return std::any_of(units.begin(), units.end(), [&](const unit_state& one) { return one.unit == unit; });
}

/// Whether a node's signed record satisfies a condition; of a node that is not known nothing does.
template <class Condition>
bool record_says(const node_snapshot& now, const std::string& node_id, Condition condition) {
  return std::any_of(now.peers->begin(), now.peers->end(), [&](const peer_info& peer) {
    return peer.node.node_id == node_id && peer.state == peer_state::online && condition(peer.node);
  });
}

std::function<bool(const std::string&)> same_wallet(const model_plan& plan) {
  return [board = plan.board, address = plan.identity->address()](const std::string& node_id) {
    return record_says(*board->read(), node_id,
                       [&](const node_description& node) { return node.wallet_address == address; });
  };
}

checkpoint_server_actor make_server(caf::actor_system& system, const model_plan& plan) {
  checkpoint_server_options options;
  options.folder = checkpoint_folder(plan);
  options.architecture = plan.shape;
  options.tokenizer_hash = kernels::to_hex(plan.tokens->hash());
  options.same_wallet = same_wallet(plan);
  return system.spawn<caf::detached>(checkpoint_server, std::move(options), plan.identity, plan.time);
}

checkpoint_receiver_actor make_receiver(caf::actor_system& system, const model_plan& plan,
                                        const node_actors& fronts) {
  checkpoint_receiver_options options;
  options.folder = plan.paths.incoming_checkpoints();
  options.architecture = plan.shape;
  options.tokenizer_hash = kernels::to_hex(plan.tokens->hash());
  options.max_storage_mb = static_cast<uint64_t>(plan.config()->checkpoint.max_storage_mb);
  options.same_wallet = same_wallet(plan);
  options.cohort_member = [board = plan.board, architecture = model::architecture_id(plan.shape)](
                              const std::string& node_id, const std::string& unit) {
    const auto now = board->read();
    return names_unit(now->units, unit) && record_says(*now, node_id, [&](const node_description& node) {
             return node.architecture_id == architecture && names_unit(node.units, unit);
           });
  };
  checkpoint_receiver_parts parts{fronts.checkpoint_link, plan.time, plan.random};
  return system.spawn<caf::detached>(checkpoint_receiver, std::move(options), std::move(parts));
}

} // namespace

std::vector<start_group> checkpoint_groups(const std::shared_ptr<const model_plan>& plan,
                                           rpc::link_options link, const node_actors& fronts) {
  std::vector<start_group> groups;
  const auto add = [&](std::string name, const auto& front, auto make) {
    groups.push_back({name,
                      {{name, caf::actor_cast<caf::actor>(front),
                        [make](caf::actor_system& system) -> caf::expected<caf::actor> {
                          return caf::actor_cast<caf::actor>(make(system));
                        }}},
                      group_start::nothing});
  };
  add("checkpoint_link", fronts.checkpoint_link,
      [link](caf::actor_system& system) { return rpc::spawn_checkpoint_link(system, link); });
  add("checkpoint_server", fronts.checkpoint_server,
      [plan](caf::actor_system& system) { return make_server(system, *plan); });
  add("checkpoint_receiver", fronts.checkpoint_receiver,
      [plan, fronts](caf::actor_system& system) { return make_receiver(system, *plan, fronts); });
  return groups;
}

} // namespace neuroshard
