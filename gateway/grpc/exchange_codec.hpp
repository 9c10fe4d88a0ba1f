#pragma once

#include "actors/gradient_exchanger/gradient_exchanger_actor.hpp"
#include "gateway/grpc/work_codec.hpp"

#include <caf/error.hpp>
#include <grpcpp/support/byte_buffer.h>

#include <string>

/// ExchangeGradient on the wire. A part is copied once, from the slices of the message into the string that
/// the actors hand around; it is sent from where it lies.
namespace neuroshard::rpc {

/// Requests. Refusals of read(): invalid_request, naming the field.
caf::error read(const grpc::ByteBuffer& from, exchange_request& to, Header& header);
caf::error write(const exchange_request& from, const call_header& header, grpc::ByteBuffer& to);

/// Replies, no less hostile. Refusals of read(): unavailable, reason `bad_reply`.
caf::error read(const grpc::ByteBuffer& from, exchange_reply& to);
caf::error write(const exchange_reply& from, const std::string& request_id, grpc::ByteBuffer& to);

} // namespace neuroshard::rpc
