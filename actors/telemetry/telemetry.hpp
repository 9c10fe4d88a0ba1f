#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/telemetry/rates.hpp"
#include "actors/telemetry/resources.hpp"
#include "actors/telemetry/telemetry_actor.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// Whom telemetry asks, and where it publishes.
struct telemetry_sources {
  snapshot_board_ptr board;
  counters_ptr counters;
  time_source_ptr time;
  trainer_actor trainer;
  peer_manager_actor peers;
  layer_worker_actor worker;
  /// Actors asked for their status, with the health check (storage, model, network) each of them belongs to.
  std::vector<std::pair<std::string, caf::actor>> watched;
  /// The units held now, the roles that come with them, and their hashes at an outer step. May be empty: they
  /// stay as the board's first snapshot has them.
  struct held_part {
    std::vector<held_layer> layers;
    std::vector<node_role> roles;
    std::vector<unit_state> units;
  };
  std::function<held_part(uint64_t outer_step)> held;
  /// Rewards of the node's wallet; reads the book without waiting for its writer. May be empty.
  std::function<rewards_summary()> rewards;
  /// Bytes free where the data directory lies; storage is degraded below 1 GiB, in error below 64 MiB. May be
  /// empty.
  std::function<uint64_t()> disk_free;
};

struct telemetry_state {
  static inline const char* name = "telemetry";
  telemetry_sources from;
  node_snapshot next;
  node_state told = node_state::starting; ///< by whoever starts and ends the node
  resource_sampler resources;
  int64_t started_us = 0;
  windowed_rate requests_per_minute{60'000'000};
  windowed_rate steps_per_hour{3'600'000'000};
  /// The newest answer of each watched actor, and what was told by health_changed: part -> source -> value.
  std::map<std::string, std::map<std::string, std::string>> health;

  void collect_counters();
  void judge_health();
  void publish();
};

/// Scheduled; never blocks (the functions in `from` read memory or a read-only database connection, and stat
/// a directory).
telemetry_actor::behavior_type telemetry(telemetry_actor::stateful_pointer<telemetry_state> self,
                                         telemetry_sources from);

} // namespace neuroshard
