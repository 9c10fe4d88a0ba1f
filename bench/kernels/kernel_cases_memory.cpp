#include "bench/kernels/kernel_cases.hpp"

#include <string>

namespace neuroshard::bench {

using namespace kernels;

namespace {

std::string rows_by(const char* model, int64_t rows, int64_t columns) {
  return std::string(model) + " " + std::to_string(rows) + "x" + std::to_string(columns);
}

bench_case memory_case(const char* op, std::string shape, dtype act, double bytes, int64_t rows,
                       std::function<prepared_call(workbench&, int64_t)> make) {
  return {.op = op,
          .shape = std::move(shape),
          .type = act,
          .limit = bound::copy,
          .work = bytes,
          .footprint = bytes,
          .rows = rows,
          .error_rows = std::min<int64_t>(rows, 32),
          .make = std::move(make),
          .library = {}};
}

void add_norm(std::vector<bench_case>& to, const char* model, int64_t rows, int64_t c, dtype act) {
  const double matrix = static_cast<double>(rows * c) * static_cast<double>(size_of(act));
  for (const bool residual : {false, true})
    to.push_back(memory_case(
        residual ? "rms_norm_residual" : "rms_norm", rows_by(model, rows, c), act,
        matrix * (residual ? 4 : 2), rows, [=](workbench& on, int64_t t) {
          rms_norm_args a;
          a.x = on.numbers(act, {t, c});
          a.gain = on.numbers(dtype::f32, {c});
          a.out = on.constant(act, {t, c}, 0);
          a.rstd = on.constant(dtype::f32, {t}, 0);
          if (residual) {
            a.residual = on.numbers(act, {t, c});
            a.sum = on.constant(act, {t, c}, 0);
          }
          return prepared_call{[a](queue& q) { return q.ops().rms_norm(q.impl(), a); }, {a.out, a.rstd}};
        }));
  to.push_back(memory_case(
      "rms_norm_backward", rows_by(model, rows, c), act, matrix * 4, rows, [=](workbench& on, int64_t t) {
        rms_norm_backward_args a;
        a.dy = on.numbers(act, {t, c});
        a.x = on.numbers(act, {t, c});
        a.gain = on.numbers(dtype::f32, {c});
        a.rstd = on.constant(dtype::f32, {t}, 1.7F);
        a.dresidual = on.numbers(act, {t, c});
        a.dx = on.constant(act, {t, c}, 0);
        a.dgain = on.constant(dtype::f32, {c}, 0);
        a.workspace = on.bytes(on.ops().rms_norm_backward_workspace(on.device(), a));
        return prepared_call{[a](queue& q) { return q.ops().rms_norm_backward(q.impl(), a); },
                             {a.dx, a.dgain}};
      }));
}

void add_rope(std::vector<bench_case>& to, const char* model, int64_t rows, int64_t heads, int64_t size,
              dtype act) {
  const double matrix = static_cast<double>(rows * heads * size) * static_cast<double>(size_of(act));
  to.push_back(memory_case("rope", rows_by(model, rows, heads * size), act, matrix * 2, rows,
                           [=](workbench& on, int64_t t) {
                             rope_args a;
                             a.x = on.numbers(act, {t, heads, size});
                             a.positions = on.counting(t, 256);
                             a.cosine = on.numbers(dtype::f32, {256, size / 2});
                             a.sine = on.numbers(dtype::f32, {256, size / 2});
                             return prepared_call{[a](queue& q) { return q.ops().rope(q.impl(), a); }, {a.x}};
                           }));
}

void add_swiglu(std::vector<bench_case>& to, const char* model, int64_t rows, int64_t f, dtype act) {
  const double matrix = static_cast<double>(rows * f) * static_cast<double>(size_of(act));
  to.push_back(
      memory_case("swiglu", rows_by(model, rows, f), act, matrix * 3, rows, [=](workbench& on, int64_t t) {
        const tensor both =
            on.numbers(act, {t, 2 * f}, 4); // one product makes gate and up: columns of one matrix
        swiglu_args a{columns_of(both, 0, f), columns_of(both, f, f), on.constant(act, {t, f}, 0)};
        return prepared_call{[a](queue& q) { return q.ops().swiglu(q.impl(), a); }, {a.out}};
      }));
  to.push_back(memory_case(
      "swiglu_backward", rows_by(model, rows, f), act, matrix * 5, rows, [=](workbench& on, int64_t t) {
        const tensor both = on.numbers(act, {t, 2 * f}, 4);
        const tensor gradients = on.constant(act, {t, 2 * f}, 0);
        swiglu_backward_args a{columns_of(both, 0, f), columns_of(both, f, f), on.numbers(act, {t, f}),
                               columns_of(gradients, 0, f), columns_of(gradients, f, f)};
        return prepared_call{[a](queue& q) { return q.ops().swiglu_backward(q.impl(), a); },
                             {a.dgate, a.dup}};
      }));
}

void add_simple(std::vector<bench_case>& to, const char* model, int64_t rows, int64_t c, dtype act) {
  const double elements = static_cast<double>(rows * c);
  const auto size = static_cast<double>(size_of(act));
  to.push_back(memory_case(
      "add", rows_by(model, rows, c), act, elements * size * 3, rows, [=](workbench& on, int64_t t) {
        add_args a{on.numbers(act, {t, c}), on.numbers(act, {t, c}), on.constant(act, {t, c}, 0)};
        return prepared_call{[a](queue& q) { return q.ops().add(q.impl(), a); }, {a.out}};
      }));
  const dtype other = act == dtype::bf16 ? dtype::f32 : dtype::bf16;
  to.push_back(
      memory_case(act == dtype::bf16 ? "convert_from_bf16" : "convert_to_bf16", rows_by(model, rows, c), act,
                  elements * 6, rows, [=](workbench& on, int64_t t) {
                    convert_args a{on.numbers(act, {t, c}), on.constant(other, {t, c}, 0)};
                    return prepared_call{[a](queue& q) { return q.ops().convert(q.impl(), a); }, {a.out}};
                  }));
  constexpr int64_t vocab = 32000;
  to.push_back(memory_case(
      "embedding", rows_by(model, rows, c), act, elements * (4 + size), rows, [=](workbench& on, int64_t t) {
        embedding_args a{on.indices(t, vocab), on.numbers(dtype::f32, {vocab, c}),
                         on.constant(act, {t, c}, 0)};
        return prepared_call{[a](queue& q) { return q.ops().embedding(q.impl(), a); },
                             {a.out},
                             {a.ids, a.table, on.constant(dtype::f32, {t, c}, 0), c, false}};
      }));
  to.push_back(memory_case(
      "embedding_backward", rows_by(model, rows, c), act, elements * (8 + size), rows,
      [=](workbench& on, int64_t t) {
        embedding_backward_args a{
            on.indices(t, vocab), on.numbers(act, {t, c}), on.constant(dtype::f32, {vocab, c}, 0), {}};
        a.workspace = on.bytes(on.ops().embedding_backward_workspace(on.device(), a));
        return prepared_call{[a](queue& q) { return q.ops().embedding_backward(q.impl(), a); },
                             {a.dtable},
                             {a.ids, a.dtable, on.constant(dtype::f32, {t, c}, 0), c, true}};
      }));
}

void add_loss(std::vector<bench_case>& to, const char* model, int64_t rows, int64_t vocab, dtype act) {
  const double matrix = static_cast<double>(rows * vocab) * static_cast<double>(size_of(act));
  to.push_back(memory_case(
      "cross_entropy", rows_by(model, rows, vocab), act, matrix * 2, rows, [=](workbench& on, int64_t t) {
        cross_entropy_args a;
        a.logits = on.numbers(act, {t, vocab}, 5);
        a.labels = on.indices(t, vocab);
        a.loss_sum = on.constant(dtype::f64, {1}, 0);
        a.valid_vocab = vocab;
        a.scale = 1.0F / static_cast<float>(t);
        a.workspace = on.bytes(on.ops().cross_entropy_workspace(on.device(), a));
        return prepared_call{[a](queue& q) { return q.ops().cross_entropy(q.impl(), a); }, {a.logits}};
      }));
}

void add_optimizer(std::vector<bench_case>& to) {
  constexpr int64_t n = int64_t{8} << 20;
  to.push_back(memory_case(
      "adamw", "8388608", dtype::f32, static_cast<double>(n) * 32, n, [](workbench& on, int64_t t) {
        auto items = std::make_shared<std::vector<adamw_item>>();
        items->push_back({on.numbers(dtype::f32, {t}), on.numbers(dtype::f32, {t}),
                          on.numbers(dtype::f32, {t}), on.constant(dtype::f32, {t}, 0.1F), 0.1F});
        adamw_args a;
        a.items = *items;
        a.clip = on.constant(dtype::f32, {1}, 0.7F);
        a.learning_rate = 1e-3F;
        a.t = 10;
        return prepared_call{
            [a, items](queue& q) { return q.ops().adamw(q.impl(), a); },
            {items->front().weight, items->front().first_moment, items->front().second_moment}};
      }));
  auto norm = memory_case(
      "grad_norm", "8388608", dtype::f32, static_cast<double>(n) * 4, n, [](workbench& on, int64_t t) {
        auto gradients = std::make_shared<std::vector<tensor>>();
        gradients->push_back(on.numbers(dtype::f32, {t}));
        grad_norm_args a;
        a.gradients = *gradients;
        a.sum_sq = on.constant(dtype::f64, {1}, 0);
        a.workspace = on.bytes(on.ops().grad_norm_workspace(on.device(), a));
        return prepared_call{[a, gradients](queue& q) { return q.ops().grad_norm(q.impl(), a); }, {a.sum_sq}};
      });
  norm.limit = bound::read;
  to.push_back(norm);
}

void add_serving(std::vector<bench_case>& to, dtype act) {
  constexpr int64_t rows = 2048;
  constexpr int64_t heads = 4;
  constexpr int64_t size = 64;
  const double matrix = static_cast<double>(rows * heads * size) * static_cast<double>(size_of(act));
  to.push_back(memory_case("kv_append", "M 2048x4x64", act, matrix * 4, rows, [=](workbench& on, int64_t t) {
    kv_append_args a;
    a.k = on.numbers(act, {t, heads, size});
    a.v = on.numbers(act, {t, heads, size});
    a.row_cache = on.constant(dtype::i32, {t}, 0);
    a.positions = on.counting(t, 1 << 30);
    const int64_t blocks = (t + kv_block - 1) / kv_block;
    a.tables = on.counting(blocks, 1 << 30);
    a.tables = make_tensor(a.tables.data, dtype::i32, {1, blocks});
    a.key_cache = on.constant(act, {blocks, kv_block, heads, size}, 0);
    a.value_cache = on.constant(act, {blocks, kv_block, heads, size}, 0);
    return prepared_call{[a](queue& q) { return q.ops().kv_append(q.impl(), a); },
                         {a.key_cache, a.value_cache}};
  }));
  if (act != dtype::f32)
    return;
  for (const uint32_t top_k : {0U, 50U}) {
    auto one =
        memory_case(top_k == 0 ? "sample" : "sample_top_k_50", "8x32000", act, 8.0 * 32000 * 4, 8,
                    [=](workbench& on, int64_t t) {
                      auto params = std::make_shared<std::vector<sample_params>>(
                          static_cast<size_t>(t), sample_params{.temperature = 0.8F,
                                                                .top_p = 0.95F,
                                                                .top_k = top_k,
                                                                .valid_vocab = 32000,
                                                                .seed = 7,
                                                                .step = 3});
                      sample_args a;
                      a.logits = on.numbers(dtype::f32, {t, 32000}, 6);
                      a.params = *params;
                      a.ids = on.constant(dtype::i32, {t}, 0);
                      a.workspace = on.bytes(on.ops().sample_workspace(on.device(), a));
                      return prepared_call{[a, params](queue& q) { return q.ops().sample(q.impl(), a); }, {}};
                    });
    one.limit = bound::read;
    to.push_back(one);
  }
}

} // namespace

void add_memory_cases(std::vector<bench_case>& to) {
  for (const dtype act : {dtype::bf16, dtype::f32}) {
    for (const auto& [model, c, heads, size, f, vocab] :
         {std::tuple{"M", 768, 12, 64, 2048, 32000}, std::tuple{"S", 256, 8, 32, 688, 32000},
          std::tuple{"pico", 256, 4, 64, 1024, 4096}}) {
      const std::string name = model;
      add_norm(to, model, 4096, c, act);
      add_rope(to, model, 4096, heads, size, act);
      add_swiglu(to, model, 4096, f, act);
      add_loss(to, model, 256, vocab, act);
      if (name != "pico")
        add_simple(to, model, 4096, c, act);
    }
    add_serving(to, act);
  }
  add_optimizer(to);
}

} // namespace neuroshard::bench
