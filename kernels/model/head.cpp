#include "kernels/model/stage_state.hpp"

#include <algorithm>

namespace neuroshard::model {

head_tile place_head_tile(const engine& e, int64_t rows, memory_layout& layout,
                          const kernels::buffer_ptr* memory) {
  const int64_t vocab = e.shape().vocab_capacity;
  const bool own_gradients = e.act() != dtype::f32;
  const uint64_t logits_at = layout.add(static_cast<uint64_t>(rows * vocab) * sizeof(float));
  const uint64_t gradients_at =
      own_gradients ? layout.add(static_cast<uint64_t>(rows * vocab) * e.act_size()) : logits_at;
  const uint64_t sum_at = layout.add(sizeof(double));
  head_tile tile;
  if (memory != nullptr) {
    tile.logits = make_tensor(at_offset(*memory, logits_at), dtype::f32, {rows, vocab});
    tile.gradients = make_tensor(at_offset(*memory, gradients_at), e.act(), {rows, vocab});
    tile.loss_sum = make_tensor(at_offset(*memory, sum_at), dtype::f64, {1});
  }
  return tile;
}

sliced<status> head_loss(engine& e, tensor normed, product_weight head, tensor labels, int64_t valid_vocab,
                         float scale, head_tile tile, bool loss_only, tensor dnormed, tensor dweight) {
  const int64_t rows = normed.shape[0];
  for (int64_t first = 0; first < rows; first += tile.logits.shape[0]) {
    const int64_t count = std::min(tile.logits.shape[0], rows - first);
    const tensor x = rows_of(normed, first, count);
    const tensor logits = rows_of(tile.logits, 0, count);
    const tensor gradients = rows_of(tile.gradients, 0, count);
    NEUROSHARD_CO_TRY(co_await e.linear(x, head, logits));

    kernels::cross_entropy_args loss;
    loss.logits = logits;
    loss.labels = rows_of(labels, first, count);
    loss.loss_sum = tile.loss_sum;
    loss.valid_vocab = valid_vocab;
    loss.scale = scale;
    loss.loss_only = loss_only;
    auto scratch = e.workspace(e.ops().cross_entropy_workspace(e.d(), loss));
    if (!scratch.ok())
      co_return scratch.status();
    loss.workspace = *scratch;
    NEUROSHARD_CO_TRY(e.ops().cross_entropy(e.q(), loss));
    if (e.spent_bytes(3.0 * static_cast<double>(logits.bytes())))
      co_await end_slice{};
    if (loss_only)
      continue;

    if (gradients.data != logits.data)
      NEUROSHARD_CO_TRY(e.convert(logits, gradients));
    NEUROSHARD_CO_TRY(co_await e.linear_backward_input(gradients, head, rows_of(dnormed, first, count)));
    NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(gradients, x, dweight));
  }
  co_return status{};
}

} // namespace neuroshard::model
