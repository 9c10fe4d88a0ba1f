#include "gateway/grpc/checkpoint_service.hpp"
#include "gateway/grpc/exchange_service.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/unary.hpp"
#include "gateway/grpc/work_codec.hpp"
#include "neuroshard/work.grpc.pb.h"

#include <caf/actor_cast.hpp>

namespace neuroshard::rpc {

namespace {

using work_raw = NeuroShard::WithRawCallbackMethod_Ping<
    NeuroShard::WithRawCallbackMethod_Forward<NeuroShard::WithRawCallbackMethod_Backward<
        NeuroShard::WithRawCallbackMethod_ExchangeGradient<NeuroShard::WithCallbackMethod_GetCheckpoint<
            NeuroShard::WithCallbackMethod_PutCheckpoint<NeuroShard::Service>>>>>>;

class work_calls final : public work_raw {
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
  grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                    grpc::ByteBuffer* out) override {
    return relay<routed_forward, routed_forward_reply>(context, in, out, "Forward");
  }
  grpc::ServerUnaryReactor* Backward(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                     grpc::ByteBuffer* out) override {
    return relay<routed_backward, routed_backward_reply>(context, in, out, "Backward");
  }
  grpc::ServerUnaryReactor* ExchangeGradient(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                             grpc::ByteBuffer* out) override {
    return serve_exchange(parts_, context, in, out);
  }
  grpc::ServerWriteReactor<CheckpointChunk>* GetCheckpoint(grpc::CallbackServerContext* context,
                                                           const GetCheckpointRequest* request) override {
    return serve_get_checkpoint(parts_, context, request);
  }
  grpc::ServerReadReactor<CheckpointChunk>* PutCheckpoint(grpc::CallbackServerContext* context,
                                                          PutCheckpointResponse* response) override {
    return serve_put_checkpoint(parts_, context, response);
  }

private:
  /// Limits, caller, decoding; then the relay, which is asked without the bridge.
  template <class Request, class Reply>
  grpc::ServerUnaryReactor* relay(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                  grpc::ByteBuffer* out, const char* name) {
    const auto call = std::make_shared<unary_call>(parts_, *context, *out);
    auto asked = let_in_raw<Request>(
        call, parts_, *context, *in, {name, call_class::forward}, static_cast<bool>(parts_.relay),
        [](const grpc::ByteBuffer& bytes, Request& to, Header& header) { return read(bytes, to, header); });
    if (!asked)
      return call->reactor();
    asked->what.work.header.deadline_steady_us = parts_.time->steady_us() + asked->left.count() * 1'000;
    auto* const reactor = call->reactor();
    parts_.desk->ask(caf::actor_cast<caf::strong_actor_ptr>(parts_.relay),
                     caf::make_message(std::move(asked->what)), asked->left,
                     [call](caf::expected<caf::message> reply) {
                       if (!reply)
                         return call->finish(reply.error());
                       grpc::ByteBuffer made;
                       if (!reply->template match_elements<Reply>())
                         return call->finish(refuse(errc::internal, "the relay's answer is another"));
                       if (auto wrong = write(reply->template get_as<Reply>(0), made))
                         return call->finish(wrong);
                       call->finish(made);
                     });
    return reactor;
  }

  service_parts& parts_;
};

} // namespace

std::unique_ptr<grpc::Service> work_service(service_parts& parts) {
  return std::make_unique<work_calls>(parts);
}

} // namespace neuroshard::rpc
