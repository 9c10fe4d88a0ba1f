#include "gateway/grpc/link.hpp"

#include "gateway/grpc/channels.hpp"
#include "gateway/grpc/exchange_codec.hpp"
#include "gateway/grpc/limits.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/own_thread.hpp"
#include "gateway/grpc/status.hpp"
#include "gateway/grpc/work_codec.hpp"
#include "neuroshard/membership.pb.h"
#include "neuroshard/work.pb.h"

#include <caf/response_promise.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <chrono>
#include <map>
#include <mutex>
#include <utility>

namespace neuroshard::rpc {

namespace {

using link_interface = grpc_link_actor::extend<caf::reacts_to<call_end_ptr>, caf::reacts_to<tick_atom>>;

constexpr auto idle_check = std::chrono::seconds(10);
constexpr size_t calls_max = 1'024;
/// Tensors above this go over a connection of their own: a decode does not wait for one.
constexpr uint64_t bulk_from_bytes = 64 * 1024;

/// What a peer is asked for: the method, the messages of the wire and the actors' reply.
template <class In, class Out, class Reply>
struct messages {
  using in = In;
  using out = Out;
  using reply = Reply;
};
template <class Request>
struct method_of;
template <>
struct method_of<announce_request> : messages<AnnounceRequest, AnnounceResponse, announce_reply> {
  static constexpr const char* path = "/neuroshard.Membership/Announce";
};
template <>
struct method_of<heartbeat_request> : messages<HeartbeatRequest, HeartbeatResponse, heartbeat_reply> {
  static constexpr const char* path = "/neuroshard.Membership/Heartbeat";
};
template <>
struct method_of<leave_request> : messages<LeaveRequest, LeaveResponse, void> {
  static constexpr const char* path = "/neuroshard.Membership/Leave";
};
template <>
struct method_of<find_peers_request> : messages<FindPeersRequest, FindPeersResponse, find_peers_reply> {
  static constexpr const char* path = "/neuroshard.Membership/FindPeers";
};
template <>
struct method_of<get_layer_map_request>
    : messages<GetLayerMapRequest, GetLayerMapResponse, get_layer_map_reply> {
  static constexpr const char* path = "/neuroshard.Membership/GetLayerMap";
};
template <>
struct method_of<publish_request> : messages<PublishRequest, PublishResponse, publish_reply> {
  static constexpr const char* path = "/neuroshard.Membership/Publish";
};
template <>
struct method_of<ping_request> : messages<PingRequest, PingResponse, ping_reply> {
  static constexpr const char* path = "/neuroshard.NeuroShard/Ping";
};
/// These have no message of protobuf as a whole (work_codec.hpp).
template <>
struct method_of<routed_forward> : messages<void, void, routed_forward_reply> {
  static constexpr const char* path = "/neuroshard.NeuroShard/Forward";
};
template <>
struct method_of<routed_backward> : messages<void, void, routed_backward_reply> {
  static constexpr const char* path = "/neuroshard.NeuroShard/Backward";
};
template <>
struct method_of<exchange_request> : messages<void, void, exchange_reply> {
  static constexpr const char* path = "/neuroshard.NeuroShard/ExchangeGradient";
};

template <class Request>
constexpr bool is_work = std::is_void_v<typename method_of<Request>::in>;

channel_use use_for(const routed_forward& call) {
  return call.work.hidden && call.work.hidden.view.bytes() >= bulk_from_bytes ? channel_use::bulk
                                                                              : channel_use::decode;
}
channel_use use_for(const routed_backward&) {
  return channel_use::bulk;
}
channel_use use_for(const exchange_request&) {
  return channel_use::bulk;
}
template <class Request>
channel_use use_for(const Request&) {
  return channel_use::control;
}

/// A request as bytes.
template <class Request>
caf::error encode(const Request& what, const call_header& header, grpc::ByteBuffer& to) {
  if constexpr (is_work<Request>) {
    return write(what, header, to);
  } else {
    typename method_of<Request>::in message;
    write(what, message);
    if constexpr (requires { message.mutable_header(); }) {
      message.mutable_header()->set_request_id(header.request_id);
      message.mutable_header()->set_budget_ms(header.budget_ms);
    }
    bool own_buffer = false;
    if (!grpc::SerializationTraits<decltype(message)>::Serialize(message, &to, &own_buffer).ok())
      return refuse(errc::internal, "The request could not be written.");
    return {};
  }
}

/// The actors' reply of a peer's bytes, as a message to the one that asked.
template <class Request>
caf::message decode(grpc::ByteBuffer& bytes, connection_end by) {
  using reply_type = typename method_of<Request>::reply;
  if constexpr (is_work<Request>) {
    reply_type reply;
    if (auto wrong = read(bytes, reply))
      return caf::make_message(std::move(wrong));
    return caf::make_message(std::move(reply));
  } else {
    typename method_of<Request>::out message;
    if (!grpc::SerializationTraits<decltype(message)>::Deserialize(&bytes, &message).ok())
      return caf::make_message(refuse(errc::unavailable, "The peer's reply is malformed."));
    if constexpr (std::is_void_v<reply_type>) {
      return caf::make_message();
    } else {
      auto reply = read(message);
      if (!reply)
        return caf::make_message(std::move(reply.error()));
      if constexpr (requires { reply->by; })
        reply->by = std::move(by);
      return caf::make_message(std::move(*reply));
    }
  }
}

/// The calls under way, for those who end them. Thread safe.
class call_table {
public:
  uint64_t add(std::shared_ptr<grpc::ClientContext> call) {
    const std::lock_guard hold{lock_};
    running_.emplace(++last_, std::move(call));
    return last_;
  }
  void remove(uint64_t id) {
    const std::lock_guard hold{lock_};
    running_.erase(id);
  }
  void cancel_all() {
    const std::lock_guard hold{lock_};
    for (const auto& [id, context] : running_)
      context->TryCancel();
  }
  size_t size() const {
    const std::lock_guard hold{lock_};
    return running_.size();
  }

private:
  mutable std::mutex lock_;
  uint64_t last_ = 0;
  std::map<uint64_t, std::shared_ptr<grpc::ClientContext>> running_;
};

/// A call under way: gRPC fills it in.
struct outgoing {
  grpc::ClientContext context;
  grpc::ByteBuffer request;
  grpc::ByteBuffer reply;
  channel_pool::connection over;
};

struct link_state {
  static inline const char* name = "peer_link";
  using pointer = link_interface::stateful_pointer<link_state>;

  pointer self = nullptr;
  link_options options;
  std::unique_ptr<channel_pool> channels;
  std::shared_ptr<call_table> running = std::make_shared<call_table>();
  bool draining = false;

  /// The id of a call that goes through several nodes stays the same; one that breaks the rules is replaced.
  template <class Request>
  std::string request_id(const Request& what) {
    if constexpr (requires { what.work.header; })
      if (is_request_id(what.work.header.request_id))
        return what.work.header.request_id;
    return random_hex(*options.random, 16);
  }

  template <class Request>
  auto make(peer_call<Request>& asked) -> caf::result<typename method_of<Request>::reply> {
    using reply_type = typename method_of<Request>::reply;
    if (draining)
      return refuse(errc::draining, "The node is stopping.");
    if (running->size() >= calls_max)
      return refuse(errc::overloaded, "Too many calls to other nodes are under way.");
    const auto call = std::make_shared<outgoing>();
    if (auto wrong = encode(asked.what, {request_id(asked.what), asked.budget_ms}, call->request))
      return wrong;
    auto& context = call->context;
    context.AddMetadata("ns-protocol", std::to_string(protocol_version));
    context.AddMetadata("ns-network", options.network);
    if (!options.certificate)
      context.AddMetadata("ns-node-id", options.own_node_id);
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(asked.budget_ms));
    call->over = channels->to(asked.to, use_for(asked.what));
    const uint64_t id = running->add(std::shared_ptr<grpc::ClientContext>{call, &context});
    auto promise = self->template make_response_promise<
        std::conditional_t<std::is_void_v<reply_type>, caf::unit_t, reply_type>>();
    caf::response_promise& untyped = promise;
    call->over.stub->UnaryCall(
        &context, method_of<Request>::path, {}, &call->request, &call->reply,
        [call, id, to = std::move(asked.to), table = running, promised = untyped,
         link = caf::actor_cast<caf::strong_actor_ptr>(self)](const grpc::Status& status) mutable {
          table->remove(id);
          caf::message answer;
          if (status.ok()) {
            // Whom it was that answered is known with certificates alone.
            connection_end by;
            by.node_id = to.node_id;
            by.host = to.address.substr(0, to.address.rfind(':'));
            if (call->over.shown)
              by.tls_cert_sha256 = call->over.shown->get();
            answer = decode<Request>(call->reply, std::move(by));
          } else {
            answer = caf::make_message(error_of(status, call->context));
          }
          deliver(std::move(link), std::move(promised), std::move(answer), is_work<Request>);
        });
    return promise;
  }

  /// Answers from gRPC's thread; by way of the link where the message goes through others on its way back.
  /// Who waits for work goes on at once, on this thread; control may take its time.
  static void deliver(caf::strong_actor_ptr link, caf::response_promise promise, caf::message answer,
                      bool at_once) {
    if (promise.async())
      return;
    if (promise.stages().empty()) {
      const auto id = promise.id().response_id();
      if (const auto source = promise.source(); source && at_once)
        send_and_run(source, std::move(link), id, std::move(answer));
      else if (source)
        source->enqueue(std::move(link), id, std::move(answer), nullptr);
      return;
    }
    const auto end = std::make_shared<const std::function<void()>>([promise, answer]() mutable {
      if (answer.match_elements<caf::error>())
        promise.deliver(answer.get_as<caf::error>(0));
      else
        promise.deliver(std::move(answer));
    });
    caf::anon_send(caf::actor_cast<caf::actor>(link), call_end_ptr{end});
  }
};

link_interface::behavior_type grpc_link(link_state::pointer self, link_options options) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.channels = std::make_unique<channel_pool>(state.options.certificate, state.options.time);
  self->delayed_send(self, idle_check, tick_atom_v);
  return {
      [self](peer_call<announce_request>& call) { return self->state.make(call); },
      [self](peer_call<heartbeat_request>& call) { return self->state.make(call); },
      [self](peer_call<leave_request>& call) { return self->state.make(call); },
      [self](peer_call<find_peers_request>& call) { return self->state.make(call); },
      [self](peer_call<ping_request>& call) { return self->state.make(call); },
      [self](peer_call<get_layer_map_request>& call) { return self->state.make(call); },
      [self](peer_call<publish_request>& call) { return self->state.make(call); },
      [self](peer_call<routed_forward>& call) { return self->state.make(call); },
      [self](peer_call<routed_backward>& call) { return self->state.make(call); },
      [self](peer_call<exchange_request>& call) { return self->state.make(call); },
      [self](const forget_peer& who) {
        self->state.channels->forget(who.node_id);
        self->state.options.callers->unbind(who.node_id);
      },
      [self](drain_atom) {
        self->state.draining = true;
        self->state.running->cancel_all();
      },
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"channels", std::to_string(self->state.channels->size())},
                 {"calls", std::to_string(self->state.running->size())}}};
      },
      [](const call_end_ptr& end) { (*end)(); },
      [self](tick_atom) {
        self->state.channels->close_idle();
        self->delayed_send(self, idle_check, tick_atom_v);
      },
  };
}

} // namespace

grpc_link_actor spawn_link(caf::actor_system& system, link_options options) {
  return system.spawn(grpc_link, std::move(options));
}

} // namespace neuroshard::rpc
