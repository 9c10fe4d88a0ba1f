#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace neuroshard {

/// What the node counts. Handed to every part that counts; telemetry reads them once a second. All relaxed
/// atomics, no locks.
struct node_counters {
  using counter = std::atomic<uint64_t>;

  counter inference_requests{0};  ///< admitted generations
  counter inference_tokens{0};    ///< tokens generated
  counter inference_running{0};   ///< gauge
  counter inference_queued{0};    ///< gauge
  counter training_steps{0};      ///< committed inner steps since the start of the process
  counter training_tokens{0};     ///< label tokens of those steps
  counter training_skipped{0};    ///< steps dropped for a non-finite loss or gradient
  counter gradients_submitted{0}; ///< contributions offered to other nodes
  counter gradients_accepted{0};
  counter bytes_sent{0};     ///< to peers
  counter bytes_received{0}; ///< from peers
  counter rpc_calls{0};
  counter http_requests{0};
  counter http_connections{0}; ///< gauge
  counter http_errors{0};      ///< responses with a status of 500
  counter rate_limited{0};
  counter auth_failures{0};
  counter checkpoints_saved{0};
  counter actor_restarts{0};

  /// Latency of finished generations, the last 1000, in microseconds: a ring written by the scheduler.
  static constexpr size_t latency_ring_size = 1000;
  std::array<std::atomic<uint32_t>, latency_ring_size> latency_us{};
  counter latency_count{0}; ///< how many were ever written
};
using counters_ptr = std::shared_ptr<node_counters>;

} // namespace neuroshard
