#include "gateway/grpc/link.hpp"

#include "gateway/grpc/channels.hpp"
#include "gateway/grpc/limits.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/status.hpp"
#include "neuroshard/membership.grpc.pb.h"
#include "neuroshard/work.grpc.pb.h"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <map>
#include <utility>

namespace neuroshard::rpc {

namespace {

using link_interface = peer_link_actor::extend<caf::reacts_to<call_end_ptr>, caf::reacts_to<tick_atom>>;

constexpr auto idle_check = std::chrono::seconds(10);
constexpr size_t calls_max = 1'024;

/// A call under way: gRPC fills it in, the link reads it after the end.
template <class In, class Out>
struct call_of {
  grpc::ClientContext context;
  In request;
  Out reply;
  grpc::Status status;
  channel_pool::connection over;
};

struct link_state {
  static inline const char* name = "peer_link";
  using pointer = link_interface::stateful_pointer<link_state>;

  pointer self = nullptr;
  link_options options;
  std::unique_ptr<channel_pool> channels;
  uint64_t next_call = 0;
  std::map<uint64_t, std::shared_ptr<grpc::ClientContext>> running;
  bool draining = false;

  /// Makes a call: `send` gives it to its stub; `finish` makes the actors' reply of it.
  template <class In, class Out, class Reply, class Request, class Send, class Finish>
  caf::result<Reply> make(peer_call<Request>& asked, Send send, Finish finish) {
    if (draining)
      return refuse(errc::draining, "The node is stopping.");
    if (running.size() >= calls_max)
      return refuse(errc::overloaded, "Too many calls to other nodes are under way.");
    const auto call = std::make_shared<call_of<In, Out>>();
    write(asked.what, call->request);
    if constexpr (requires { call->request.mutable_header(); }) {
      call->request.mutable_header()->set_request_id(random_hex(*options.random, 16));
      call->request.mutable_header()->set_budget_ms(asked.budget_ms);
    }
    auto& context = call->context;
    context.AddMetadata("ns-protocol", std::to_string(protocol_version));
    context.AddMetadata("ns-network", options.network);
    if (!options.certificate)
      context.AddMetadata("ns-node-id", options.own_node_id);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(asked.budget_ms));
    call->over = channels->to(asked.to);
    const uint64_t id = next_call++;
    running.emplace(id, std::shared_ptr<grpc::ClientContext>{call, &call->context});
    using promised = std::conditional_t<std::is_void_v<Reply>, caf::unit_t, Reply>;
    auto promise = self->template make_response_promise<promised>();
    const auto end = std::make_shared<const std::function<void()>>(
        [this, id, call, promise, to = asked.to, finish = std::move(finish)]() mutable {
          running.erase(id);
          if (!call->status.ok())
            return void(promise.deliver(error_of(call->status, call->context)));
          // Whom it was that answered is known with certificates alone.
          connection_end by;
          by.node_id = to.node_id;
          by.host = to.address.substr(0, to.address.rfind(':'));
          if (call->over.shown)
            by.tls_cert_sha256 = call->over.shown->get();
          if constexpr (std::is_void_v<Reply>) {
            promise.deliver(caf::unit);
          } else {
            auto reply = finish(call->reply, std::move(by));
            if (reply)
              promise.deliver(std::move(*reply));
            else
              promise.deliver(std::move(reply.error()));
          }
        });
    send(*call, [link = caf::actor_cast<caf::actor>(self), call, end](const grpc::Status& status) {
      call->status = status;
      caf::anon_send(link, call_end_ptr{end});
    });
    return promise;
  }
};

link_interface::behavior_type grpc_link(link_state::pointer self, link_options options) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.channels = std::make_unique<channel_pool>(state.options.certificate, state.options.time);
  self->delayed_send(self, idle_check, tick_atom_v);
  return {
      [self](peer_call<announce_request>& call) {
        return self->state.make<AnnounceRequest, AnnounceResponse, announce_reply>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->Announce(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const AnnounceResponse& from, connection_end by) {
              auto reply = read(from);
              if (reply)
                reply->by = std::move(by);
              return reply;
            });
      },
      [self](peer_call<heartbeat_request>& call) {
        return self->state.make<HeartbeatRequest, HeartbeatResponse, heartbeat_reply>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->Heartbeat(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const HeartbeatResponse& from, connection_end) { return read(from); });
      },
      [self](peer_call<leave_request>& call) {
        return self->state.make<LeaveRequest, LeaveResponse, void>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->Leave(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const LeaveResponse&, connection_end) {});
      },
      [self](peer_call<find_peers_request>& call) {
        return self->state.make<FindPeersRequest, FindPeersResponse, find_peers_reply>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->FindPeers(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const FindPeersResponse& from, connection_end) { return read(from); });
      },
      [self](peer_call<ping_request>& call) {
        return self->state.make<PingRequest, PingResponse, ping_reply>(
            call,
            [](auto& made, auto done) {
              NeuroShard::NewStub(made.over.channel)
                  ->async()
                  ->Ping(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const PingResponse& from, connection_end by) {
              auto reply = read(from);
              if (reply)
                reply->by = std::move(by);
              return reply;
            });
      },
      [self](peer_call<get_layer_map_request>& call) {
        return self->state.make<GetLayerMapRequest, GetLayerMapResponse, get_layer_map_reply>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->GetLayerMap(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const GetLayerMapResponse& from, connection_end) { return read(from); });
      },
      [self](peer_call<publish_request>& call) {
        return self->state.make<PublishRequest, PublishResponse, publish_reply>(
            call,
            [](auto& made, auto done) {
              Membership::NewStub(made.over.channel)
                  ->async()
                  ->Publish(&made.context, &made.request, &made.reply, std::move(done));
            },
            [](const PublishResponse& from, connection_end) { return read(from); });
      },
      [self](const forget_peer& who) {
        self->state.channels->forget(who.node_id);
        self->state.options.callers->unbind(who.node_id);
      },
      [self](drain_atom) {
        self->state.draining = true;
        for (const auto& [id, context] : self->state.running)
          context->TryCancel();
      },
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"channels", std::to_string(self->state.channels->size())},
                 {"calls", std::to_string(self->state.running.size())}}};
      },
      [](const call_end_ptr& end) { (*end)(); },
      [self](tick_atom) {
        self->state.channels->close_idle();
        self->delayed_send(self, idle_check, tick_atom_v);
      },
  };
}

} // namespace

peer_link_actor spawn_link(caf::actor_system& system, link_options options) {
  return system.spawn(grpc_link, std::move(options));
}

} // namespace neuroshard::rpc
