#pragma once

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "neuroshard/work.pb.h"

#include <caf/expected.hpp>

/// Generated messages of GetCheckpoint and PutCheckpoint, and the structs of the actors. Refusals name the
/// field.
namespace neuroshard::rpc {

struct checkpoint_call {
  checkpoint_wish what;
  Codec codec = CODEC_NONE;
};
caf::expected<checkpoint_call> read(const GetCheckpointRequest& from);
/// Without the header's request id and budget.
void write(const checkpoint_wish& from, GetCheckpointRequest& to);

/// What the message has beside the manifest; its bytes are taken out of it. `data` is null when there are
/// none. Decompression is bounded by the size of a chunk.
caf::expected<checkpoint_chunk> take_chunk(CheckpointChunk& from);
/// Refusal: internal, when the bytes cannot be compressed.
caf::error write(const checkpoint_chunk& from, Codec codec, CheckpointChunk& to);
/// The manifest of a stream's first message. Refusal: invalid_request.
caf::expected<signed_blob> read_manifest(const CheckpointChunk& from);

caf::expected<put_checkpoint_reply> read(const PutCheckpointResponse& from);
void write(const put_checkpoint_reply& from, PutCheckpointResponse& to);

} // namespace neuroshard::rpc
