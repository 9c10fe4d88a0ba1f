#pragma once

#include "gateway/grpc/certificate.hpp"
#include "gateway/grpc/services.hpp"

#include <caf/expected.hpp>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace neuroshard::rpc {

struct server_options {
  std::string host;                            ///< IP address to listen on
  uint16_t port = 0;                           ///< 0: any that is free
  std::optional<node_certificate> certificate; ///< nothing: plain HTTP/2, loopback alone
};

/// The gRPC server of a node: Membership and NeuroShard, health checking and reflection, on gRPC's own
/// threads.
class server {
public:
  /// Refusal: unavailable, when the address cannot be listened on.
  static caf::expected<std::unique_ptr<server>> start(const server_options& options,
                                                      std::unique_ptr<service_parts> parts);
  ~server();
  server(const server&) = delete;

  uint16_t port() const noexcept { return port_; }
  /// What comes in from now on is refused as `draining`.
  void drain() noexcept { parts_->refuse_new(); }
  /// Ends what runs, after at most `patience_ms`. Idempotent.
  void stop(int64_t patience_ms);

private:
  server() = default;

  std::unique_ptr<service_parts> parts_;
  std::unique_ptr<grpc::Service> membership_, work_;
  std::unique_ptr<grpc::Server> server_;
  uint16_t port_ = 0;
};

/// What every server of nodes is set to (spec/grpc-api.md section 1).
void set_channel_rules(grpc::ServerBuilder& builder);

/// Sends what gRPC and protobuf have to say to the node's log, as debug lines: they tell of every refused
/// handshake and every malformed message.
void log_to_node_log();

} // namespace neuroshard::rpc
