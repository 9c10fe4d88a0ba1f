#pragma once

#include "actors/common/actor_status.hpp"
#include "actors/common/tensor_handle.hpp"

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/fwd.hpp>
#include <caf/replies_to.hpp>
#include <caf/type_id.hpp>
#include <caf/typed_actor.hpp>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

/// The LAYER WORKER: one device, its queue, a contiguous range of layers (and perhaps `embed` and `head`)
/// with their weights, gradients, optimizer state and KV caches. The messages are those of the gRPC methods
/// Forward and Backward, so that a request of a peer and one of this node's own trainer or scheduler are the
/// same thing. Long work is cut into slices: a decode waits for one slice, never for a training step. Order
/// of waiting work: decode, prefill, backward, forward, bulk.
namespace neuroshard::model {
class serving_copy;
}

namespace neuroshard {

enum class forward_mode : uint8_t { prefill = 1, decode = 2, train = 3, score = 4, bind = 5 };
enum class backward_action : uint8_t { gradient = 1, commit = 2, discard = 3, release = 4 };
enum class row_status : uint8_t {
  ok = 1,
  unknown_session = 2,
  cache_mismatch = 3,
  evicted = 4,
  no_memory = 5
};

/// How the head turns logits into a token. `step` is the Philox counter: a repeated call draws the same
/// token.
struct sample_spec {
  float temperature = 1;
  uint32_t top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
  uint64_t step = 0;
  uint32_t valid_vocab = 0;
  bool want_logprob = false;
};

/// Addresses a call: who continues which session with which weights.
struct work_header {
  std::string request_id;
  std::string session_id;
  uint64_t model_version = 0; ///< outer step of the weights
  std::string architecture_id;
  int64_t deadline_steady_us = 0; ///< 0: none; later work is answered with errc::timeout
  std::string trace_id = {};      ///< passed on along a route and logged with failures; may be empty
};

/// One row of a batch of different sessions (PREFILL, DECODE).
struct session_row {
  std::string session_id;
  uint32_t cache_position = 0;
  std::optional<sample_spec> sample;
  std::string request_id;
  bool close = false;
};

/// See ForwardRequest of the gRPC page for the meaning of each field. Token ids, positions and labels are i32
/// [batch, seq].
struct forward_request {
  work_header header;
  forward_mode mode = forward_mode::decode;
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  tensor_handle hidden;
  tensor_handle token_ids;
  tensor_handle positions;
  std::vector<uint32_t> sequence_lengths;
  uint32_t cache_position = 0;
  bool apply_head = false;
  tensor_handle labels;
  std::optional<sample_spec> sample;
  uint32_t microbatch_id = 0;
  uint64_t step = 0;
  kernels::dtype reply_dtype = kernels::dtype::unspecified;
  bool close_session = false;
  float loss_scale = 1;
  std::vector<session_row> rows;
  bool last_microbatch = false;
  bool omit_tensors = false;
};

struct row_reply {
  row_status status = row_status::ok;
  uint32_t cache_length = 0;
  uint64_t copy_id = 0;    ///< serving copy that the session is pinned to; 0: another node's, or none
  std::string failed_node; ///< of a routed call: where the row failed; empty: here, or nowhere
};

/// What one stage reports of its share of a call.
struct stage_report {
  uint32_t cache_length = 0;
  uint64_t compute_us = 0;
  uint64_t queue_us = 0;
  bool ready = false;      ///< every micro-batch of the step is accumulated here
  double grad_norm_sq = 0; ///< of the accumulated gradient, once ready
  uint64_t optimizer_step = 0;
};

struct forward_reply {
  std::string request_id;
  tensor_handle hidden;
  tensor_handle logits; ///< f32 [batch, vocab]
  std::vector<int32_t> sampled;
  std::vector<float> logprobs;
  double loss = 0; ///< mean over counted labels, unscaled
  uint32_t label_count = 0;
  tensor_handle grad_hidden;
  stage_report report;
  std::vector<row_reply> rows;
  double aux_loss = 0; ///< auxiliary loss of a mixture of experts, of this stage; of a routed call, of all
};

struct backward_request {
  work_header header;
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  uint32_t microbatch_id = 0;
  uint64_t step = 0;
  tensor_handle grad_output;
  backward_action action = backward_action::gradient;
  kernels::dtype reply_dtype = kernels::dtype::unspecified;
};

struct backward_reply {
  std::string request_id;
  tensor_handle grad_input;
  uint32_t inner_steps = 0; ///< COMMIT, RELEASE: steps committed in this round
  stage_report report;
};

/// The optimizer's settings; a stage computes the rate of a step from the step's number alone.
struct optimizer_settings {
  double learning_rate = 1e-4; ///< peak
  uint64_t warmup_steps = 1000;
  uint64_t decay_steps = 50000;
};

/// Opens a consistent view of all tensors at the present step boundary. Until it is closed, or every tensor
/// of it has been read, a COMMIT waits; forward and backward go on. One at a time.
struct open_snapshot {
  bool include_optimizer = true;
};
/// One tensor of a snapshot, of a checkpoint, of a unit.
struct tensor_entry {
  std::string name; ///< parameter name; optimizer state has the prefix "adam.m/" or "adam.v/"
  kernels::dtype type = kernels::dtype::f32;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};
struct snapshot_opened {
  uint64_t snapshot_id = 0;
  uint64_t optimizer_step = 0; ///< Adam t
  std::vector<tensor_entry> tensors;
};
/// Copies one tensor to host memory; the snapshot is closed with the last of them.
struct read_snapshot {
  uint64_t snapshot_id = 0;
  std::string name;
};
struct close_snapshot {
  uint64_t snapshot_id = 0;
};
/// Sets one tensor from host memory (resume, resync). Refused while a step is under way.
struct write_tensor {
  std::string name;
  tensor_handle value;
};
/// Ends a series of write_tensor: sets Adam's t and makes the layouts that the products read.
struct finish_load {
  uint64_t optimizer_step = 0;
};

/// Makes a new serving copy of the present weights, at a step boundary. Old copies live until their sessions
/// end, at most 120 s.
struct refresh_serving {
  uint64_t model_version = 0; ///< outer step it belongs to
  uint64_t inner_step = 0;
};
/// The serving copy that new sessions get.
struct serving_info {
  uint64_t copy_id = 0; ///< counts up with each refresh
  uint64_t model_version = 0;
  uint64_t inner_step = 0;
  uint64_t kv_blocks = 0; ///< of the whole KV pool; session_copy alone tells
};
/// Asks for the model hash of a serving copy; computed once, away from the device's queue. 64 hex digits.
struct serving_hash {
  uint64_t copy_id = 0; ///< 0: the newest
};
/// Which copy a session is pinned to, for serving_hash, and how large the pool of its keys and values is. An
/// empty id asks for the copy that new sessions get.
struct session_copy {
  std::string session_id;
};

inline constexpr size_t sample_draws_max = 4'096;
/// Asks for what a gradient commitment tells of the accumulated gradient (spec/economics.md section 9),
/// before clipping: the L2 norm of each held unit, and the values at `draws` modulo the number of the stage's
/// parameters, its units one after the other (embed, layers, head) and the tensors of a unit by name. Between
/// the report `ready` and COMMIT or DISCARD of `step`; else failed_precondition.
struct sample_gradient {
  std::string session_id;
  uint64_t step = 0;
  std::vector<uint64_t> draws; ///< at most sample_draws_max
};
/// What is not finite shows as it is.
struct gradient_sample {
  std::vector<std::pair<std::string, double>> unit_norms; ///< unit name, norm
  std::vector<float> values;                              ///< one a draw
};
using gradient_sample_ptr = std::shared_ptr<const gradient_sample>;

/// Internal: asks the helper for the hash of a copy.
struct hash_copy {
  std::shared_ptr<const model::serving_copy> copy;
};

/// Bytes by purpose, counted by the program from its plan (see train_bench: compared with the real peak).
struct memory_plan {
  std::vector<std::pair<std::string, uint64_t>> bytes;
  uint64_t total = 0;
};

using memory_plan_ptr = std::shared_ptr<const memory_plan>;

} // namespace neuroshard

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_layer_worker, caf::first_custom_type_id + 200)
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::forward_request))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::forward_reply))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::backward_request))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::backward_reply))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::optimizer_settings))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::open_snapshot))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::snapshot_opened))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::read_snapshot))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::close_snapshot))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::write_tensor))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::finish_load))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::refresh_serving))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::serving_info))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::serving_hash))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::session_copy))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::tensor_handle))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::memory_plan_ptr))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::hash_copy))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::sample_gradient))
CAF_ADD_TYPE_ID(neuroshard_layer_worker, (neuroshard::gradient_sample_ptr))
CAF_ADD_ATOM(neuroshard_layer_worker, neuroshard, slice_atom, "slice")
CAF_ADD_ATOM(neuroshard_layer_worker, neuroshard, plan_atom, "plan")
CAF_ADD_ATOM(neuroshard_layer_worker, neuroshard, lean_atom, "lean")
CAF_ADD_ATOM(neuroshard_layer_worker, neuroshard, threads_atom, "threads")
CAF_END_TYPE_ID_BLOCK(neuroshard_layer_worker)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::forward_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::forward_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::backward_request)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::backward_reply)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::optimizer_settings)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::open_snapshot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::snapshot_opened)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::read_snapshot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::close_snapshot)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::write_tensor)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::finish_load)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::refresh_serving)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::serving_info)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::serving_hash)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::session_copy)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::tensor_handle)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::memory_plan_ptr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::hash_copy)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::sample_gradient)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::gradient_sample_ptr)

namespace neuroshard {

using layer_worker_actor = caf::typed_actor<
    // Runs a range of layers on activations or token ids.
    caf::replies_to<forward_request>::with<forward_reply>,
    // Runs the same range backward; commits or discards a training step.
    caf::replies_to<backward_request>::with<backward_reply>,
    // Tells of the accumulated gradient what a proof commits to.
    caf::replies_to<sample_gradient>::with<gradient_sample_ptr>,
    // Changes the optimizer's settings from the next COMMIT on.
    caf::replies_to<optimizer_settings>::with<void>,
    // A consistent view of all tensors, read one by one.
    caf::replies_to<open_snapshot>::with<snapshot_opened>,
    caf::replies_to<read_snapshot>::with<tensor_handle>, caf::replies_to<close_snapshot>::with<void>,
    // Sets weights and optimizer state.
    caf::replies_to<write_tensor>::with<void>, caf::replies_to<finish_load>::with<void>,
    // Serving copies.
    caf::replies_to<refresh_serving>::with<serving_info>, caf::replies_to<serving_hash>::with<std::string>,
    caf::replies_to<session_copy>::with<serving_info>,
    // A stage that does not train lets go of its f32 weights, which nobody saves or copies any more: it
    // answers every later refresh_serving with the copy it has, until weights are written again.
    caf::reacts_to<lean_atom>,
    // The program's own count of its memory.
    caf::replies_to<plan_atom>::with<memory_plan_ptr>,
    // Changes the number of compute threads from the next slice on.
    caf::replies_to<threads_atom, uint32_t>::with<void>,
    // Internal: runs the next slice of waiting work.
    caf::reacts_to<slice_atom>,
    // Internal: idle sessions, retired serving copies.
    caf::reacts_to<tick_atom>, caf::replies_to<drain_atom>::with<void>,
    caf::replies_to<status_atom>::with<actor_status>>;

} // namespace neuroshard
