#include "gateway/grpc/exchange_service.hpp"

#include "gateway/grpc/exchange_codec.hpp"
#include "gateway/grpc/unary.hpp"

#include <memory>
#include <utility>

namespace neuroshard::rpc {

grpc::ServerUnaryReactor* serve_exchange(service_parts& parts, grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* in, grpc::ByteBuffer* out) {
  const auto call = std::make_shared<unary_call>(parts, *context, *out);
  const auto stop = [&](const caf::error& why) {
    call->finish(why);
    return call->reactor();
  };
  const auto from = caller_of(*context, parts);
  if (!from)
    return stop(from.error());
  if (auto in_time = call->enter(from->counted_as, call_class::exchange); !in_time)
    return stop(in_time.error());
  if (!parts.exchanger)
    return stop(unimplemented());
  if (from->end.node_id.empty())
    return stop(announce_first());
  exchange_request request;
  Header header;
  if (auto wrong = read(*in, request, header))
    return stop(wrong);
  const auto left = time_left(*context, &header);
  if (!left)
    return stop(left.error());
  if (!is_first(call, parts, *from, "ExchangeGradient", header.request_id(), *in))
    return call->reactor();
  request.from = from->end;
  auto* const reactor = call->reactor();
  parts.submit(std::make_shared<actor_call<exchange_reply, gradient_exchanger_actor, exchange_request>>(
      parts.exchanger, std::move(request), *left,
      [call, id = header.request_id()](caf::expected<exchange_reply> reply) {
        if (!reply)
          return call->finish(reply.error());
        grpc::ByteBuffer made;
        if (auto wrong = write(*reply, id, made))
          return call->finish(wrong);
        call->finish(made);
      }));
  return reactor;
}

} // namespace neuroshard::rpc
