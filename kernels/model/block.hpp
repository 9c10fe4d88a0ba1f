#pragma once

#include "kernels/model/engine.hpp"

#include <optional>

/// Private to kernels/model: one transformer block forward and backward, in terms of the operation table.
///
/// A block's input is already normed when it comes here, because the residual sum that closes the block
/// before it and the norm that opens this one are one operation. Letters: T rows, d width, W = (H + 2G) D
/// columns of q, k, v side by side, F SwiGLU width.
namespace neuroshard::model {

/// The weights of a block as the products read them; the same for training and for a serving copy.
struct block_weights {
  product_weight qkv;         ///< N = W, K = d
  product_weight o;           ///< N = d, K = H D
  product_weight gate_up;     ///< N = 2F, K = d
  product_weight down;        ///< N = d, K = F
  tensor attn_norm, ffn_norm; ///< f32 [d]
};

/// Gradients of a block, f32, accumulated into.
struct block_gradients {
  tensor qkv, o, gate_up, down, attn_norm, ffn_norm;
};

/// What forward leaves behind for backward, all act but the statistics. Inference uses the same with `hidden`
/// in place of the input and no statistics.
struct block_activations {
  tensor input;     ///< [T,d] residual stream before the block
  tensor normed;    ///< [T,d]
  tensor rstd;      ///< f32 [T], optional
  tensor qkv;       ///< [T,W]; q and k rotated
  tensor attended;  ///< [T,HD]
  tensor lse;       ///< f32 [B,H,S], optional
  tensor hidden;    ///< [T,d] after attention; may be `input` in inference
  tensor normed2;   ///< [T,d]; may be `normed` in inference
  tensor rstd2;     ///< f32 [T], optional
  tensor gate_up;   ///< [T,2F]
  tensor activated; ///< [T,F]
};

/// Bytes of one set of block_activations for T rows, and its placing. With `for_training` every piece is its
/// own and `input` and the statistics are there; else `input` == `hidden` and `normed` == `normed2`.
class block_layout {
public:
  block_layout() = default;
  block_layout(const engine& e, int64_t rows_max, bool for_training, memory_layout& into);
  /// Views for T <= rows_max rows in B sequences. `input` is left empty in training: the caller links the
  /// blocks.
  block_activations place(const engine& e, const kernels::buffer_ptr& memory, int64_t rows,
                          int64_t sequences) const;

private:
  bool training_ = false;
  uint64_t normed_ = 0, rstd_ = 0, qkv_ = 0, attended_ = 0, lse_ = 0, hidden_ = 0, normed2_ = 0, rstd2_ = 0,
           gate_up_ = 0, activated_ = 0;
};

/// Scratch of backward, shared by all blocks of a stage.
struct block_scratch {
  tensor wide;      ///< [T,F]
  tensor narrow;    ///< [T,d]
  tensor dqkv;      ///< [T,W]
  tensor dattended; ///< [T,HD]
};

/// Attention within whole sequences of B x S rows.
struct whole_sequences {
  int64_t sequences = 1;
  tensor positions; ///< i32 [T]
  tensor lengths;   ///< i32 [B], optional
};

/// Attention over one layer's paged cache.
struct cached_rows {
  tensor positions; ///< i32 [T]
  tensor row_cache; ///< i32 [T]
  tensor tables;    ///< i32 [caches, blocks]
  tensor key_cache, value_cache;
};

/// From `normed` to `out`[T,d], the block's contribution that is still to be added to `hidden`. Exactly one
/// of `whole` and `cached` is given; both outlive the coroutine.
/// With `for_backward` the last product is left out: recomputed activations are all that is wanted, and `out`
/// is scratch.
sliced<status> block_forward(engine& e, const block_weights& w, block_activations a,
                             const whole_sequences* whole, const cached_rows* cached, tensor out,
                             bool for_backward = false);

/// `gradient`[T,d]: of the block's output on entry, of its input on return. Overwrites a.gate_up.
sliced<status> block_backward(engine& e, const block_weights& w, const block_gradients& g,
                              block_activations a, const whole_sequences& whole, block_scratch scratch,
                              tensor gradient);

} // namespace neuroshard::model
