#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "actors/peer_manager/peer_manager_actor.hpp"
#include "actors/relay/relay_actor.hpp"
#include "gateway/grpc/admission.hpp"
#include "gateway/grpc/callers.hpp"
#include "gateway/grpc/replies.hpp"
#include "gateway/grpc/reply_desk.hpp"
#include "gateway/http/bridge.hpp"

#include <grpcpp/impl/codegen/service_type.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

namespace neuroshard::rpc {

/// What the services share. Lives as long as the server. Thread safe.
struct service_parts {
  peer_manager_actor peers;
  std::shared_ptr<caller_table> callers;
  std::string network;
  bool insecure = false;
  counters_ptr counters;
  time_source_ptr time;
  admission limits;
  reply_store replies;
  certificate_hashes certificates;
  relay_actor relay;                ///< null: Forward and Backward are not implemented
  std::unique_ptr<reply_desk> desk; ///< null where there is no relay
  // Set before the server starts; null: GetCheckpoint, or PutCheckpoint, is not implemented.
  checkpoint_server_actor checkpoints;
  checkpoint_receiver_actor uploads;
  gradient_exchanger_actor exchanger;                        ///< null: ExchangeGradient is not implemented
  int64_t stream_silence_ms = neuroshard::stream_silence_ms; ///< after which a stream is ended

  service_parts(caf::actor_system& system, peer_manager_actor peers, std::shared_ptr<caller_table> callers,
                std::string network, bool insecure, counters_ptr counters, time_source_ptr time,
                relay_actor relay = {})
      : peers(std::move(peers)), callers(std::move(callers)), network(std::move(network)), insecure(insecure),
        counters(std::move(counters)), time(time), limits(time), replies(time), relay(std::move(relay)),
        desk(this->relay ? std::make_unique<reply_desk>(system) : nullptr),
        bridge_(std::make_unique<http::bridge>(system)) {}

  /// Has the actors asked; a call that comes too late is dropped, which answers it.
  void submit(http::bridge_call_ptr call);
  bool stopping() const noexcept { return stopping_; }
  /// Nothing new is let in.
  void refuse_new() noexcept { stopping_ = true; }
  /// Drops every call that still waits for an actor, which answers it.
  void drop_waiting();

private:
  std::atomic<bool> stopping_{false};
  std::mutex lock_;
  std::unique_ptr<http::bridge> bridge_; ///< the one way to the actors
};

/// Membership: Announce, Heartbeat, Leave, FindPeers.
std::unique_ptr<grpc::Service> membership_service(service_parts& parts);
/// NeuroShard: Ping, Forward, Backward, ExchangeGradient, GetCheckpoint, PutCheckpoint.
std::unique_ptr<grpc::Service> work_service(service_parts& parts);

} // namespace neuroshard::rpc
