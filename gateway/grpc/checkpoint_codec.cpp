#include "gateway/grpc/checkpoint_codec.hpp"

#include "actors/checkpointer/transfer_manifest.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/wire.hpp"

#include <zstd.h>

#include <algorithm>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t wished_unit_bytes_max = 16;
constexpr size_t put_message_max = 256;
constexpr int chunk_zstd_level = 1;

} // namespace

caf::expected<checkpoint_call> read(const GetCheckpointRequest& from) {
  checkpoint_call made;
  auto& what = made.what;
  if (from.codec() != CODEC_NONE && from.codec() != CODEC_ZSTD)
    return malformed("codec", "The codec is none that is known here.");
  if (static_cast<size_t>(from.units_size()) > wished_units_max)
    return malformed("units", "Too many units are asked for.");
  for (const auto& unit : from.units()) {
    if (unit.empty() || unit.size() > wished_unit_bytes_max)
      return malformed("units", "A unit's name is empty or too long.");
    what.units.push_back(unit);
  }
  if (from.checkpoint_id().size() > 64 || from.header().architecture_id().size() > 64)
    return malformed("checkpoint_id", "An id is too long.");
  made.codec = from.codec();
  what.version = from.version();
  what.min_version = from.min_version();
  what.include_optimizer = from.include_optimizer();
  what.include_velocity = from.include_velocity();
  what.chunk_bytes = from.chunk_bytes();
  what.offset = from.offset();
  what.checkpoint_id = from.checkpoint_id();
  what.architecture_id = from.header().architecture_id();
  what.manifest_only = from.manifest_only();
  return made;
}

void write(const checkpoint_wish& from, GetCheckpointRequest& to) {
  to.set_version(from.version);
  to.set_min_version(from.min_version);
  for (const auto& unit : from.units)
    to.add_units(unit);
  to.set_include_optimizer(from.include_optimizer);
  to.set_include_velocity(from.include_velocity);
  to.set_offset(from.offset);
  to.set_chunk_bytes(from.chunk_bytes);
  to.set_codec(CODEC_NONE);
  to.set_manifest_only(from.manifest_only);
  to.set_checkpoint_id(from.checkpoint_id);
  to.mutable_header()->set_architecture_id(from.architecture_id);
}

caf::expected<checkpoint_chunk> take_chunk(CheckpointChunk& from) {
  checkpoint_chunk made;
  made.offset = from.offset();
  made.last = from.last();
  if (from.data().empty())
    return made;
  if (from.sha256().size() != made.sha256.size())
    return malformed("sha256", "A chunk has a SHA-256.");
  std::copy(from.sha256().begin(), from.sha256().end(), made.sha256.begin());
  std::string data;
  if (from.codec() == CODEC_NONE) {
    data = std::move(*from.mutable_data());
  } else if (from.codec() == CODEC_ZSTD) {
    data.resize(chunk_bytes_max);
    const size_t bytes = ZSTD_decompress(data.data(), data.size(), from.data().data(), from.data().size());
    if (ZSTD_isError(bytes) != 0)
      return malformed("data", "The chunk's bytes do not decompress.");
    data.resize(bytes);
  } else {
    return malformed("codec", "The codec is none that is known here.");
  }
  if (data.size() > chunk_bytes_max)
    return malformed("data", "A chunk has at most 4 MiB.");
  made.data = std::make_shared<const std::string>(std::move(data));
  return made;
}

caf::error write(const checkpoint_chunk& from, Codec codec, CheckpointChunk& to) {
  to.set_offset(from.offset);
  to.set_last(from.last);
  to.set_sha256(from.sha256.data(), from.sha256.size());
  to.set_codec(codec);
  if (!from.data)
    return {};
  if (codec != CODEC_ZSTD) {
    to.set_data(*from.data);
    return {};
  }
  auto& packed = *to.mutable_data();
  packed.resize(ZSTD_compressBound(from.data->size()));
  const size_t bytes =
      ZSTD_compress(packed.data(), packed.size(), from.data->data(), from.data->size(), chunk_zstd_level);
  if (ZSTD_isError(bytes) != 0)
    return refuse(errc::internal, "A chunk could not be compressed.");
  packed.resize(bytes);
  return {};
}

caf::expected<signed_blob> read_manifest(const CheckpointChunk& from) {
  if (!from.has_manifest())
    return malformed("manifest", "The first message of a checkpoint has its manifest.");
  return read(from.manifest(), "manifest", transfer_manifest_bytes_max);
}

caf::expected<put_checkpoint_reply> read(const PutCheckpointResponse& from) {
  put_checkpoint_reply made;
  if (from.status() < PUT_STATUS_STORED || from.status() > PUT_STATUS_REJECTED ||
      from.checkpoint_id().size() > 64)
    return malformed("status", "The answer to an upload is malformed.");
  made.status = static_cast<put_status>(from.status());
  made.received_bytes = from.received_bytes();
  made.checkpoint_id = from.checkpoint_id();
  made.message = from.message().substr(0, put_message_max);
  made.resume_offset = from.resume_offset();
  return made;
}

void write(const put_checkpoint_reply& from, PutCheckpointResponse& to) {
  to.set_accepted(from.status == put_status::stored || from.status == put_status::already_have);
  to.set_received_bytes(from.received_bytes);
  to.set_checkpoint_id(from.checkpoint_id);
  to.set_status(static_cast<PutStatus>(from.status));
  to.set_message(from.message);
  to.set_resume_offset(from.resume_offset);
}

} // namespace neuroshard::rpc
