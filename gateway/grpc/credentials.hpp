#pragma once

#include "gateway/grpc/certificate.hpp"

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <mutex>
#include <optional>

/// Mutual TLS 1.3 between nodes: both sides show a certificate, and which node it belongs to is decided by
/// its hash alone.
namespace neuroshard::rpc {

/// What the other side of a client's connection has shown. Thread safe.
class shown_certificate {
public:
  void set(const kernels::digest& hash);
  std::optional<kernels::digest> get() const;

private:
  mutable std::mutex lock_;
  std::optional<kernels::digest> hash_;
};

/// Takes any client certificate, but wants one.
std::shared_ptr<grpc::ServerCredentials> server_credentials(const node_certificate& own);
/// Goes through with a connection only where the server shows the certificate `expected`, or any when there
/// is none; `shown` is told which.
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const node_certificate& own,
                                                              std::optional<kernels::digest> expected,
                                                              std::shared_ptr<shown_certificate> shown);

/// Makes TLS 1.2 impossible in this process: gRPC 1.51 has no setting for it. To be called before the first
/// credentials are made, while there is one thread.
void allow_tls_13_only();

} // namespace neuroshard::rpc
