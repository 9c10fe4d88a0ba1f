#pragma once

#include "gateway/grpc/services.hpp"
#include "neuroshard/work.pb.h"

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

/// GetCheckpoint and PutCheckpoint from the bytes of a peer to the checkpoint server and receiver. One chunk
/// of a stream is under way at a time, so a slow peer holds one chunk and no more.
namespace neuroshard::rpc {

/// `request` lives as long as the call.
grpc::ServerWriteReactor<CheckpointChunk>* serve_get_checkpoint(service_parts& parts,
                                                                grpc::CallbackServerContext* context,
                                                                const GetCheckpointRequest* request);
grpc::ServerReadReactor<CheckpointChunk>* serve_put_checkpoint(service_parts& parts,
                                                               grpc::CallbackServerContext* context,
                                                               PutCheckpointResponse* response);

} // namespace neuroshard::rpc
