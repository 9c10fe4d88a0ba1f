#include "kernels/model/stage_state.hpp"

#include <algorithm>

namespace neuroshard::model {

namespace {

/// Rows whose f32 logits exist at once: few enough to stay in the cache between the product and the softmax,
/// many enough that reading the head's matrix once for them costs little.
constexpr int64_t logit_rows = 128;

} // namespace

head_tile place_head_tile(const engine& e, int64_t rows, memory_layout& layout,
                          const kernels::buffer_ptr* memory) {
  const int64_t vocab = e.shape().vocab_capacity;
  const bool own_gradients = e.act() != dtype::f32;
  const int64_t logits_held = own_gradients ? std::min(rows, logit_rows) : rows;
  const uint64_t logits_at = layout.add(static_cast<uint64_t>(logits_held * vocab) * sizeof(float));
  const uint64_t gradients_at =
      own_gradients ? layout.add(static_cast<uint64_t>(rows * vocab) * e.act_size()) : logits_at;
  const uint64_t sum_at = layout.add(sizeof(double));
  head_tile tile;
  if (memory != nullptr) {
    tile.logits = make_tensor(at_offset(*memory, logits_at), dtype::f32, {logits_held, vocab});
    tile.gradients = make_tensor(at_offset(*memory, gradients_at), e.act(), {rows, vocab});
    tile.loss_sum = make_tensor(at_offset(*memory, sum_at), dtype::f64, {1});
  }
  return tile;
}

namespace {

/// Logits, loss and gradient of the logits of a few rows.
sliced<status> logits_and_loss(engine& e, tensor x, product_weight head, kernels::cross_entropy_args loss,
                               tensor gradients) {
  NEUROSHARD_CO_TRY(co_await e.linear(x, head, loss.logits));
  auto scratch = e.workspace(e.ops().cross_entropy_workspace(e.d(), loss));
  if (!scratch.ok())
    co_return scratch.status();
  loss.workspace = *scratch;
  NEUROSHARD_CO_TRY(e.ops().cross_entropy(e.q(), loss));
  if (!loss.loss_only && gradients.data != loss.logits.data)
    NEUROSHARD_CO_TRY(e.convert(loss.logits, gradients));
  if (e.spent_bytes(3.0 * static_cast<double>(loss.logits.bytes())))
    co_await end_slice{};
  co_return status{};
}

} // namespace

sliced<status> head_loss(engine& e, tensor normed, product_weight head, tensor labels, int64_t valid_vocab,
                         float scale, head_tile tile, bool loss_only, tensor dnormed, tensor dweight) {
  const int64_t rows = normed.shape[0];
  const bool own_gradients = tile.gradients.data != tile.logits.data;
  kernels::cross_entropy_args loss;
  loss.loss_sum = tile.loss_sum;
  loss.valid_vocab = valid_vocab;
  loss.scale = scale;
  loss.loss_only = loss_only;
  for (int64_t first = 0; first < rows; first += tile.gradients.shape[0]) {
    const int64_t count = std::min(tile.gradients.shape[0], rows - first);
    const tensor x = rows_of(normed, first, count);
    const tensor gradients = rows_of(tile.gradients, 0, count);
    for (int64_t part = 0; part < count; part += logit_rows) {
      const int64_t part_rows = std::min(logit_rows, count - part);
      loss.logits = rows_of(tile.logits, own_gradients ? 0 : part, part_rows);
      loss.labels = rows_of(labels, first + part, part_rows);
      NEUROSHARD_CO_TRY(co_await logits_and_loss(e, rows_of(x, part, part_rows), head, loss,
                                                 rows_of(gradients, part, part_rows)));
    }
    if (loss_only)
      continue;
    NEUROSHARD_CO_TRY(co_await e.linear_backward_input(gradients, head, rows_of(dnormed, first, count)));
    NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(gradients, x, dweight));
  }
  co_return status{};
}

} // namespace neuroshard::model
