#include "kernels/core/check.hpp"

#include "kernels/core/checker.hpp"

#include <cmath>
#include <limits>

namespace neuroshard::kernels {

namespace {

constexpr auto any = checker::any;
constexpr auto read = checker::use::read;
constexpr auto written = checker::use::written;
constexpr auto flat = checker::use::flat;
constexpr type_set f32 = only(dtype::f32);
constexpr type_set i32 = only(dtype::i32);
constexpr type_set f64 = only(dtype::f64);

/// Shapes that attention forward and backward share.
struct attention_shape {
  int64_t rows, positions, heads, kv_heads, head_dim;
  type_set act;
};

attention_shape check_attention(checker& c, const tensor& q, const tensor& k, const tensor& v,
                                const tensor& lengths, int64_t sequences) {
  c.operand("q", q, activations, {any, any, any});
  c.require(sequences >= 0, "sequences is negative");
  attention_shape s{q.shape[0], 0, q.shape[1], k.rank == 3 ? k.shape[1] : 0, q.shape[2], only(q.type)};
  if (!c.ok())
    return s;
  c.require(sequences == 0 ? s.rows == 0 : s.rows % sequences == 0,
            "q has rows that are no multiple of sequences");
  s.positions = sequences > 0 ? s.rows / sequences : 0;
  c.operand("k", k, s.act, {s.rows, any, s.head_dim})
      .operand("v", v, s.act, {s.rows, s.kv_heads, s.head_dim});
  c.require(s.head_dim > 0 && s.heads > 0, "q has no heads");
  c.require(s.kv_heads > 0 && s.heads % s.kv_heads == 0, "the kv heads do not divide the heads");
  c.require(s.positions <= std::numeric_limits<int32_t>::max(), "a sequence is too long");
  c.optional("lengths", lengths, i32, {sequences}, flat);
  return s;
}

bool is_number_in(float value, float low, float high) noexcept {
  return value >= low && value <= high;
}

} // namespace

status check(const prepare_weight_args& a, const needed_bytes& needed) {
  checker c("prepare_weight");
  c.require((only(a.act) & activations) != 0, "act is neither f32 nor bf16");
  c.operand("weight", a.weight, f32 | only(a.act), {any, any});
  c.prepared("prepared", a.prepared, needed.prepared);
  return c.done();
}

status check(const linear_args& a, const needed_bytes& needed) {
  checker c("linear");
  c.operand("x", a.x, activations, {any, any});
  c.require(a.out_features >= 0, "out_features is negative");
  c.operand("out", a.out, only(a.x.type) | f32, {a.x.shape[0], a.out_features}, written);
  c.prepared("weight", a.weight, needed.prepared);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const linear_backward_input_args& a, const needed_bytes& needed) {
  checker c("linear_backward_input");
  c.operand("dy", a.dy, activations, {any, any});
  c.require(a.in_features >= 0, "in_features is negative");
  c.operand("dx", a.dx, only(a.dy.type), {a.dy.shape[0], a.in_features}, written);
  c.prepared("weight", a.weight, needed.prepared);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const linear_backward_weight_args& a, const needed_bytes& needed) {
  checker c("linear_backward_weight");
  c.operand("dy", a.dy, activations, {any, any});
  c.operand("x", a.x, only(a.dy.type), {a.dy.shape[0], any});
  c.operand("dw", a.dw, f32, {a.dy.shape[1], a.x.shape[1]}, written);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const embedding_args& a) {
  checker c("embedding");
  c.operand("ids", a.ids, i32, {any}, flat);
  c.operand("table", a.table, only(dtype::f32) | only(a.out.type), {any, any});
  c.require(a.table.shape[0] > 0, "table has no rows");
  return c.operand("out", a.out, activations, {a.ids.shape[0], a.table.shape[1]}, written).done();
}

status check(const embedding_backward_args& a, const needed_bytes& needed) {
  checker c("embedding_backward");
  c.operand("ids", a.ids, i32, {any}, flat).operand("dout", a.dout, activations, {a.ids.shape[0], any});
  c.operand("dtable", a.dtable, f32, {any, a.dout.shape[1]}, written);
  c.require(a.dtable.shape[0] > 0, "dtable has no rows");
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const rms_norm_args& a) {
  checker c("rms_norm");
  c.operand("x", a.x, activations, {any, any});
  const int64_t rows = a.x.shape[0];
  const int64_t width = a.x.shape[1];
  const type_set act = only(a.x.type);
  c.require(width > 0 || rows == 0, "x has no columns");
  if (a.residual) {
    c.operand("residual", a.residual, act, {rows, width});
    c.operand("sum", a.sum, act, {rows, width}, written);
  }
  c.operand("gain", a.gain, f32, {width}, flat).operand("out", a.out, act, {rows, width}, written);
  c.optional("rstd", a.rstd, f32, {rows}, flat);
  return c.require(a.eps >= 0 && std::isfinite(a.eps), "eps is negative or not finite").done();
}

status check(const rms_norm_backward_args& a, const needed_bytes& needed) {
  checker c("rms_norm_backward");
  c.operand("x", a.x, activations, {any, any});
  const int64_t rows = a.x.shape[0];
  const int64_t width = a.x.shape[1];
  const type_set act = only(a.x.type);
  c.require(width > 0 || rows == 0, "x has no columns");
  c.operand("dy", a.dy, act, {rows, width}).operand("gain", a.gain, f32, {width}, flat);
  c.operand("rstd", a.rstd, f32, {rows}, flat).optional("dresidual", a.dresidual, act, {rows, width});
  c.operand("dx", a.dx, act, {rows, width}, written).operand("dgain", a.dgain, f32, {width}, flat);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const rope_args& a) {
  checker c("rope");
  c.operand("x", a.x, activations, {any, any, any}, written);
  const int64_t half = a.x.shape[2] / 2;
  c.require(a.x.shape[2] % 2 == 0, "x has an odd head size");
  c.operand("positions", a.positions, i32, {a.x.shape[0]}, flat);
  c.operand("cosine", a.cosine, f32, {any, half}, flat);
  return c.operand("sine", a.sine, f32, {a.cosine.shape[0], half}, flat).done();
}

status check(const attention_args& a, const needed_bytes& needed) {
  checker c("attention");
  const auto s = check_attention(c, a.q, a.k, a.v, a.lengths, a.sequences);
  c.operand("out", a.out, s.act, {s.rows, s.heads, s.head_dim}, written);
  c.optional("lse", a.lse, f32, {a.sequences, s.heads, s.positions}, flat);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const attention_backward_args& a, const needed_bytes& needed) {
  checker c("attention_backward");
  const auto s = check_attention(c, a.q, a.k, a.v, a.lengths, a.sequences);
  c.operand("out", a.out, s.act, {s.rows, s.heads, s.head_dim});
  c.operand("lse", a.lse, f32, {a.sequences, s.heads, s.positions}, flat);
  c.operand("dout", a.dout, s.act, {s.rows, s.heads, s.head_dim});
  c.operand("dq", a.dq, s.act, {s.rows, s.heads, s.head_dim}, written);
  c.operand("dk", a.dk, s.act, {s.rows, s.kv_heads, s.head_dim}, written);
  c.operand("dv", a.dv, s.act, {s.rows, s.kv_heads, s.head_dim}, written);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const kv_append_args& a) {
  checker c("kv_append");
  c.operand("k", a.k, activations, {any, any, any});
  const int64_t rows = a.k.shape[0];
  const int64_t heads = a.k.shape[1];
  const int64_t size = a.k.shape[2];
  const type_set act = only(a.k.type);
  c.operand("v", a.v, act, {rows, heads, size});
  c.operand("row_cache", a.row_cache, i32, {rows}, flat).operand("positions", a.positions, i32, {rows}, flat);
  c.operand("tables", a.tables, i32, {any, any}, read);
  c.operand("key_cache", a.key_cache, act, {any, kv_block, heads, size}, flat);
  return c.operand("value_cache", a.value_cache, act, {a.key_cache.shape[0], kv_block, heads, size}, flat)
      .done();
}

status check(const paged_attention_args& a, const needed_bytes& needed) {
  checker c("paged_attention");
  c.operand("q", a.q, activations, {any, any, any});
  const int64_t rows = a.q.shape[0];
  const int64_t heads = a.q.shape[1];
  const int64_t size = a.q.shape[2];
  const type_set act = only(a.q.type);
  c.require(heads > 0 && size > 0, "q has no heads");
  c.operand("row_cache", a.row_cache, i32, {rows}, flat).operand("positions", a.positions, i32, {rows}, flat);
  c.operand("tables", a.tables, i32, {any, any}, read);
  c.operand("key_cache", a.key_cache, act, {any, kv_block, any, size}, flat);
  const int64_t kv_heads = a.key_cache.shape[2];
  c.operand("value_cache", a.value_cache, act, {a.key_cache.shape[0], kv_block, kv_heads, size}, flat);
  c.require(a.key_cache.shape[0] > 0 || rows == 0, "key_cache has no blocks");
  c.require(kv_heads > 0 && heads % kv_heads == 0, "the kv heads do not divide the heads");
  c.operand("out", a.out, act, {rows, heads, size}, written);
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const swiglu_args& a) {
  checker c("swiglu");
  c.operand("gate", a.gate, activations, {any, any});
  const auto act = only(a.gate.type);
  c.operand("up", a.up, act, {a.gate.shape[0], a.gate.shape[1]});
  return c.operand("out", a.out, act, {a.gate.shape[0], a.gate.shape[1]}, written).done();
}

status check(const swiglu_backward_args& a) {
  checker c("swiglu_backward");
  c.operand("gate", a.gate, activations, {any, any});
  const auto act = only(a.gate.type);
  const int64_t rows = a.gate.shape[0];
  const int64_t width = a.gate.shape[1];
  c.operand("up", a.up, act, {rows, width}).operand("dout", a.dout, act, {rows, width});
  c.operand("dgate", a.dgate, act, {rows, width}, written);
  return c.operand("dup", a.dup, act, {rows, width}, written).done();
}

status check(const cross_entropy_args& a, const needed_bytes& needed) {
  checker c("cross_entropy");
  c.operand("logits", a.logits, activations, {any, any}, written);
  c.operand("labels", a.labels, i32, {a.logits.shape[0]}, flat)
      .operand("loss_sum", a.loss_sum, f64, {1}, flat);
  c.require(a.valid_vocab >= 1 && a.valid_vocab <= a.logits.shape[1],
            "valid_vocab is not within the columns of logits");
  c.require(std::isfinite(a.scale), "scale is not finite");
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const sample_args& a, const needed_bytes& needed) {
  checker c("sample");
  c.operand("logits", a.logits, f32, {any, any});
  const int64_t rows = a.logits.shape[0];
  c.require(a.logits.shape[1] <= std::numeric_limits<int32_t>::max(), "logits has too many columns");
  c.require(static_cast<uint64_t>(rows) == a.params.size(), "params are not as many as the rows of logits");
  c.operand("ids", a.ids, i32, {rows}, flat).optional("logprobs", a.logprobs, f32, {rows}, flat);
  if (!c.ok())
    return c.done();
  for (const sample_params& p : a.params) {
    c.require(is_number_in(p.temperature, 0, std::numeric_limits<float>::max()),
              "temperature is negative or not finite");
    c.require(is_number_in(p.top_p, 0, 1), "top_p is not within 0 and 1");
    c.require(p.valid_vocab >= 3 && static_cast<int64_t>(p.valid_vocab) <= a.logits.shape[1],
              "valid_vocab is below 3 or above the columns of logits");
  }
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const adamw_args& a) {
  checker c("adamw");
  c.operand("clip", a.clip, f32, {1}, flat);
  c.require(std::isfinite(a.learning_rate), "learning_rate is not finite");
  c.require(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1,
            "beta1 or beta2 is not within 0 and 1");
  c.require(a.eps > 0 && std::isfinite(a.eps), "eps is not a positive number");
  c.require(a.t >= 1, "t is 0, steps are counted from 1");
  for (const adamw_item& item : a.items) {
    const int64_t n = item.weight.elements();
    for (const tensor* t : {&item.weight, &item.gradient, &item.first_moment, &item.second_moment})
      c.require(t->type == dtype::f32 && t->contiguous() && t->elements() == n &&
                    (n == 0 || t->data != nullptr),
                "an item has tensors that are not all f32, contiguous and of equal length");
    c.require(std::isfinite(item.weight_decay), "weight_decay is not finite");
  }
  return c.done();
}

status check(const grad_norm_args& a, const needed_bytes& needed) {
  checker c("grad_norm");
  c.operand("sum_sq", a.sum_sq, f64, {1}, flat);
  for (const tensor& g : a.gradients)
    c.require(g.type == dtype::f32 && g.contiguous() && (g.elements() == 0 || g.data != nullptr),
              "a gradient is not f32 and contiguous");
  return c.workspace(a.workspace, needed.workspace).done();
}

status check(const clip_factor_args& a) {
  checker c("clip_factor");
  c.operand("sum_sq", a.sum_sq, f64, {1}, flat).operand("factor", a.factor, f32, {1}, flat);
  return c.require(a.norm_max > 0 && std::isfinite(a.norm_max), "norm_max is not a positive number").done();
}

status check(const convert_args& a) {
  checker c("convert");
  const auto& s = a.x.shape;
  const auto same = [&](const char* name, const tensor& t, checker::use how) {
    switch (a.x.rank) {
    case 1:
      return void(c.operand(name, t, activations, {s[0]}, how));
    case 2:
      return void(c.operand(name, t, activations, {s[0], s[1]}, how));
    case 3:
      return void(c.operand(name, t, activations, {s[0], s[1], s[2]}, how));
    case 4:
      return void(c.operand(name, t, activations, {s[0], s[1], s[2], s[3]}, how));
    default:
      return void(c.require(false, "x is missing or has no rank of 1 to 4"));
    }
  };
  same("x", a.x, read);
  same("out", a.out, written);
  return c.done();
}

status check(const add_args& a) {
  checker c("add");
  c.operand("a", a.a, activations, {any, any});
  const auto act = only(a.a.type);
  c.operand("b", a.b, act, {a.a.shape[0], a.a.shape[1]});
  return c.operand("out", a.out, act, {a.a.shape[0], a.a.shape[1]}, written).done();
}

status check_copy(const void* to, const void* from, uint64_t bytes) {
  if (bytes > 0 && (to == nullptr || from == nullptr))
    return {code::invalid_argument, "copy: an address is missing"};
  return {};
}

} // namespace neuroshard::kernels
