#pragma once

#include "actors/common/clock.hpp"
#include "actors/peer_link/peer_link_actor.hpp"
#include "gateway/grpc/credentials.hpp"

#include <grpcpp/channel.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace neuroshard::rpc {

/// Connections to other nodes: one for each address and certificate, closed after a minute without a call.
/// Thread safe.
class channel_pool {
public:
  struct connection {
    std::shared_ptr<grpc::Channel> channel;
    std::shared_ptr<shown_certificate> shown; ///< null with grpc.insecure
  };

  channel_pool(std::optional<node_certificate> own, time_source_ptr time)
      : own_(std::move(own)), time_(std::move(time)) {}

  connection to(const peer_address& peer);
  void forget(const std::string& node_id);
  void close_idle();
  size_t size() const;

private:
  using key = std::pair<std::string, std::optional<kernels::digest>>;
  struct entry {
    connection open;
    std::string node_id;
    int64_t used_us = 0;
  };

  std::optional<node_certificate> own_;
  time_source_ptr time_;
  mutable std::mutex lock_;
  std::map<key, entry> open_;
};

} // namespace neuroshard::rpc
