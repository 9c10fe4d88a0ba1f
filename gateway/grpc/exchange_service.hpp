#pragma once

#include "gateway/grpc/services.hpp"

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

namespace neuroshard::rpc {

/// ExchangeGradient: limits, caller, decoding; then the exchanger. Not implemented where there is none. A
/// reply above 64 KiB is not stored, so a repeated call runs again, which changes nothing.
grpc::ServerUnaryReactor* serve_exchange(service_parts& parts, grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* in, grpc::ByteBuffer* out);

} // namespace neuroshard::rpc
