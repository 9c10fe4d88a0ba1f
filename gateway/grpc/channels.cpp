#include "gateway/grpc/channels.hpp"

#include "gateway/grpc/limits.hpp"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t channels_max = 512;

/// With the last channel that had a callback gRPC ends the threads that run them, and waits for these: where
/// the end of a call lets that channel go, such a thread would wait for itself, which ends the program. So
/// one channel, which leads nowhere, has had a callback and is never let go.
void keep_callback_threads() {
  struct call_to_nowhere {
    std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel("", nullptr, {});
    raw_stub stub{channel};
    grpc::ClientContext context;
    grpc::Slice byte{"x"};
    grpc::ByteBuffer request{&byte, 1}, reply;
    call_to_nowhere() {
      stub.UnaryCall(&context, "/", {}, &request, &reply, [](const grpc::Status&) {});
    }
  };
  static const auto& kept = *new call_to_nowhere;
  (void)kept;
}

} // namespace

grpc::ChannelArguments channel_arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(message_bytes_max);
  arguments.SetMaxSendMessageSize(message_bytes_max);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_timeout_ms);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, connect_timeout_ms);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Nodes are never to share a connection: what its certificate must be differs.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

channel_pool::channel_pool(std::optional<node_certificate> own, time_source_ptr time)
    : own_(std::move(own)), time_(std::move(time)) {
  keep_callback_threads();
}

channel_pool::connection channel_pool::to(const peer_address& peer, channel_use use) {
  const int64_t now_us = time_->steady_us();
  const std::lock_guard hold{lock_};
  const key where{peer.address, peer.tls_cert_sha256, use};
  if (const auto at = open_.find(where); at != open_.end()) {
    at->second.used_us = now_us;
    return at->second.open;
  }
  if (open_.size() >= channels_max)
    open_.erase(std::min_element(open_.begin(), open_.end(), [](const auto& a, const auto& b) {
      return a.second.used_us < b.second.used_us;
    }));
  entry made;
  made.node_id = peer.node_id;
  made.used_us = now_us;
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (own_) {
    made.open.shown = std::make_shared<shown_certificate>();
    credentials = channel_credentials(*own_, peer.tls_cert_sha256, made.open.shown);
  } else {
    credentials = grpc::InsecureChannelCredentials();
  }
  made.open.channel = grpc::CreateCustomChannel("dns:///" + peer.address, credentials, channel_arguments());
  made.open.stub = std::make_shared<raw_stub>(made.open.channel);
  return open_.emplace(where, std::move(made)).first->second.open;
}

void channel_pool::forget(const std::string& node_id) {
  const std::lock_guard hold{lock_};
  std::erase_if(open_, [&](const auto& one) { return one.second.node_id == node_id; });
}

void channel_pool::close_idle() {
  const int64_t now_us = time_->steady_us();
  const std::lock_guard hold{lock_};
  std::erase_if(
      open_, [&](const auto& one) { return now_us - one.second.used_us > int64_t{idle_channel_ms} * 1'000; });
}

size_t channel_pool::size() const {
  const std::lock_guard hold{lock_};
  return open_.size();
}

} // namespace neuroshard::rpc
