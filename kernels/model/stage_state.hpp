#pragma once

#include "kernels/model/block.hpp"
#include "kernels/model/engine.hpp"
#include "kernels/model/session_table.hpp"
#include "kernels/model/stage.hpp"

#include <map>
#include <optional>

/// Private to kernels/model: everything a stage owns. The operations on it are in weights.cpp, training.cpp,
/// optimizer.cpp, serving.cpp, scoring.cpp and inference.cpp; stage.cpp builds it.
namespace neuroshard::model {

/// The flat f32 buffers of one unit.
struct unit_store {
  unit layout;
  kernels::buffer_ptr master; ///< null while a stage that only serves has let go of it
  kernels::buffer_ptr gradient, first_moment, second_moment; ///< only when training

  tensor view(const kernels::buffer_ptr& memory, size_t parameter) const;
  /// Rows of adjacent matrices (q, k, v or gate, up) as one: [rows of all, columns of the first].
  tensor joined(const kernels::buffer_ptr& memory, size_t first, size_t count) const;
};

/// The logits of one tile of rows.
struct head_tile {
  tensor logits;    ///< f32 [R, V]; in bf16 only a few rows of it
  tensor gradients; ///< act [R, V]; `logits` itself in f32
  tensor loss_sum;  ///< f64 [1]
};
head_tile place_head_tile(const engine& e, int64_t rows, memory_layout& layout,
                          const kernels::buffer_ptr* memory);

/// What a micro-batch leaves between its forward and its backward.
struct train_slot {
  bool used = false;
  microbatch_key key;
  int64_t sequences = 0;
  int64_t positions_per_sequence = 0;
  bool has_lengths = false;
  kernels::buffer_ptr memory;
};

/// Gradient of the head stage's input that waits for backward().
struct kept_gradient {
  bool used = false;
  microbatch_key key;
  int64_t rows = 0;
  kernels::buffer_ptr memory; ///< act [rows, d]
};

/// Offsets within a slot's memory, the same for all slots.
struct slot_layout {
  uint64_t ids = 0, positions = 0, lengths = 0, labels = 0;
  std::vector<uint64_t> inputs;     ///< of each block, and the last one's output
  std::vector<block_layout> blocks; ///< empty with recompute
  uint64_t bytes = 0;
};

/// What all micro-batches share, since one is worked on at a time.
struct train_shared {
  kernels::buffer_ptr memory;
  uint64_t wide = 0, narrow = 0, dqkv = 0, dattended = 0, gradient = 0, normed = 0, rstd = 0, wire = 0,
           scalars = 0;
  block_layout recomputed;
  kernels::buffer_ptr tile_memory;
  head_tile tile;
};

/// Scratch of one inference call; there are two, so that a decode can run between the slices of a prefill.
struct infer_lane {
  bool busy = false;
  int64_t rows_max = 0;
  kernels::buffer_ptr memory;
  block_layout block;
  uint64_t out = 0, ids = 0, positions = 0, row_cache = 0, last_rows = 0, logits = 0, sampled = 0,
           logprobs = 0, wire = 0;
};

struct stage_state {
  architecture shape;
  stage_options options;
  std::unique_ptr<engine> e;
  std::vector<unit> units;
  std::vector<unit_store> stores;
  std::optional<size_t> embed_at, head_at; ///< in stores
  size_t first_block = 0;                  ///< in stores
  int64_t valid_vocab = 0;
  memory_use fixed; ///< all but serving copies

  // training
  kernels::buffer_ptr prepared;
  std::vector<block_weights> blocks;
  std::vector<block_gradients> block_grads;
  product_weight head;  ///< of the head, or of the tied embedding
  tensor head_gradient; ///< [V, d]
  bool recompute = false;
  slot_layout slot_at;
  std::vector<train_slot> slots;
  std::vector<kept_gradient> kept;
  train_shared shared;
  bool training_busy = false; ///< forward_train, backward, apply or discard under way
  bool applying = false;      ///< apply, from its first slice to its last
  bool loading = false;       ///< initialize or refresh_weights under way
  bool gradient_held = false;
  bool gradient_broken = false; ///< a backward ended half way: only discard helps
  bool weights_broken = false;  ///< an optimizer step ended half way: only weights set anew help
  std::optional<double> norm_sq;
  uint64_t t = 0;

  // serving
  bool copying = false;
  bool scoring = false;
  bool scoring_inner = false; ///< with the inner weights, which must stay as they are
  uint64_t copies_made = 0;
  serving_ptr newest;
  std::vector<std::weak_ptr<const serving_copy>> copies;
  std::unique_ptr<session_table> sessions;
  kernels::buffer_ptr kv_memory, table_memory;
  infer_lane prefill_lane, decode_lane;

  int64_t layers() const noexcept { return options.layer_end - options.layer_begin; }
  bool whole() const noexcept { return options.embed && options.head; }
  tensor gain(size_t store, size_t parameter) const {
    return stores[store].view(stores[store].master, parameter);
  }
  tensor final_norm() const { return gain(*head_at, stores[*head_at].layout.parameters.size() - 1); }
  tensor final_norm_gradient() const;
  tensor device_table() const;
  /// Key or value cache of a held layer, by its index here.
  tensor kv_cache(int64_t layer, bool values) const;
  /// Master matrix [V, d] of the head.
  tensor head_master() const;
};

/// Builds state->..., in this order; each adds to state.fixed.
status build_weights(stage_state& s);
status build_training(stage_state& s);
status build_inference(stage_state& s);

/// Position of a parameter: store and index in it; nullopt when not held.
std::optional<std::pair<size_t, size_t>> find_parameter(const stage_state& s, std::string_view name);

/// Brings rows from the wire into `to` (act [rows, d]); `wire` is f32-sized scratch of as many rows. Checks
/// type and size.
status import_rows(engine& e, const activations& from, tensor to, tensor wire);
/// Brings act rows to host memory as `type`; waits.
result<activations> export_rows(engine& e, tensor from, dtype type, tensor wire);

/// Logits of normed rows tile by tile, cross-entropy, and unless `loss_only` the gradients: of the rows into
/// `dnormed`, of the head's matrix added to `dweight`. labels i32 [T] on the device. tile.loss_sum
/// accumulates.
sliced<status> head_loss(engine& e, tensor normed, product_weight head, tensor labels, int64_t valid_vocab,
                         float scale, head_tile tile, bool loss_only, tensor dnormed, tensor dweight);

/// What is wrong with ids, positions, lengths, labels or hidden of a call on B sequences of S positions.
/// `needs_labels`: they must be there; else they may. Counts the labels.
struct batch_shape {
  int64_t sequences = 0;
  int64_t positions_per_sequence = 0;
  int64_t rows() const noexcept { return sequences * positions_per_sequence; }
};
struct batch_operands {
  const std::vector<int32_t>& token_ids;
  const activations& hidden;
  const std::vector<int32_t>& positions;
  const std::vector<int32_t>& lengths;
  const std::vector<int32_t>& labels;
};
result<uint32_t> check_batch(const stage_state& s, batch_shape shape, batch_operands in, bool needs_labels);
/// 0 ... S-1 for each sequence.
std::vector<int32_t> default_positions(batch_shape shape);

inline status busy_error(const char* what) {
  return {code::invalid_argument,
          std::string(what) + " while other work of its kind is under way on this stage"};
}

// --- the operations behind stage's members

sliced<status> run_initialize(stage_state& s, uint64_t seed);
sliced<status> run_refresh_weights(stage_state& s);
sliced<result<std::vector<kernels::digest>>> run_unit_hashes(stage_state& s);
status read_parameter(stage_state& s, std::string_view name, parameter_part part, int64_t first,
                      std::span<float> out);
status write_parameter(stage_state& s, std::string_view name, parameter_part part, int64_t first,
                       std::span<const float> in);
bool masters_held(const stage_state& s);
status release_masters(stage_state& s);
/// The prepared layouts of all units, without the guards of run_refresh_weights.
sliced<status> prepare_all(stage_state& s);

sliced<result<train_output>> run_forward_train(stage_state& s, train_input input);
sliced<result<activations>> run_backward(stage_state& s, microbatch_key key, activations grad_output,
                                         dtype reply);
sliced<result<double>> run_gradient_norm(stage_state& s);
/// Adds the sum of squares of a unit's gradient to `sum`, f64 [1], piece by piece in a fixed order.
sliced<status> add_squares(engine& e, const unit_store& store, tensor sum);
sliced<result<gradient_probe>> run_sample_gradient(stage_state& s, std::vector<uint64_t> draws);
sliced<result<apply_output>> run_apply(stage_state& s, optimizer_step step);
sliced<status> run_discard(stage_state& s);

sliced<result<serving_ptr>> run_make_serving_copy(stage_state& s, uint64_t version, bool canonical);
sliced<result<score_output>> run_score(stage_state& s, score_input input);
sliced<result<infer_output>> run_infer(stage_state& s, infer_input input, bool prefill);

/// Reads the private parts of a serving copy.
struct weights_access {
  static block_weights block(const serving_copy& copy, const architecture& a, size_t layer);
  static product_weight head(const serving_copy& copy, const architecture& a);
  static tensor embedding(const serving_copy& copy) { return copy.embedding_; }
  static tensor norm(const serving_copy& copy) { return copy.norm_; }
};

} // namespace neuroshard::model
