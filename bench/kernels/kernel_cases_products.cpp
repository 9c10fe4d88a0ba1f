#include "bench/kernels/kernel_cases.hpp"

#include <string>

namespace neuroshard::bench {

using namespace kernels;

namespace {

struct product_shape {
  const char* model;
  const char* what;
  int64_t rows, out, in;
};

// Four windows of 256 tokens; the head goes in tiles of 256 rows.
constexpr product_shape shapes[] = {
    {"M", "q", 1024, 768, 768},       {"M", "kv", 1024, 256, 768},
    {"M", "gate", 1024, 2048, 768},   {"M", "down", 1024, 768, 2048},
    {"M", "head", 256, 32000, 768},   {"S", "q", 1024, 256, 256},
    {"S", "gate", 1024, 688, 256},    {"S", "down", 1024, 256, 688},
    {"pico", "q", 1024, 256, 256},    {"pico", "gate", 1024, 1024, 256},
    {"pico", "head", 256, 4096, 256}, {"M", "gate, 256 rows", 256, 4096, 768},
};

std::string name_of(const product_shape& s) {
  return std::string(s.model) + " " + s.what + " " + std::to_string(s.rows) + "x" + std::to_string(s.in) +
         "x" + std::to_string(s.out);
}

tensor prepared(workbench& on, const tensor& weight, dtype act, weight_use use, queue& with) {
  const tensor bytes =
      on.bytes(on.ops().prepared_bytes(on.device(), weight.shape[0], weight.shape[1], act, use));
  const status made = on.ops().prepare_weight(with.impl(), {weight, act, use, bytes});
  return made.ok() ? bytes : tensor{};
}

prepared_call forward(workbench& on, const product_shape& s, dtype act, weight_use use, int64_t rows) {
  linear_args a;
  auto with = queue::open(on.on());
  const tensor weight = on.numbers(dtype::f32, {s.out, s.in}, 0.05F);
  a.x = on.numbers(act, {rows, s.in});
  a.weight = prepared(on, weight, act, use, **with);
  a.use = use;
  a.out_features = s.out;
  a.out = on.constant(act, {rows, s.out}, 0);
  a.workspace = on.bytes(on.ops().linear_workspace(on.device(), a));
  return {[a](queue& q) { return q.ops().linear(q.impl(), a); }, {a.out}};
}

prepared_call backward_input(workbench& on, const product_shape& s, dtype act, int64_t rows) {
  linear_backward_input_args a;
  auto with = queue::open(on.on());
  const tensor weight = on.numbers(dtype::f32, {s.out, s.in}, 0.05F);
  a.dy = on.numbers(act, {rows, s.out});
  a.weight = prepared(on, weight, act, weight_use::train, **with);
  a.in_features = s.in;
  a.dx = on.constant(act, {rows, s.in}, 0);
  a.workspace = on.bytes(on.ops().linear_backward_input_workspace(on.device(), a));
  return {[a](queue& q) { return q.ops().linear_backward_input(q.impl(), a); }, {a.dx}};
}

prepared_call backward_weight(workbench& on, const product_shape& s, dtype act, int64_t rows) {
  linear_backward_weight_args a;
  a.dy = on.numbers(act, {rows, s.out});
  a.x = on.numbers(act, {rows, s.in});
  a.dw = on.constant(dtype::f32, {s.out, s.in}, 0);
  a.workspace = on.bytes(on.ops().linear_backward_weight_workspace(on.device(), a));
  return {[a](queue& q) { return q.ops().linear_backward_weight(q.impl(), a); }, {a.dw}};
}

prepared_call prepare(workbench& on, const product_shape& s, dtype act, weight_use use) {
  prepare_weight_args a;
  a.weight = on.numbers(dtype::f32, {s.out, s.in});
  a.act = act;
  a.use = use;
  a.prepared = on.bytes(on.ops().prepared_bytes(on.device(), s.out, s.in, act, use));
  return {[a](queue& q) { return q.ops().prepare_weight(q.impl(), a); }, {}};
}

void add_training(std::vector<bench_case>& to, const product_shape& s, dtype act) {
  const auto size = static_cast<double>(size_of(act));
  const double flops =
      2.0 * static_cast<double>(s.rows) * static_cast<double>(s.in) * static_cast<double>(s.out);
  const double operands =
      size * (static_cast<double>(s.rows * (s.in + s.out)) + 2.0 * static_cast<double>(s.in * s.out));
  const bench_case common{.op = "",
                          .shape = name_of(s),
                          .type = act,
                          .limit = bound::matrix,
                          .work = flops,
                          .footprint = operands,
                          .rows = s.rows,
                          .error_rows = 24,
                          .make = {},
                          .library = {}};
  bench_case one = common;
  one.op = "linear";
  one.make = [s, act](workbench& on, int64_t rows) { return forward(on, s, act, weight_use::train, rows); };
  one.library = [s, act](int threads) {
    return library_product(act, act, s.rows, s.out, s.in, false, threads);
  };
  to.push_back(one);
  one.op = "linear_backward_input";
  one.make = [s, act](workbench& on, int64_t rows) { return backward_input(on, s, act, rows); };
  one.library = [s, act](int threads) {
    return library_product(act, act, s.rows, s.in, s.out, false, threads);
  };
  to.push_back(one);
  one.op = "linear_backward_weight";
  one.make = [s, act](workbench& on, int64_t rows) { return backward_weight(on, s, act, rows); };
  one.library = [s, act](int threads) {
    return library_product(act, dtype::f32, s.out, s.in, s.rows, true, threads);
  };
  to.push_back(one);
}

/// Serving: few rows are bound by reading the weight, a prefill by the product.
void add_serving(std::vector<bench_case>& to, const product_shape& s, dtype act) {
  const auto weight = static_cast<double>(s.in * s.out) * static_cast<double>(size_of(act));
  for (const int64_t rows : {1, 4, 8, 16, 512}) {
    const bool few = rows <= 16;
    const double flops =
        2.0 * static_cast<double>(rows) * static_cast<double>(s.in) * static_cast<double>(s.out);
    product_shape named = s;
    named.rows = rows;
    to.push_back(
        {.op = "linear_serve",
         .shape = name_of(named),
         .type = act,
         .limit = few ? bound::read : bound::matrix,
         .work = few ? weight : flops,
         .footprint = weight,
         .rows = rows,
         .error_rows = std::min<int64_t>(rows, 24),
         .make = [s, act](workbench& on, int64_t r) { return forward(on, s, act, weight_use::serve, r); },
         .library = {}});
  }
}

void add_attention(std::vector<bench_case>& to, const char* model, int64_t sequences, int64_t positions,
                   int64_t heads, int64_t kv_heads, int64_t size, dtype act) {
  const std::string shape = std::string(model) + " B" + std::to_string(sequences) + " S" +
                            std::to_string(positions) + " H" + std::to_string(heads) + "/" +
                            std::to_string(kv_heads) + " D" + std::to_string(size);
  // Half of the score matrix: two products forward, five backward.
  const double half = static_cast<double>(sequences * heads) * static_cast<double>(positions) *
                      static_cast<double>(positions + 1) / 2 * static_cast<double>(size) * 2;
  const auto operands = static_cast<double>(sequences * positions * (heads + kv_heads) * size * 2) *
                        static_cast<double>(size_of(act));
  const auto inputs = [=](workbench& on, int64_t rows, auto& a) {
    const int64_t b = rows < positions ? 1 : sequences;
    a.sequences = b;
    const int64_t all = rows < positions ? rows : sequences * positions;
    a.q = on.numbers(act, {all, heads, size});
    a.k = on.numbers(act, {all, kv_heads, size});
    a.v = on.numbers(act, {all, kv_heads, size});
    a.out = on.constant(act, {all, heads, size}, 0);
    a.lse = on.constant(dtype::f32, {b, heads, all / b}, 0);
  };
  to.push_back(
      {.op = "attention",
       .shape = shape,
       .type = act,
       .limit = bound::matrix,
       .work = 2 * half,
       .footprint = operands,
       .rows = sequences * positions,
       .error_rows = std::min<int64_t>(positions, 128) - 1,
       .make =
           [=](workbench& on, int64_t rows) {
             attention_args a;
             inputs(on, rows, a);
             a.workspace = on.bytes(on.ops().attention_workspace(on.device(), a));
             return prepared_call{[a](queue& q) { return q.ops().attention(q.impl(), a); }, {a.out, a.lse}};
           },
       .library = {}});
  to.push_back({.op = "attention_backward",
                .shape = shape,
                .type = act,
                .limit = bound::matrix,
                .work = 5 * half,
                .footprint = 2 * operands,
                .rows = sequences * positions,
                .error_rows = std::min<int64_t>(positions, 128) - 1,
                .make =
                    [=](workbench& on, int64_t rows) {
                      attention_args f;
                      inputs(on, rows, f);
                      f.workspace = on.bytes(on.ops().attention_workspace(on.device(), f));
                      attention_backward_args a;
                      a.q = f.q;
                      a.k = f.k;
                      a.v = f.v;
                      a.out = f.out;
                      a.lse = f.lse;
                      a.sequences = f.sequences;
                      const int64_t all = f.q.shape[0];
                      a.dout = on.numbers(act, {all, heads, size});
                      a.dq = on.constant(act, {all, heads, size}, 0);
                      a.dk = on.constant(act, {all, kv_heads, size}, 0);
                      a.dv = on.constant(act, {all, kv_heads, size}, 0);
                      a.workspace = on.bytes(on.ops().attention_backward_workspace(on.device(), a));
                      auto with = queue::open(on.on());
                      (void)on.ops().attention((*with)->impl(), f);
                      return prepared_call{[a](queue& q) { return q.ops().attention_backward(q.impl(), a); },
                                           {a.dq, a.dk, a.dv}};
                    },
                .library = {}});
}

/// `rows` new tokens in each of `caches` caches that end at `context`.
void add_paged(std::vector<bench_case>& to, const char* model, int64_t caches, int64_t rows_each,
               int64_t context, int64_t heads, int64_t kv_heads, int64_t size, dtype act) {
  const bool decode = rows_each == 1;
  const auto blocks = (context + kv_block - 1) / kv_block;
  const double cache_bytes =
      static_cast<double>(caches * context * kv_heads * size * 2) * static_cast<double>(size_of(act));
  const double seen = static_cast<double>(caches * rows_each) *
                      (static_cast<double>(context) - static_cast<double>(rows_each - 1) / 2);
  to.push_back({.op = "paged_attention",
                .shape = std::string(model) + " " + std::to_string(caches) + " caches, " +
                         std::to_string(rows_each) + " rows, context " + std::to_string(context),
                .type = act,
                .limit = decode ? bound::read : bound::matrix,
                .work = decode ? cache_bytes : 4 * seen * static_cast<double>(heads * size),
                .footprint = cache_bytes,
                .rows = rows_each,
                .error_rows = std::min<int64_t>(rows_each, 8),
                .make =
                    [=](workbench& on, int64_t rows) {
                      paged_attention_args a;
                      a.q = on.numbers(act, {caches * rows, heads, size});
                      a.out = on.constant(act, {caches * rows, heads, size}, 0);
                      a.row_cache = on.counting(caches * rows, 1 << 30);
                      for (int64_t t = 0; t < caches * rows; ++t)
                        a.row_cache.as<int32_t>()[t] = static_cast<int32_t>(t / rows);
                      a.positions = on.counting(caches * rows, rows, context - rows);
                      a.tables = on.counting(caches * blocks, 1 << 30);
                      a.tables = make_tensor(a.tables.data, dtype::i32, {caches, blocks});
                      // A node's pool has room for more sessions; so it lies in huge pages.
                      a.key_cache = on.numbers(act, {2 * caches * blocks, kv_block, kv_heads, size});
                      a.value_cache = on.numbers(act, {2 * caches * blocks, kv_block, kv_heads, size});
                      a.workspace = on.bytes(on.ops().paged_attention_workspace(on.device(), a));
                      return prepared_call{[a](queue& q) { return q.ops().paged_attention(q.impl(), a); },
                                           {a.out},
                                           {},
                                           decode ? cache_blocks{a.tables, a.key_cache, a.value_cache}
                                                  : cache_blocks{}};
                    },
                .library = {}});
}

} // namespace

void add_product_cases(std::vector<bench_case>& to) {
  for (const dtype act : {dtype::bf16, dtype::f32}) {
    for (const product_shape& s : shapes)
      add_training(to, s, act);
    add_serving(to, {"M", "gate", 1, 2048, 768}, act);
    add_serving(to, {"M", "down", 1, 768, 2048}, act);
    add_serving(to, {"M", "kv", 1, 256, 768}, act);
    add_serving(to, {"M", "head", 1, 32000, 768}, act);
    const product_shape packed{"M", "gate", 0, 2048, 768};
    for (const weight_use use : {weight_use::train, weight_use::serve}) {
      const auto elements = static_cast<double>(packed.in * packed.out);
      const double copies = use == weight_use::train ? 2 : 1;
      const double bytes = elements * (4 + copies * static_cast<double>(size_of(act)));
      to.push_back(
          {.op = use == weight_use::train ? "prepare_weight_train" : "prepare_weight_serve",
           .shape = "M gate 2048x768",
           .type = act,
           .limit = bound::copy,
           .work = bytes,
           .footprint = bytes,
           .rows = 0,
           .error_rows = 0,
           .make = [packed, act, use](workbench& on, int64_t) { return prepare(on, packed, act, use); },
           .library = {}});
    }
    add_attention(to, "S", 4, 256, 8, 4, 32, act);
    add_attention(to, "pico", 4, 256, 4, 2, 64, act);
    add_attention(to, "M", 4, 256, 12, 4, 64, act);
    add_attention(to, "M", 1, 2048, 12, 4, 64, act);
    add_attention(to, "Micro", 1, 1024, 8, 2, 128, act);
    add_attention(to, "Micro", 1, 2048, 8, 2, 128, act);
    add_paged(to, "M", 1, 1, 2048, 12, 4, 64, act);
    add_paged(to, "M", 8, 1, 2048, 12, 4, 64, act);
    add_paged(to, "M", 1, 512, 512, 12, 4, 64, act);
    add_paged(to, "M", 1, 512, 2048, 12, 4, 64, act);
  }
}

} // namespace neuroshard::bench
