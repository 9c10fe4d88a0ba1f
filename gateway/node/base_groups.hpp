#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/ledger.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/supervisor/supervisor_actor.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/node_config.hpp"
#include "gateway/grpc/link.hpp"
#include "kernels/model/architecture.hpp"

#include "actors/peer_manager/peer_directory.hpp"
#include "actors/peer_manager/placement.hpp"
#include "gateway/node/held_board.hpp"

#include <functional>
#include <memory>
#include <vector>

namespace neuroshard {

/// What the actors that a node has with and without a model (ledger, rate limiter, peer link, peer manager,
/// proof keeper, telemetry) are made from.
struct base_plan {
  std::function<std::shared_ptr<const node_config>()> config; ///< read anew at each start of an actor
  std::function<std::string()> network_parameters;            ///< for the layer map, as JSON; any thread
  data_paths paths;
  std::shared_ptr<const node_identity> identity;
  model::architecture shape;
  held_board_ptr held;
  std::function<void(const placement_changed&)> placed; ///< any thread
  bool bf16 = false;                                    ///< weights are computed with in bf16
  node_description self;                                ///< what this node says of itself to peers
  rpc::link_options link;
  std::shared_ptr<peer_directory> directory; ///< null: no DHT
  ledger_options book;
  std::shared_ptr<ledger_reader> reader;
  snapshot_board_ptr board;
  time_source_ptr time;
  random_source_ptr random;
  counters_ptr counters;
};

/// The groups, one for each actor, in the order in which the supervisor is to start them. The ledger's first
/// start takes `opened`; a restart opens the book again.
std::vector<start_group> base_groups(const std::shared_ptr<const base_plan>& plan,
                                     std::unique_ptr<account_book> opened, const node_actors& fronts);

} // namespace neuroshard
