#pragma once

#include "actors/relay/relay_actor.hpp"
#include "neuroshard/types.pb.h"

#include <caf/error.hpp>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <string>
#include <string_view>

/// Forward and Backward on the wire, and the structs of the actors. Reading checks sizes and ranges and the
/// tensors' bytes; what a value means for a model is the layer worker's to say. Deadlines are not the
/// codec's: the header says a budget.
namespace neuroshard::rpc {

/// What of a request's Header is the gateway's business.
struct call_header {
  std::string request_id;
  uint32_t budget_ms = 0;
};

/// 16 to 64 printable characters without a blank.
bool is_request_id(std::string_view text) noexcept;

/// Requests. Refusals of read(): invalid_request, naming the field.
caf::error read(const grpc::ByteBuffer& from, routed_forward& to, Header& header);
caf::error read(const grpc::ByteBuffer& from, routed_backward& to, Header& header);
caf::error write(const routed_forward& from, const call_header& header, grpc::ByteBuffer& to);
caf::error write(const routed_backward& from, const call_header& header, grpc::ByteBuffer& to);

/// Replies, no less hostile. Enum values that are not known are as if they were not there. Refusals of
/// read(): unavailable, reason `bad_reply`: another node may do better.
caf::error read(const grpc::ByteBuffer& from, routed_forward_reply& to);
caf::error read(const grpc::ByteBuffer& from, routed_backward_reply& to);
caf::error write(const routed_forward_reply& from, grpc::ByteBuffer& to);
caf::error write(const routed_backward_reply& from, grpc::ByteBuffer& to);

} // namespace neuroshard::rpc
