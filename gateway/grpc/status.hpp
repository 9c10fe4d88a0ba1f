#pragma once

#include "actors/common/error.hpp"

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

/// Errors of the actors as gRPC has them (spec/grpc-api.md section 6), and back.
namespace neuroshard::rpc {

grpc::StatusCode code_for(errc code) noexcept;
/// The status of an error; its reason and what else programs need go to the trailing metadata `ns-...`.
grpc::Status answer_with(const caf::error& why, grpc::ServerContextBase& context);
/// What a peer's refusal says. The text is cut to 256 printable characters: it is somebody else's.
caf::error error_of(const grpc::Status& status, const grpc::ClientContext& context);

} // namespace neuroshard::rpc
