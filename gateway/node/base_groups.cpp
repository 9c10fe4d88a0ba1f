#include "gateway/node/base_groups.hpp"

#include "actors/identity/keys.hpp"
#include "actors/peer_manager/peer_manager.hpp"
#include "actors/proof_keeper/proof_keeper.hpp"
#include "actors/rate_limiter/rate_limiter.hpp"
#include "actors/relay/relay.hpp"
#include "actors/telemetry/telemetry.hpp"
#include "gateway/node/live_settings.hpp"

#include <caf/actor_system.hpp>

#include <sys/statvfs.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

namespace neuroshard {

namespace {

uint64_t free_bytes(const std::string& path) {
  struct statvfs info {};
  return ::statvfs(path.c_str(), &info) == 0 ? static_cast<uint64_t>(info.f_bavail) * info.f_frsize
                                             : UINT64_MAX;
}

caf::expected<caf::actor> make_proof_keeper(caf::actor_system& system, const base_plan& plan,
                                            const node_actors& fronts) {
  const auto supply = plan.reader->supply();
  if (!supply)
    return supply.error();
  const auto chain_id = digest_from_hex(supply->chain_id);
  if (!chain_id)
    return refuse(errc::data_loss, "the book's chain id is none: " + supply->chain_id);
  proof_keeper_options options;
  options.params = plan.book.params;
  options.chain_id = *chain_id;
  options.architecture_id = model::architecture_id(plan.shape);
  options.num_layers = static_cast<uint64_t>(plan.shape.num_layers);
  options.held = [held = plan.held]() -> held_layers {
    const auto range = held->read().value_or(held_range{});
    return {range.begin, range.end, range.embed, range.head};
  };
  proof_keeper_parts parts{plan.identity, fronts.trainer, fronts.ledger, fronts.peers,
                           plan.reader,   plan.time,      plan.random};
  return caf::actor_cast<caf::actor>(
      system.spawn<caf::detached>(proof_keeper, std::move(options), std::move(parts)));
}

/// The record of a node that was made anew must count for more than the one before it.
peer_manager_actor make_peer_manager(caf::actor_system& system, const base_plan& plan,
                                     const node_actors& fronts) {
  const auto config = plan.config();
  peer_manager_options options;
  options.own = plan.self;
  options.own.sequence = static_cast<uint64_t>(plan.time->unix_us());
  options.total_layers = static_cast<uint32_t>(plan.shape.num_layers);
  options.costs = costs_in_cohort(static_cast<uint64_t>(plan.shape.layer_parameters()),
                                  static_cast<uint64_t>(plan.shape.embed_parameters()),
                                  static_cast<uint64_t>(plan.shape.head_parameters()), plan.bf16);
  options.architecture = model::canonical_json(plan.shape);
  options.seed_peers = config->seed_peers;
  if (!config->tracker.empty())
    options.seed_peers.push_back(config->tracker);
  options.store_path = plan.paths.peers();
  options.stored = read_peers_file(options.store_path, plan.time->unix_us());
  options.peers_min = static_cast<size_t>(config->peers.min);
  options.peers_max = static_cast<size_t>(config->peers.max);
  peer_manager_parts parts{fronts.link, plan.identity, plan.time, plan.random};
  parts.placed = plan.placed;
  parts.network_parameters = plan.network_parameters;
  parts.exchanging = [held = plan.held] { return held->exchanging(); };
  parts.directory = plan.directory;
  parts.refresh = [board = plan.board, held = plan.held](node_description& own, training_report& training) {
    const auto now = board->read();
    const auto& t = *now->training;
    own.training = t.running;
    own.model_version = held->outer_step();
    own.accepting =
        (now->state == node_state::running || now->state == node_state::training) && !held->syncing();
    // Told also while it is loaded: `accepting` says whether it can be used.
    const auto range = held->read().value_or(held_range{});
    own.layer_begin = range.begin;
    own.layer_end = range.end;
    own.has_embedding = range.embed;
    own.has_lm_head = range.head;
    own.units = held->units_at(own.model_version);
    const double loss = t.loss.value_or(0);
    training = {t.inner_step, t.outer_step, std::isfinite(loss) ? loss : 0,
                t.shards_covered.empty() ? 0 : t.shards_covered.back(), t.tokens_trained};
  };
  return system.spawn(peer_manager, std::move(parts), std::move(options));
}

telemetry_sources sources_of(const base_plan& plan, const node_actors& fronts) {
  telemetry_sources sources;
  sources.board = plan.board;
  sources.counters = plan.counters;
  sources.time = plan.time;
  sources.trainer = fronts.trainer;
  sources.peers = fronts.peers;
  sources.worker = fronts.worker;
  sources.watched = {{"storage", caf::actor_cast<caf::actor>(fronts.ledger)},
                     {"storage", caf::actor_cast<caf::actor>(fronts.checkpointer)},
                     {"model", caf::actor_cast<caf::actor>(fronts.worker)},
                     {"model", caf::actor_cast<caf::actor>(fronts.trainer)},
                     {"network", caf::actor_cast<caf::actor>(fronts.peers)}};
  sources.rewards = [reader = plan.reader]() -> rewards_summary {
    const auto earned = reader->earnings();
    return earned ? rewards_summary{earned->earned_today, earned->earned_total, earned->pending}
                  : rewards_summary{};
  };
  sources.held = [held = plan.held, shape = plan.shape, bf16 = plan.bf16,
                  config = plan.config](uint64_t outer_step) -> telemetry_sources::held_part {
    const auto range = held->read().value_or(held_range{});
    const auto compute = bf16 ? kernels::dtype::bf16 : kernels::dtype::f32;
    return {layers_of(range, shape, compute, config()->training.enabled), roles_of(range),
            held->units_at(outer_step)};
  };
  sources.disk_free = [root = plan.paths.root] { return free_bytes(root); };
  return sources;
}

} // namespace

std::vector<start_group> base_groups(const std::shared_ptr<const base_plan>& plan,
                                     std::unique_ptr<account_book> opened, const node_actors& fronts) {
  std::vector<start_group> groups;
  const auto add = [&](std::string name, const auto& front, auto make) {
    groups.push_back(
        {name, {{name, caf::actor_cast<caf::actor>(front), std::move(make)}}, group_start::nothing});
  };
  // A std::function is copied, and so is what it holds.
  auto first = std::make_shared<std::unique_ptr<account_book>>(std::move(opened));
  add("ledger", fronts.ledger, [plan, first](caf::actor_system& system) -> caf::expected<caf::actor> {
    auto book = std::move(*first);
    if (!book) {
      auto again = open_book(plan->book);
      if (!again)
        return again.error();
      book = std::move(*again);
    }
    return caf::actor_cast<caf::actor>(spawn_ledger(system, std::move(book), plan->book));
  });
  add("rate_limiter", fronts.limiter, [plan](caf::actor_system& system) -> caf::expected<caf::actor> {
    return caf::actor_cast<caf::actor>(system.spawn(rate_limiter, limits_of(*plan->config()), plan->time));
  });
  add("peer_link", fronts.link, [plan](caf::actor_system& system) -> caf::expected<caf::actor> {
    return caf::actor_cast<caf::actor>(rpc::spawn_link(system, plan->link));
  });
  add("peer_manager", fronts.peers, [plan, fronts](caf::actor_system& system) -> caf::expected<caf::actor> {
    return caf::actor_cast<caf::actor>(make_peer_manager(system, *plan, fronts));
  });
  add("relay", fronts.relay, [plan, fronts](caf::actor_system& system) -> caf::expected<caf::actor> {
    relay_parts parts{fronts.worker, fronts.peers,  caf::actor_cast<work_link_actor>(fronts.link),
                      plan->time,    fronts.ledger, plan->identity,
                      plan->random};
    return caf::actor_cast<caf::actor>(
        system.spawn(relay, relay_options{plan->identity->node_id(), 256}, std::move(parts)));
  });
  add("proof_keeper", fronts.keeper,
      [plan, fronts](caf::actor_system& system) { return make_proof_keeper(system, *plan, fronts); });
  add("telemetry", fronts.telemetry, [plan, fronts](caf::actor_system& system) -> caf::expected<caf::actor> {
    return caf::actor_cast<caf::actor>(system.spawn(telemetry, sources_of(*plan, fronts)));
  });
  return groups;
}

} // namespace neuroshard
