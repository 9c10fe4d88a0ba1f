#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/unary.hpp"
#include "neuroshard/work.grpc.pb.h"

namespace neuroshard::rpc {

namespace {

class work_calls final : public NeuroShard::WithRawCallbackMethod_Ping<NeuroShard::Service> {
public:
  explicit work_calls(service_parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* Ping(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                 grpc::ByteBuffer* out) override {
    return serve<PingRequest, PingResponse, ping_reply>(
        parts_, context, in, out, {"Ping", call_class::ping}, parts_.peers,
        [this](const ping_reply& reply, const connection_end& end, PingResponse& to) {
          if (end.tls_cert_sha256 && !reply.bound_node_id.empty())
            parts_.callers->bind(*end.tls_cert_sha256, reply.bound_node_id, reply.bound_sequence);
          write(reply, to);
        });
  }

private:
  service_parts& parts_;
};

} // namespace

std::unique_ptr<grpc::Service> work_service(service_parts& parts) {
  return std::make_unique<work_calls>(parts);
}

} // namespace neuroshard::rpc
