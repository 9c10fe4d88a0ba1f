#pragma once

#include "actors/checkpointer/training_state.hpp"
#include "actors/common/actor_status.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "actors/peer_link/peer_link_actor.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// Checkpoints between nodes (spec/grpc-api.md section 4, GetCheckpoint and PutCheckpoint). The CHECKPOINT
/// SERVER reads what is on disk and hands it out in chunks; the CHECKPOINT RECEIVER fetches units from other
/// nodes, and takes what they upload; the CHECKPOINT LINK carries the streams.
namespace neuroshard {

inline constexpr uint32_t chunk_bytes_min = 64U << 10;
inline constexpr uint32_t chunk_bytes_max = 4U << 20;
inline constexpr uint64_t stream_bytes_max = uint64_t{64} << 30;
inline constexpr size_t checkpoint_streams_max = 4; ///< that are served at a time; one for each peer
inline constexpr size_t uploads_max = 2;            ///< that are taken at a time; one from each peer
inline constexpr int64_t stream_silence_ms = 30'000;
inline constexpr size_t wished_units_max = 4'096;

/// Which part of which checkpoint: GetCheckpointRequest without its header.
struct checkpoint_wish {
  uint64_t version = 0;           ///< outer step; 0: the newest
  uint64_t min_version = 0;       ///< an older one is not wanted
  std::vector<std::string> units; ///< empty: all that are held; "tokenizer" is one too
  bool include_optimizer = false; ///< for nodes of the same wallet: the newest full state, inner steps too
  bool include_velocity = false;
  uint32_t chunk_bytes = 0;    ///< 0: chunk_bytes_max
  uint64_t offset = 0;         ///< first byte of the stream that is wanted
  std::string checkpoint_id;   ///< 64 hex: exactly this one; empty: any
  std::string architecture_id; ///< empty: any
  bool manifest_only = false;
};

/// Opens a stream of this node's own checkpoints.
struct open_checkpoint {
  checkpoint_wish what;
  connection_end from; ///< filled in by the gateway; an empty node id: this node itself
};
struct checkpoint_opened {
  uint64_t stream_id = 0; ///< 0: manifest only
  signed_blob manifest;   ///< CheckpointManifest
  std::string checkpoint_id;
  uint64_t total_bytes = 0;
  uint32_t chunk_bytes = 0;
};
struct read_chunk {
  uint64_t stream_id = 0;
  uint64_t offset = 0;
};
struct checkpoint_chunk {
  uint64_t offset = 0; ///< of the first byte, in the uncompressed stream
  std::shared_ptr<const std::string> data;
  kernels::digest sha256{};
  bool last = false;
};
struct close_checkpoint {
  uint64_t stream_id = 0;
};

/// One message of a download: the manifest comes in the first.
struct checkpoint_part {
  uint64_t download_id = 0;
  std::optional<signed_blob> manifest;
  checkpoint_chunk chunk; ///< `data` null: none
};
struct checkpoint_download_end {
  uint64_t bytes = 0;
};
enum class put_status : uint8_t { stored = 1, partial = 2, already_have = 3, rejected = 4 };
struct put_checkpoint_reply {
  put_status status = put_status::rejected;
  uint64_t received_bytes = 0;
  std::string checkpoint_id;
  std::string message;
  uint64_t resume_offset = 0;
};

/// Takes units from whoever of the candidates gives what is expected.
struct fetch_units {
  std::vector<peer_address> candidates; ///< asked in this order
  uint64_t version = 0;                 ///< outer step
  std::vector<unit_state> expected;     ///< what more than half of each unit's holders announce
  bool include_velocity = false;        ///< compared with `expected` too
  bool include_tokenizer = false;
  std::string tokenizer_hash; ///< 64 hex; empty: this node's. Without units it may be of any version
};
struct fetched_units {
  uint64_t fetch_id = 0;
  uint64_t version = 0;
  std::string from; ///< node id; empty: what somebody had uploaded before
  uint64_t bytes = 0;
  training_state state; ///< the shared counters alone
  std::string tokenizer_hash;
  std::vector<tensor_entry> tensors; ///< weights, then "diloco.v/..." and "tokenizer"
  std::vector<std::string> refused;  ///< "<node>: <why>" of candidates before
};
/// One tensor of them, in host memory.
struct read_fetched {
  uint64_t fetch_id = 0;
  std::string name;
};
/// Writes all weights of them into a layer worker, one by one, and ends the load.
struct write_fetched {
  uint64_t fetch_id = 0;
  layer_worker_actor to;
  uint64_t optimizer_step = 0; ///< Adam t that the worker is to have
};
/// They are wanted no more.
struct drop_fetched {
  uint64_t fetch_id = 0;
};

/// An upload of another node: PutCheckpoint.
struct begin_upload {
  signed_blob manifest;
  connection_end from;
};
struct upload_begun {
  uint64_t upload_id = 0; ///< 0: it is here already
  std::string checkpoint_id;
  uint64_t resume_offset = 0;
  uint64_t total_bytes = 0;
};
struct upload_chunk {
  uint64_t upload_id = 0;
  checkpoint_chunk chunk;
};
struct end_upload {
  uint64_t upload_id = 0;
};
/// The stream broke; what came is kept for an hour.
struct abort_upload {
  uint64_t upload_id = 0;
};

/// Takes the parts of a download, one after another: the next is sent when this one is answered. An error
/// ends the download.
using checkpoint_sink_actor = caf::typed_actor<caf::replies_to<checkpoint_part>::with<void>>;
using checkpoint_chunks_actor = caf::typed_actor<caf::replies_to<read_chunk>::with<checkpoint_chunk>>;

/// GetCheckpoint of another node, into a sink. The call's budget is how long the peer may be silent.
struct checkpoint_download {
  checkpoint_wish what;
  uint64_t download_id = 0; ///< told to the sink with each part
  checkpoint_sink_actor sink;
};
/// PutCheckpoint to another node, of a stream that is open at this node's checkpoint server.
struct checkpoint_upload {
  signed_blob manifest;
  std::string architecture_id;
  bool manifest_only = false; ///< asks where to go on
  uint64_t offset = 0;        ///< where to go on
  uint64_t stream_id = 0;
  checkpoint_chunks_actor source;
};

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_checkpoint_stream, caf::first_custom_type_id + 1'200)
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::open_checkpoint))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::checkpoint_opened))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::read_chunk))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::checkpoint_chunk))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::close_checkpoint))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::checkpoint_part))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::peer_call<neuroshard::checkpoint_download>))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::checkpoint_download_end))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::peer_call<neuroshard::checkpoint_upload>))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::put_checkpoint_reply))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::fetch_units))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::fetched_units))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::read_fetched))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::write_fetched))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::drop_fetched))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::begin_upload))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::upload_begun))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::upload_chunk))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::end_upload))
CAF_ADD_TYPE_ID(neuroshard_checkpoint_stream, (neuroshard::abort_upload))
CAF_ADD_ATOM(neuroshard_checkpoint_stream, neuroshard, next_piece_atom, "piece")
CAF_ADD_ATOM(neuroshard_checkpoint_stream, neuroshard, try_again_atom, "again")
CAF_END_TYPE_ID_BLOCK(neuroshard_checkpoint_stream)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::open_checkpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_opened)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::read_chunk)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_chunk)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::close_checkpoint)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_part)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::checkpoint_download>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::checkpoint_download_end)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::peer_call<neuroshard::checkpoint_upload>)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::put_checkpoint_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::fetch_units)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::fetched_units)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::read_fetched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::write_fetched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::drop_fetched)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::begin_upload)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::upload_begun)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::upload_chunk)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::end_upload)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::abort_upload)

namespace neuroshard {

/// Refusals of open_checkpoint: not_found with reason `checkpoint` (no such version) or `unit`; forbidden
/// `optimizer`; failed_precondition `architecture`; overloaded `streams`; data_loss; invalid_request, with
/// reason `offset` past the end.
using checkpoint_server_actor = caf::typed_actor<
    // Opens a stream; answered once every stored byte of it was read and its checksum compared.
    caf::replies_to<open_checkpoint>::with<checkpoint_opened>,
    // The next bytes of one.
    caf::replies_to<read_chunk>::with<checkpoint_chunk>, caf::reacts_to<close_checkpoint>,
    // To itself: the next piece of an opening; a look at idle streams.
    caf::reacts_to<next_piece_atom>, caf::reacts_to<tick_atom>, caf::replies_to<drain_atom>::with<void>,
    caf::replies_to<status_atom>::with<actor_status>>;

using checkpoint_receiver_actor = caf::typed_actor<
    // Fetches units. Refusals: not_found with reason `no_candidate`, the problem's message naming each
    // candidate's fault; overloaded; storage.
    caf::replies_to<fetch_units>::with<fetched_units>, caf::replies_to<read_fetched>::with<tensor_handle>,
    caf::replies_to<write_fetched>::with<void>, caf::reacts_to<drop_fetched>,
    // A part of a running download.
    caf::replies_to<checkpoint_part>::with<void>,
    // Uploads of others. Refusals: forbidden `upload`; unauthorized; invalid_request; failed_precondition
    // `architecture`; overloaded `uploads` or `storage`.
    caf::replies_to<begin_upload>::with<upload_begun>, caf::replies_to<upload_chunk>::with<void>,
    caf::replies_to<end_upload>::with<put_checkpoint_reply>, caf::reacts_to<abort_upload>,
    // To itself.
    caf::reacts_to<try_again_atom>, caf::reacts_to<tick_atom>, caf::replies_to<drain_atom>::with<void>,
    caf::replies_to<status_atom>::with<actor_status>>;

using checkpoint_link_actor = caf::typed_actor<
    // Answered when the stream has ended well; a sink's error is the call's.
    caf::replies_to<peer_call<checkpoint_download>>::with<checkpoint_download_end>,
    caf::replies_to<peer_call<checkpoint_upload>>::with<put_checkpoint_reply>>;

} // namespace neuroshard
