#include "gateway/grpc/server.hpp"

#include "actors/common/error.hpp"
#include "actors/common/log.hpp"
#include "gateway/grpc/credentials.hpp"
#include "gateway/grpc/limits.hpp"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <mutex>
#include <thread>

namespace neuroshard::rpc {

namespace {

std::string listening_address(const std::string& host, uint16_t port) {
  const auto end = ":" + std::to_string(port);
  return host.find(':') != std::string::npos ? "[" + host + "]" + end : host + end;
}

void add_plugins_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

} // namespace

void set_channel_rules(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(message_bytes_max);
  builder.SetMaxSendMessageSize(message_bytes_max);
  // Two nodes on one port would share its connections at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_timeout_ms);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, keepalive_ms / 2);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 64);
}

caf::expected<std::unique_ptr<server>> server::start(const server_options& options,
                                                     std::unique_ptr<service_parts> parts) {
  add_plugins_once();
  std::unique_ptr<server> made{new server};
  made->parts_ = std::move(parts);
  made->membership_ = membership_service(*made->parts_);
  made->work_ = work_service(*made->parts_);
  const auto address = listening_address(options.host, options.port);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address,
                           options.certificate ? server_credentials(*options.certificate)
                                               : grpc::InsecureServerCredentials(),
                           &port);
  builder.RegisterService(made->membership_.get());
  builder.RegisterService(made->work_.get());
  set_channel_rules(builder);
  made->server_ = builder.BuildAndStart();
  if (!made->server_ || port == 0)
    return refuse(errc::unavailable, "cannot listen on " + address);
  made->port_ = static_cast<uint16_t>(port);
  return made;
}

void log_to_node_log() {
  gpr_set_log_function([](gpr_log_func_args* line) { log::debug("grpc", "{}", line->message); });
  google::protobuf::SetLogHandler([](google::protobuf::LogLevel, const char*, int, const std::string& what) {
    log::debug("protobuf", "{}", what);
  });
}

server::~server() {
  stop(0);
}

void server::stop(int64_t patience_ms) {
  if (!server_)
    return;
  parts_->refuse_new();
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  while (parts_->limits.running() > 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // Shutdown waits for every call, and a call for its actor.
  parts_->drop_waiting();
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
}

} // namespace neuroshard::rpc
