#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/model/parameters.hpp"
#include "kernels/model/serving_copy.hpp"
#include "kernels/model/sliced.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neuroshard::model {

/// What a stage holds and how much it may use. Everything is allocated at start.
struct stage_options {
  int64_t layer_begin = 0; ///< layers [begin, end); may be empty for an embedding or a head alone
  int64_t layer_end = 0;
  bool embed = false; ///< holds `embed`
  bool head = false;  ///< holds `head`; needs layer_end == num_layers. A tied head needs `embed` too
  kernels::dtype compute = kernels::dtype::f32; ///< f32 or bf16
  bool train = true; ///< gradients, moments, activations are allocated only then; see also release_masters
  std::optional<bool> recompute; ///< of activations in backward; absent: with more than 16 layers
  int64_t train_tokens_max = 0;  ///< rows of one micro-batch (sequences x positions)
  int train_slots = 0; ///< micro-batches whose activations are kept at once; 0: 1 with the head, else 4
  uint64_t kv_pool_bytes = 0; ///< 0: no inference here
  int64_t sessions_max = 64;
  /// A session that was used more lately never makes room for another (see session_table). 0: any may that is
  /// not part of a call.
  std::chrono::steady_clock::duration idle_after = std::chrono::seconds(30);
  int64_t decode_rows_max = 64;
  int64_t prefill_rows_max = 512;
  int64_t head_tile_rows = 256; ///< rows whose logits exist at once in training and scoring
  double slice_flops = 1.6e9;   ///< products are cut to about so much work per slice
};

/// Bytes by purpose. What is allocated at start, and what serving copies hold now.
struct memory_use {
  uint64_t weights = 0; ///< layouts that training's products read, made from the masters
  uint64_t master = 0;
  uint64_t gradients = 0;
  uint64_t moments = 0;
  uint64_t serving = 0; ///< all live copies
  uint64_t activations = 0;
  uint64_t kv_pool = 0;
  uint64_t workspace = 0; ///< scratch of inference, of the head's tiles and of the operations
  uint64_t total() const noexcept {
    return weights + master + gradients + moments + serving + activations + kv_pool + workspace;
  }
};

/// Rows of activations or gradients, [rows, d] contiguous, f32 or bf16; host memory or memory of the stage's
/// device.
struct activations {
  kernels::tensor view;
  std::shared_ptr<const void> owner; ///< keeps the bytes alive
  explicit operator bool() const noexcept { return static_cast<bool>(view); }
};

/// Names saved activations.
struct microbatch_key {
  std::string session;
  uint64_t step = 0;
  uint32_t microbatch = 0;
  friend bool operator==(const microbatch_key&, const microbatch_key&) = default;
};

struct train_input {
  microbatch_key key;
  int64_t sequences = 1;              ///< B
  int64_t positions_per_sequence = 1; ///< S
  std::vector<int32_t> token_ids;     ///< [B*S] where the stage holds `embed`, else empty
  activations hidden;                 ///< [B*S, d] otherwise
  std::vector<int32_t> positions;     ///< [B*S]; empty: 0 ... S-1 in each sequence
  std::vector<int32_t> lengths;       ///< [B] valid positions (right padding); empty: all
  std::vector<int32_t> labels;        ///< [B*S], -100 ignored; where the stage holds `head`
  float loss_scale = 1;               ///< labels of this micro-batch / labels of the batch
  bool keep_input_gradient = true;    ///< head stage: keep it for backward(); false: return it in the output
  kernels::dtype reply =
      kernels::dtype::unspecified; ///< of activations handed on; unspecified: the compute dtype
};

struct train_output {
  activations hidden;     ///< without head: output of the last layer, host memory
  activations grad_input; ///< head stage without embed and with keep_input_gradient == false
  double loss = 0;        ///< head: mean over counted labels, unscaled; 0 when there are none
  uint32_t label_count = 0;
};

struct optimizer_step {
  float learning_rate = 0;
  float beta1 = 0.9F, beta2 = 0.95F, eps = 1e-8F;
  double clip_norm = 0; ///< 0: sqrt(params_local / params_total)
};

struct apply_output {
  double grad_norm_sq = 0;
  double clip_factor = 1;
  uint64_t t = 0; ///< Adam's t after the step
};

/// What tells of an accumulated gradient (before clipping) that it was computed.
struct gradient_probe {
  std::vector<double> unit_norms; ///< L2 norm of each held unit, in the order of stage::units()
  std::vector<float> values;      ///< one a draw
};

/// SCORE: loss over labels, or hidden, or logits of the last valid position of each sequence.
struct score_input {
  int64_t sequences = 1;
  int64_t positions_per_sequence = 1;
  std::vector<int32_t> token_ids;
  activations hidden;
  std::vector<int32_t> positions, lengths, labels;
  serving_ptr weights; ///< null: the inner weights
  kernels::dtype reply = kernels::dtype::unspecified;
};
struct score_output {
  double loss = 0;
  uint32_t label_count = 0;
  activations hidden; ///< without head
  activations logits; ///< head without labels: f32 [B, V]
};

/// RowStatus of the gRPC page.
enum class infer_status : uint8_t {
  ok = 1,
  unknown_session = 2,
  cache_mismatch = 3,
  evicted = 4,
  no_memory = 5
};

/// `count` new positions of one session. Position 0 creates the session (or empties it), pinned to `weights`
/// of the call; a position below the held length truncates; above it the row fails with cache_mismatch.
struct infer_row {
  std::string session;
  uint32_t cache_position = 0;
  int64_t count = 1;                            ///< 0 with `close`: only frees
  bool close = false;                           ///< free the session after the call
  std::optional<kernels::sample_params> sample; ///< every row has it or none; needs the head
  bool want_logprob = true;                     ///< costs a pass over the vocabulary
};

/// What the last positions' rows become.
enum class infer_result : uint8_t { nothing, hidden, logits, token };

struct infer_input {
  std::vector<infer_row> rows;    ///< different sessions
  std::vector<int32_t> token_ids; ///< all rows' positions one after another; where the stage holds `embed`
  activations hidden;             ///< otherwise, same order
  infer_result want = infer_result::nothing;
  serving_ptr weights; ///< for sessions created by this call; null: the newest copy. Others keep theirs
  std::chrono::steady_clock::time_point now; ///< last use of the sessions
  kernels::dtype reply = kernels::dtype::unspecified;
};

struct infer_row_output {
  infer_status status = infer_status::ok;
  uint32_t cache_length = 0; ///< after the call; of a failed row what is held
  int32_t token = -1;        ///< infer_result::token
  float logprob = 0;
};

struct infer_output {
  std::vector<infer_row_output> rows;
  activations hidden; ///< all positions of the rows that succeeded, in order; host memory
  activations logits; ///< f32 [rows, V], last position of each row; zero in failed rows; host memory
};

/// Which flat buffer of a parameter.
enum class parameter_part : uint8_t { weight, gradient, first_moment, second_moment };

struct stage_state;

/// A contiguous range of layers, perhaps with embedding and head, on one device with one queue: the plain
/// logic of the layer worker. One thread uses it at a time. Everything long is `sliced`; at most one
/// forward_train, backward, apply or discard, one score, one prefill and one decode may be under way
/// together, in any interleaving, and serving copies may be made beside inference. A second of a kind, and
/// training work beside apply, is refused with invalid_argument. Spec: model.md, training.md section 2.
class stage {
public:
  /// Allocates everything; weights are not set (see initialize, write). Errors: invalid_argument,
  /// out_of_memory, unsupported.
  static kernels::result<std::unique_ptr<stage>> make(kernels::device_ptr device, architecture shape,
                                                      stage_options options);
  ~stage();
  stage(const stage&) = delete;
  stage& operator=(const stage&) = delete;

  const architecture& shape() const noexcept;
  const stage_options& options() const noexcept;
  kernels::queue& queue() noexcept;
  /// embed, layer.begin ..., head as held.
  std::span<const unit> units() const noexcept;
  int64_t parameters() const noexcept;
  memory_use planned() const;
  /// Columns of logits that exist (the tokenizer's size); at start vocab_capacity. 1 ... vocab_capacity.
  kernels::status set_valid_vocab(int64_t columns);

  // --- weights

  /// Initial values of all units from a seed, moments and gradients zero, t = 0.
  sliced<kernels::status> initialize(uint64_t seed);
  /// Elements [first, first + out.size()) of a parameter's buffer, to host memory; waits. Errors: unknown
  /// name, range.
  kernels::status read(std::string_view name, parameter_part part, int64_t first, std::span<float> out);
  kernels::status write(std::string_view name, parameter_part part, int64_t first, std::span<const float> in);
  /// After write(): makes the layouts that training's products read.
  sliced<kernels::status> refresh_weights();
  /// A stage that does not train needs the f32 weights only to make its serving copy: this frees them once
  /// there is one. Until write() or initialize() allocates them again, reading weights and making a copy are
  /// refused. Errors: invalid_argument (it trains, there is no copy yet, something is under way).
  kernels::status release_masters();
  bool holds_masters() const noexcept;
  uint64_t optimizer_t() const noexcept;
  void set_optimizer_t(uint64_t t) noexcept;
  /// Unit hashes (f32 masters) of the held units, in order.
  sliced<kernels::result<std::vector<kernels::digest>>> unit_hashes();

  // --- training

  /// Forward of one micro-batch; keeps what backward needs. With the head: loss, and backward of all layers
  /// at once.
  sliced<kernels::result<train_output>> forward_train(train_input input);
  /// Backward of one micro-batch: accumulates, frees its activations. `grad_output` is [B*S, d], absent on
  /// the head stage, which then returns the gradient it kept. The result is empty where the stage holds
  /// `embed`. Unknown key: invalid_argument.
  sliced<kernels::result<activations>> backward(microbatch_key key, activations grad_output,
                                                kernels::dtype reply);
  /// Squared L2 norm of the accumulated gradient; remembered until it changes. A non-finite one: not_finite.
  sliced<kernels::result<double>> gradient_norm_sq();
  /// Norms of the accumulated gradient, and its values at `draws` modulo parameters(): elements are counted
  /// unit by unit, in a unit tensor by tensor in the order of their names. What is not finite shows as it
  /// is. invalid_argument: there is no gradient.
  sliced<kernels::result<gradient_probe>> sample_gradient(std::vector<uint64_t> draws);
  /// Clip and AdamW with the accumulated gradient, then gradients are zero. not_finite: nothing has changed,
  /// discard() is due.
  sliced<kernels::result<apply_output>> apply(optimizer_step step);
  /// Drops gradients and all saved activations.
  sliced<kernels::status> discard();
  /// Micro-batches whose activations are held, and whether a gradient is accumulated.
  size_t saved_microbatches() const noexcept;
  bool holds_gradient() const noexcept;

  // --- serving

  /// Copies the present weights in compute dtype. It becomes the newest when done. With `canonical` the bytes
  /// to hash are kept too. Refused (invalid_argument) while apply changes them, as apply is meanwhile: a copy
  /// is of one step.
  sliced<kernels::result<serving_ptr>> make_serving_copy(uint64_t version, bool canonical);
  /// Null before the first.
  serving_ptr newest() const noexcept;
  sliced<kernels::result<score_output>> score(score_input input);
  /// One step for all rows. `prefill` picks the larger scratch; a decode has its own, so that it may run
  /// between the slices of a prefill. Positions in all: at most prefill_rows_max, decode_rows_max. Rows fail
  /// one by one (see infer_row_output); the call fails as a whole only for malformed input (invalid_argument)
  /// and device errors.
  sliced<kernels::result<infer_output>> infer(infer_input input, bool prefill);

  // --- sessions

  size_t sessions() const noexcept;
  std::optional<uint32_t> session_length(std::string_view session) const;
  serving_ptr session_weights(std::string_view session) const;
  /// False when unknown.
  bool release(std::string_view session);
  /// Frees sessions whose last use is before `idle_since`; the number freed.
  size_t expire(std::chrono::steady_clock::time_point idle_since);
  /// Evicts the sessions that are pinned to a copy older than `id`; their next row answers `evicted`.
  size_t retire_copies_before(uint64_t id);
  uint64_t kv_blocks_total() const noexcept;
  uint64_t kv_blocks_free() const noexcept;

private:
  explicit stage(std::unique_ptr<stage_state> state);
  std::unique_ptr<stage_state> state_;
};

} // namespace neuroshard::model
