#pragma once

#include "gateway/grpc/certificate.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/services.hpp"
#include "gateway/grpc/status.hpp"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

/// One unary call from the bytes of a peer to the reply of an actor: limits first, then who calls, then
/// decoding.
namespace neuroshard::rpc {

/// The other end as the connection and the metadata tell, and what it is counted under. Refusals:
/// unimplemented (as failed_precondition with reason `protocol`), forbidden with reason `network`,
/// unauthorized.
struct caller {
  connection_end end;
  std::string counted_as;
};
caf::expected<caller> caller_of(const grpc::CallbackServerContext& context, const service_parts& parts);

/// How a method differs from the others.
struct method {
  const char* name;
  call_class limited_as = call_class::other;
  bool unbound_may_call = false; ///< Announce
};

/// The life of one call: ends exactly once.
class unary_call {
public:
  unary_call(service_parts& parts, grpc::CallbackServerContext& context, grpc::ByteBuffer& out)
      : parts_(parts), context_(context), out_(out), reactor_(context.DefaultReactor()) {}
  unary_call(const unary_call&) = delete;
  ~unary_call() { finish(refuse(errc::unavailable, "The node is stopping.")); }

  grpc::ServerUnaryReactor* reactor() const noexcept { return reactor_; }
  /// Lets the caller in; from then on it counts until the end.
  caf::expected<void> enter(const std::string& counted_as, call_class what);
  /// This call is the first of its kind: who repeats it gets its reply.
  void answers_for(reply_store::ticket first) { first_ = std::move(first); }
  void finish(const caf::error& why) { finish(why, {}); }
  void finish(const grpc::ByteBuffer& reply) { finish({}, reply); }
  /// The reply, or, where the error is set, why there is none.
  void finish(const caf::error& why, const grpc::ByteBuffer& reply);

private:
  service_parts& parts_;
  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer& out_;
  grpc::ServerUnaryReactor* reactor_;
  std::string counted_as_;
  bool entered_ = false;
  bool finished_ = false;
  reply_store::ticket first_;
};

/// What a call of a method that is not served here is told.
caf::error unimplemented();
/// What a call from a certificate that was not announced is told.
caf::error announce_first();
/// Whether this call is to be run: a repeated one gets the reply of the first.
bool is_first(const std::shared_ptr<unary_call>& call, service_parts& parts, const caller& from,
              const char* method_name, const std::string& request_id, const grpc::ByteBuffer& request);

/// The reply of an actor that only says that it is done.
struct done_reply {};

/// Asks an actor and hands its reply on, from the bridge's thread.
template <class Reply, class Handle, class Request>
class actor_call final : public http::bridge_call,
                         public std::enable_shared_from_this<actor_call<Reply, Handle, Request>> {
public:
  using done = std::function<void(caf::expected<Reply>)>;
  actor_call(Handle to, Request what, std::chrono::milliseconds timeout, done on_reply)
      : to_(std::move(to)), what_(std::move(what)), timeout_(timeout), done_(std::move(on_reply)) {}

  void run(caf::event_based_actor* self) override {
    const auto me = this->shared_from_this();
    auto asked = self->request(to_, timeout_, std::move(what_));
    if constexpr (std::is_same_v<Reply, done_reply>)
      asked.then([me] { me->done_(done_reply{}); }, [me](caf::error& why) { me->done_(std::move(why)); });
    else
      asked.then([me](Reply& reply) { me->done_(std::move(reply)); },
                 [me](caf::error& why) { me->done_(std::move(why)); });
  }

private:
  Handle to_;
  Request what_;
  std::chrono::milliseconds timeout_;
  done done_;
};

/// Checks a request's Header and its deadline: the time left, or why there is none.
caf::expected<std::chrono::milliseconds> time_left(const grpc::CallbackServerContext& context,
                                                   const Header* header);

/// A call whose bytes a codec of ours reads, once it is let in.
template <class Request>
struct let_in {
  Request what; ///< `from` is filled in
  std::string request_id;
  std::chrono::milliseconds left{};
};

/// Limits, caller, decoding, repetition, in that order. Nothing: the call has been answered, or will be with
/// the one it repeats. `read` makes the request and the Header of the bytes, or says what is wrong with them.
template <class Request, class Read>
std::optional<let_in<Request>> let_in_raw(const std::shared_ptr<unary_call>& call, service_parts& parts,
                                          const grpc::CallbackServerContext& context,
                                          const grpc::ByteBuffer& in, const method& how, bool served,
                                          Read read) {
  const auto stop = [&](const caf::error& why) {
    call->finish(why);
    return std::nullopt;
  };
  const auto from = caller_of(context, parts);
  if (!from)
    return stop(from.error());
  if (auto in_time = call->enter(from->counted_as, how.limited_as); !in_time)
    return stop(in_time.error());
  if (!served)
    return stop(unimplemented());
  if (from->end.node_id.empty())
    return stop(announce_first());
  let_in<Request> made;
  Header header;
  if (auto wrong = read(in, made.what, header))
    return stop(wrong);
  const auto left = time_left(context, &header);
  if (!left)
    return stop(left.error());
  if (!is_first(call, parts, *from, how.name, header.request_id(), in))
    return std::nullopt;
  made.what.from = from->end;
  made.request_id = header.request_id();
  made.left = *left;
  return made;
}

/// Serves a call: read() makes the actor's request of the message, `write` the message of its reply, and is
/// told the caller.
template <class In, class Out, class Reply, class Handle, class Write>
grpc::ServerUnaryReactor* serve(service_parts& parts, grpc::CallbackServerContext* context,
                                const grpc::ByteBuffer* in, grpc::ByteBuffer* out, const method& how,
                                const Handle& to, Write write) {
  const auto call = std::make_shared<unary_call>(parts, *context, *out);
  const auto stop = [&](const caf::error& why) {
    call->finish(why);
    return call->reactor();
  };
  auto from = caller_of(*context, parts);
  if (!from)
    return stop(from.error());
  if (auto in_time = call->enter(from->counted_as, how.limited_as); !in_time)
    return stop(in_time.error());
  In message;
  grpc::ByteBuffer bytes = *in; // shares the slices
  if (!grpc::SerializationTraits<In>::Deserialize(&bytes, &message).ok())
    return stop(refuse(errc::invalid_request, "The message is malformed."));
  const Header* header = nullptr;
  if constexpr (requires { message.header(); })
    header = &message.header();
  const auto left = time_left(*context, header);
  if (!left)
    return stop(left.error());
  auto request = read(message);
  if (!request)
    return stop(request.error());
  if (from->end.node_id.empty() && !how.unbound_may_call) {
    bool announces = false;
    if constexpr (requires { request->node.has_value(); })
      announces = request->node.has_value();
    if (!announces)
      return stop(announce_first());
  }
  if (header && !is_first(call, parts, *from, how.name, header->request_id(), *in))
    return call->reactor();
  request->from = from->end;
  auto* const reactor = call->reactor();
  parts.submit(std::make_shared<actor_call<Reply, Handle, std::decay_t<decltype(*request)>>>(
      to, std::move(*request), *left,
      [call, end = std::move(from->end), write = std::move(write)](caf::expected<Reply> reply) {
        if (!reply)
          return call->finish(reply.error());
        Out answer;
        write(*reply, end, answer);
        grpc::ByteBuffer made;
        bool own_buffer = false;
        if (!grpc::SerializationTraits<Out>::Serialize(answer, &made, &own_buffer).ok())
          return call->finish(refuse(errc::internal, "The reply could not be written."));
        call->finish(made);
      }));
  return reactor;
}

} // namespace neuroshard::rpc
