#pragma once

#include "actors/common/clock.hpp"
#include "actors/peer_link/peer_link_actor.hpp"
#include "gateway/grpc/credentials.hpp"

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/channel_arguments.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

namespace neuroshard::rpc {

/// A peer has a connection for each: small and urgent calls do not wait for large ones.
enum class channel_use : uint8_t { control, decode, bulk };

using raw_stub = grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>;

/// What every channel between nodes is set to (spec/grpc-api.md section 1).
grpc::ChannelArguments channel_arguments();

/// Connections to other nodes: one for each address, certificate and use, closed after a minute without a
/// call. Thread safe.
class channel_pool {
public:
  struct connection {
    std::shared_ptr<grpc::Channel> channel;   ///< for streams, which have generated stubs
    std::shared_ptr<raw_stub> stub;           ///< of it
    std::shared_ptr<shown_certificate> shown; ///< null with grpc.insecure
  };

  channel_pool(std::optional<node_certificate> own, time_source_ptr time);

  connection to(const peer_address& peer, channel_use use = channel_use::control);
  void forget(const std::string& node_id);
  void close_idle();
  size_t size() const;

private:
  using key = std::tuple<std::string, std::optional<kernels::digest>, channel_use>;
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
