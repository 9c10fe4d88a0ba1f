#include "kernels/model/block.hpp"

namespace neuroshard::model {

namespace {

struct widths {
  int64_t d, q, kv, w, f, heads, kv_heads, head_dim;
};

widths widths_of(const engine& e) {
  const architecture& a = e.shape();
  return {a.hidden_dim, a.q_width(), a.kv_width(),   a.q_width() + 2 * a.kv_width(),
          a.ffn_dim,    a.num_heads, a.num_kv_heads, a.head_dim()};
}

/// Columns [first, first + heads * D) of a [T,W] matrix as [T, heads, D].
tensor as_heads(tensor matrix, int64_t first, int64_t heads, int64_t head_dim) {
  tensor t = columns_of(matrix, first, heads * head_dim);
  t.rank = 3;
  t.shape = {matrix.shape[0], heads, head_dim, 0};
  t.stride = {matrix.stride[0], head_dim, 1, 0};
  return t;
}

double bytes_of(const tensor& t) {
  return static_cast<double>(t.bytes());
}

status attend_whole(engine& e, const widths& n, const block_activations& a, const whole_sequences& whole) {
  kernels::attention_args args;
  args.q = as_heads(a.qkv, 0, n.heads, n.head_dim);
  args.k = as_heads(a.qkv, n.q, n.kv_heads, n.head_dim);
  args.v = as_heads(a.qkv, n.q + n.kv, n.kv_heads, n.head_dim);
  args.out = as_heads(a.attended, 0, n.heads, n.head_dim);
  args.lse = a.lse;
  args.lengths = whole.lengths;
  args.sequences = whole.sequences;
  auto scratch = e.workspace(e.ops().attention_workspace(e.d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  return e.ops().attention(e.q(), args);
}

status attend_cached(engine& e, const widths& n, const block_activations& a, const cached_rows& cached) {
  kernels::kv_append_args append;
  append.k = as_heads(a.qkv, n.q, n.kv_heads, n.head_dim);
  append.v = as_heads(a.qkv, n.q + n.kv, n.kv_heads, n.head_dim);
  append.row_cache = cached.row_cache;
  append.positions = cached.positions;
  append.tables = cached.tables;
  append.key_cache = cached.key_cache;
  append.value_cache = cached.value_cache;
  NEUROSHARD_TRY(e.ops().kv_append(e.q(), append));

  kernels::paged_attention_args args;
  args.q = as_heads(a.qkv, 0, n.heads, n.head_dim);
  args.row_cache = cached.row_cache;
  args.positions = cached.positions;
  args.tables = cached.tables;
  args.key_cache = cached.key_cache;
  args.value_cache = cached.value_cache;
  args.out = as_heads(a.attended, 0, n.heads, n.head_dim);
  auto scratch = e.workspace(e.ops().paged_attention_workspace(e.d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  return e.ops().paged_attention(e.q(), args);
}

status attend_backward(engine& e, const widths& n, const block_activations& a, const whole_sequences& whole,
                       tensor dattended, tensor dqkv) {
  kernels::attention_backward_args args;
  args.q = as_heads(a.qkv, 0, n.heads, n.head_dim);
  args.k = as_heads(a.qkv, n.q, n.kv_heads, n.head_dim);
  args.v = as_heads(a.qkv, n.q + n.kv, n.kv_heads, n.head_dim);
  args.out = as_heads(a.attended, 0, n.heads, n.head_dim);
  args.lse = a.lse;
  args.lengths = whole.lengths;
  args.dout = as_heads(dattended, 0, n.heads, n.head_dim);
  args.dq = as_heads(dqkv, 0, n.heads, n.head_dim);
  args.dk = as_heads(dqkv, n.q, n.kv_heads, n.head_dim);
  args.dv = as_heads(dqkv, n.q + n.kv, n.kv_heads, n.head_dim);
  args.sequences = whole.sequences;
  auto scratch = e.workspace(e.ops().attention_backward_workspace(e.d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  return e.ops().attention_backward(e.q(), args);
}

/// Products of whole-sequence attention: two of S^2/2 x D per head, forward.
double attention_flops(const widths& n, int64_t rows, int64_t sequences) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(rows / sequences) * static_cast<double>(n.q);
}

} // namespace

block_layout::block_layout(const engine& e, int64_t rows_max, bool for_training, memory_layout& into)
    : training_(for_training) {
  const widths n = widths_of(e);
  const auto act = [&](int64_t columns) {
    return into.add(static_cast<uint64_t>(rows_max * columns) * e.act_size());
  };
  const auto f32 = [&](int64_t columns) {
    return into.add(static_cast<uint64_t>(rows_max * columns) * sizeof(float));
  };
  normed_ = act(n.d);
  qkv_ = act(n.w);
  attended_ = act(n.q);
  hidden_ = act(n.d);
  gate_up_ = act(2 * n.f);
  activated_ = act(n.f);
  normed2_ = training_ ? act(n.d) : normed_;
  if (training_) {
    rstd_ = f32(1);
    rstd2_ = f32(1);
    lse_ = f32(n.heads);
  }
}

block_activations block_layout::place(const engine& e, const kernels::buffer_ptr& memory, int64_t rows,
                                      int64_t sequences) const {
  const widths n = widths_of(e);
  const auto act = [&](uint64_t at, int64_t columns) {
    return make_tensor(at_offset(memory, at), e.act(), {rows, columns});
  };
  block_activations a;
  a.normed = act(normed_, n.d);
  a.qkv = act(qkv_, n.w);
  a.attended = act(attended_, n.q);
  a.hidden = act(hidden_, n.d);
  a.normed2 = act(normed2_, n.d);
  a.gate_up = act(gate_up_, 2 * n.f);
  a.activated = act(activated_, n.f);
  if (training_) {
    a.rstd = make_tensor(at_offset(memory, rstd_), dtype::f32, {rows});
    a.rstd2 = make_tensor(at_offset(memory, rstd2_), dtype::f32, {rows});
    a.lse = make_tensor(at_offset(memory, lse_), dtype::f32, {sequences, n.heads, rows / sequences});
  } else {
    a.input = a.hidden;
  }
  return a;
}

sliced<status> block_forward(engine& e, const block_weights& w, block_activations a,
                             const whole_sequences* whole, const cached_rows* cached, tensor out,
                             bool for_backward) {
  const widths n = widths_of(e);
  NEUROSHARD_CO_TRY(co_await e.linear(a.normed, w.qkv, a.qkv));
  const tensor positions = whole != nullptr ? whole->positions : cached->positions;
  NEUROSHARD_CO_TRY(e.rope(as_heads(a.qkv, 0, n.heads + n.kv_heads, n.head_dim), positions, false));
  if (whole != nullptr) {
    NEUROSHARD_CO_TRY(attend_whole(e, n, a, *whole));
    if (e.spent_flops(attention_flops(n, a.qkv.shape[0], whole->sequences)))
      co_await end_slice{};
  } else {
    NEUROSHARD_CO_TRY(attend_cached(e, n, a, *cached));
    if (e.spent_bytes(4 * bytes_of(a.qkv)))
      co_await end_slice{};
  }
  NEUROSHARD_CO_TRY(co_await e.linear(a.attended, w.o, out));
  NEUROSHARD_CO_TRY(e.rms_norm(out, a.input, a.hidden, w.ffn_norm, a.normed2, a.rstd2));
  NEUROSHARD_CO_TRY(co_await e.linear(a.normed2, w.gate_up, a.gate_up));
  kernels::swiglu_args act;
  act.gate = columns_of(a.gate_up, 0, n.f);
  act.up = columns_of(a.gate_up, n.f, n.f);
  act.out = a.activated;
  NEUROSHARD_CO_TRY(e.ops().swiglu(e.q(), act));
  if (e.spent_bytes(1.5 * bytes_of(a.gate_up) + 4 * bytes_of(out)))
    co_await end_slice{};
  if (for_backward)
    co_return status{};
  co_return co_await e.linear(a.activated, w.down, out);
}

sliced<status> block_backward(engine& e, const block_weights& w, const block_gradients& g,
                              block_activations a, const whole_sequences& whole, block_scratch scratch,
                              tensor gradient) {
  const widths n = widths_of(e);
  // y = h + down(swiglu(gate_up(norm(h))))
  NEUROSHARD_CO_TRY(co_await e.linear_backward_input(gradient, w.down, scratch.wide));
  NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(gradient, a.activated, g.down));
  kernels::swiglu_backward_args act;
  act.gate = columns_of(a.gate_up, 0, n.f);
  act.up = columns_of(a.gate_up, n.f, n.f);
  act.dout = scratch.wide;
  act.dgate = act.gate;
  act.dup = act.up;
  NEUROSHARD_CO_TRY(e.ops().swiglu_backward(e.q(), act));
  if (e.spent_bytes(2.5 * bytes_of(a.gate_up)))
    co_await end_slice{};
  NEUROSHARD_CO_TRY(co_await e.linear_backward_input(a.gate_up, w.gate_up, scratch.narrow));
  NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(a.gate_up, a.normed2, g.gate_up));
  NEUROSHARD_CO_TRY(
      e.rms_norm_backward(scratch.narrow, a.hidden, w.ffn_norm, a.rstd2, gradient, gradient, g.ffn_norm));
  // h = x + o(attention(rope(qkv(norm(x)))))
  NEUROSHARD_CO_TRY(co_await e.linear_backward_input(gradient, w.o, scratch.dattended));
  NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(gradient, a.attended, g.o));
  NEUROSHARD_CO_TRY(attend_backward(e, n, a, whole, scratch.dattended, scratch.dqkv));
  if (e.spent_flops(2.5 * attention_flops(n, a.qkv.shape[0], whole.sequences)))
    co_await end_slice{};
  NEUROSHARD_CO_TRY(
      e.rope(as_heads(scratch.dqkv, 0, n.heads + n.kv_heads, n.head_dim), whole.positions, true));
  NEUROSHARD_CO_TRY(co_await e.linear_backward_input(scratch.dqkv, w.qkv, scratch.narrow));
  NEUROSHARD_CO_TRY(co_await e.linear_backward_weight(scratch.dqkv, a.normed, g.qkv));
  NEUROSHARD_CO_TRY(
      e.rms_norm_backward(scratch.narrow, a.input, w.attn_norm, a.rstd, gradient, gradient, g.attn_norm));
  if (e.spent_bytes(8 * bytes_of(gradient)))
    co_await end_slice{};
  co_return status{};
}

} // namespace neuroshard::model
