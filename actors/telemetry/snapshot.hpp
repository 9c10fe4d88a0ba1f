#pragma once

#include "actors/common/money.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/trainer/trainer_actor.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard {

/// States of the node (network page, section 5), by their names in /status.
enum class node_state : uint8_t { starting, syncing, running, training, draining, error };
const char* to_string(node_state s) noexcept;

/// One layer, embedding or head held here.
struct held_layer {
  uint32_t index = 0;
  std::string type; ///< transformer, embedding, lm_head
  uint32_t memory_mb = 0;
  std::string status; ///< active, loading, error
};

struct rewards_summary {
  neuro_amount earned_today, earned_total, pending;
};

/// Facts that never change while the process runs.
struct node_facts {
  std::string node_id; ///< 32 hex
  std::string address; ///< 0x + 40 hex
  std::string version; ///< of the software
  std::string architecture_id;
  std::string architecture_name; ///< preset
  uint32_t total_layers = 0;
  uint32_t hidden_dim = 0;
  uint64_t parameters = 0;
  uint32_t context_length = 0;
};

/// All that /status, /metrics, /health, /network, /layers and the training pages show, at one moment.
/// Immutable.
struct node_snapshot {
  int64_t unix_us = 0;
  uint64_t uptime_s = 0;
  node_state state = node_state::starting;
  node_facts identity;
  std::vector<node_role> roles; ///< in the order driver, validator, worker
  std::vector<held_layer> layers;
  std::vector<unit_state> units;  ///< hashes of what is held at the last outer step; empty while not known
  uint64_t model_version = 0;     ///< outer steps
  std::string serving_hash;       ///< of the newest serving copy; empty while unknown
  training_progress_ptr training; ///< never null
  peer_list_ptr peers;            ///< never null

  // resources
  uint64_t gpu_memory_used = 0, gpu_memory_total = 0;
  double cpu_percent = 0; ///< of the whole machine
  uint64_t ram_used = 0, ram_total = 0;
  uint64_t memory_offered_mb = 0, memory_used_mb = 0;

  // counters and rates
  uint64_t requests_total = 0, tokens_generated = 0;
  double requests_per_minute = 0, avg_latency_ms = 0, p99_latency_ms = 0;
  uint64_t steps_total = 0;
  double steps_per_hour = 0;
  uint64_t gradients_submitted = 0, gradients_accepted = 0;
  uint64_t bytes_sent = 0, bytes_received = 0, active_connections = 0, rpc_calls = 0;
  rewards_summary rewards;

  // health: ok, degraded, error; gpu also cpu_only
  std::string health_gpu = "cpu_only", health_network = "ok", health_storage = "ok",
              health_peers = "degraded", health_model = "ok";
  bool healthy() const {
    return health_network != "error" && health_storage != "error" && health_model != "error";
  }
};
using node_snapshot_ptr = std::shared_ptr<const node_snapshot>;

/// Where telemetry publishes, once a second and at every change of state. Any thread reads without an actor
/// round trip.
class snapshot_board {
public:
  explicit snapshot_board(node_snapshot first)
      : current_(std::make_shared<const node_snapshot>(std::move(first))) {}
  node_snapshot_ptr read() const { return current_.load(std::memory_order_acquire); }
  void publish(node_snapshot_ptr next) { current_.store(std::move(next), std::memory_order_release); }

private:
  std::atomic<std::shared_ptr<const node_snapshot>> current_;
};
using snapshot_board_ptr = std::shared_ptr<snapshot_board>;

} // namespace neuroshard
