#include "gateway/grpc/exchange_service.hpp"

#include "gateway/grpc/exchange_codec.hpp"
#include "gateway/grpc/unary.hpp"

#include <memory>
#include <utility>

namespace neuroshard::rpc {

grpc::ServerUnaryReactor* serve_exchange(service_parts& parts, grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* in, grpc::ByteBuffer* out) {
  const auto call = std::make_shared<unary_call>(parts, *context, *out);
  auto asked =
      let_in_raw<exchange_request>(call, parts, *context, *in, {"ExchangeGradient", call_class::exchange},
                                   static_cast<bool>(parts.exchanger),
                                   [](const grpc::ByteBuffer& bytes, exchange_request& to, Header& header) {
                                     return read(bytes, to, header);
                                   });
  if (!asked)
    return call->reactor();
  auto* const reactor = call->reactor();
  parts.submit(std::make_shared<actor_call<exchange_reply, gradient_exchanger_actor, exchange_request>>(
      parts.exchanger, std::move(asked->what), asked->left,
      [call, id = std::move(asked->request_id)](caf::expected<exchange_reply> reply) {
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
