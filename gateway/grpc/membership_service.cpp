#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/unary.hpp"
#include "neuroshard/membership.grpc.pb.h"

namespace neuroshard::rpc {

namespace {

using membership_raw = Membership::WithRawCallbackMethod_Announce<
    Membership::WithRawCallbackMethod_Heartbeat<Membership::WithRawCallbackMethod_Leave<
        Membership::WithRawCallbackMethod_FindPeers<Membership::WithRawCallbackMethod_GetLayerMap<
            Membership::WithRawCallbackMethod_Publish<Membership::Service>>>>>>;

class membership_calls final : public membership_raw {
public:
  explicit membership_calls(service_parts& parts) : parts_(parts) {}

  grpc::ServerUnaryReactor* Announce(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                     grpc::ByteBuffer* out) override {
    return serve<AnnounceRequest, AnnounceResponse, announce_reply>(
        parts_, context, in, out, {"Announce", call_class::other, true}, parts_.peers,
        [this](const announce_reply& reply, const connection_end& end, AnnounceResponse& to) {
          if (end.tls_cert_sha256)
            parts_.callers->bind(*end.tls_cert_sha256, reply.bound_node_id, reply.bound_sequence);
          write(reply, to);
        });
  }
  grpc::ServerUnaryReactor* Heartbeat(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                      grpc::ByteBuffer* out) override {
    return serve<HeartbeatRequest, HeartbeatResponse, heartbeat_reply>(
        parts_, context, in, out, {"Heartbeat"}, parts_.peers,
        [](const heartbeat_reply& reply, const connection_end&, HeartbeatResponse& to) { write(reply, to); });
  }
  grpc::ServerUnaryReactor* Leave(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                  grpc::ByteBuffer* out) override {
    return serve<LeaveRequest, LeaveResponse, done_reply>(
        parts_, context, in, out, {"Leave"}, parts_.peers,
        [](const done_reply&, const connection_end&, LeaveResponse&) {});
  }
  grpc::ServerUnaryReactor* FindPeers(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                      grpc::ByteBuffer* out) override {
    return serve<FindPeersRequest, FindPeersResponse, find_peers_reply>(
        parts_, context, in, out, {"FindPeers"}, parts_.peers,
        [](const find_peers_reply& reply, const connection_end&, FindPeersResponse& to) {
          write(reply, to);
        });
  }
  grpc::ServerUnaryReactor* GetLayerMap(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                        grpc::ByteBuffer* out) override {
    return serve<GetLayerMapRequest, GetLayerMapResponse, get_layer_map_reply>(
        parts_, context, in, out, {"GetLayerMap"}, parts_.peers,
        [](const get_layer_map_reply& reply, const connection_end&, GetLayerMapResponse& to) {
          write(reply, to);
        });
  }
  grpc::ServerUnaryReactor* Publish(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                    grpc::ByteBuffer* out) override {
    return serve<PublishRequest, PublishResponse, publish_reply>(
        parts_, context, in, out, {"Publish", call_class::publish}, parts_.peers,
        [](const publish_reply& reply, const connection_end&, PublishResponse& to) { write(reply, to); });
  }

private:
  service_parts& parts_;
};

} // namespace

std::unique_ptr<grpc::Service> membership_service(service_parts& parts) {
  return std::make_unique<membership_calls>(parts);
}

} // namespace neuroshard::rpc
