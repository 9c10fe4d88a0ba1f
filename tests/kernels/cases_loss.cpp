#include "tests/kernels/op_cases.hpp"

#include <cmath>

// Softmax cross-entropy, its gradient (central differences of the loss in double), and sampling where the
// answer is certain.
namespace neuroshard::kernels::testing {

namespace {

struct tile {
  int64_t rows, columns, valid;
};

const std::vector<tile> tiles{{0, 8, 8}, {1, 1, 1}, {3, 7, 5}, {7, 64, 64}, {16, 130, 101}, {33, 300, 266}};

double loss_of(const std::vector<double>& row, size_t valid, double label) {
  double largest = row[0];
  for (size_t c = 0; c < valid; ++c)
    largest = std::max(largest, row[c]);
  double total = 0;
  for (size_t c = 0; c < valid; ++c)
    total += std::exp(row[c] - largest);
  return largest + std::log(total) - row[static_cast<size_t>(label)];
}

op_case cross_entropy_case(const tile& s, dtype act, bool loss_only, double reach, numbers& random) {
  const float scale = 0.125F;
  std::vector<double> labels;
  for (int64_t t = 0; t < s.rows; ++t) // one in four rows does not count, in each of the ways there are
    labels.push_back(t % 4 == 3 ? (t % 8 == 3 ? -100.0 : static_cast<double>(s.valid))
                                : static_cast<double>(random.below(s.valid)));
  op_case c;
  c.name = std::string("cross_entropy ") + name_of(act) + " [" + std::to_string(s.rows) + "," +
           std::to_string(s.columns) + "] valid " + std::to_string(s.valid) +
           (loss_only ? " loss only" : "") + (reach > 10 ? " large" : "");
  c.operands = {
      accumulated("logits", act, {s.rows, s.columns}, random.many(s.rows * s.columns, -reach, reach),
                  act == dtype::bf16 ? 1e-2 : 1e-5, 3),
      input("labels", dtype::i32, {s.rows}, labels), accumulated("loss_sum", dtype::f64, {1}, {1.5}, 1e-5)};
  c.run = [=](call& call) {
    cross_entropy_args a{call[0], call[1], call[2], s.valid, scale, loss_only, {}};
    a.workspace = call.scratch(call.ops().cross_entropy_workspace(call.device(), a));
    return call.ops().cross_entropy(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    const auto width = static_cast<size_t>(s.columns);
    const auto valid = static_cast<size_t>(s.valid);
    for (size_t t = 0; t < v[1].size(); ++t) {
      const double label = v[1][t];
      const auto first = v[0].begin() + static_cast<std::ptrdiff_t>(t * width);
      const std::vector<double> row(first, first + static_cast<std::ptrdiff_t>(width));
      const bool counted = label >= 0 && label < static_cast<double>(s.valid);
      if (counted)
        v[2][0] += loss_of(row, valid, label);
      if (loss_only)
        continue;
      const auto gradient =
          counted
              ? numeric_gradient([&](const auto& x) { return std::vector<double>{loss_of(x, valid, label)}; },
                                 row, {static_cast<double>(scale)})
              : std::vector<double>(width, 0.0);
      std::copy(gradient.begin(), gradient.end(), first);
    }
  };
  return c;
}

/// Temperature 0 and top_k 1 leave one answer; the log-probability is that of the whole row.
op_case certain_sample_case(int64_t rows, int64_t columns, bool greedy, numbers& random) {
  std::vector<double> logits = rounded(random.many(rows * columns, -4, 4), dtype::f32);
  std::vector<sample_params> params;
  for (int64_t t = 0; t < rows; ++t) {
    sample_params p;
    p.temperature = greedy ? 0.0F : 0.7F;
    p.top_k = greedy ? 0 : 1;
    p.valid_vocab = static_cast<uint32_t>(columns - t % 3);
    p.seed = static_cast<uint64_t>(t);
    params.push_back(p);
  }
  op_case c;
  c.name = std::string("sample ") + (greedy ? "greedy" : "top-1") + " [" + std::to_string(rows) + "," +
           std::to_string(columns) + "]";
  c.operands = {input("logits", dtype::f32, {rows, columns}, logits, 3), output("ids", dtype::i32, {rows}, 0),
                output("logprobs", dtype::f32, {rows}, 1e-5)};
  c.run = [=](call& call) {
    sample_args a{call[0], params, call[1], call[2], {}};
    a.workspace = call.scratch(call.ops().sample_workspace(call.device(), a));
    return call.ops().sample(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    for (int64_t t = 0; t < rows; ++t) {
      const auto row = v[0].begin() + t * columns;
      int64_t best = 2;
      double total = 0;
      for (int64_t id = 2; id < static_cast<int64_t>(params[static_cast<size_t>(t)].valid_vocab); ++id) {
        if (id == 3)
          continue;
        total += std::exp(row[id]);
        if (row[id] > row[best])
          best = id;
      }
      v[1][static_cast<size_t>(t)] = static_cast<double>(best);
      v[2][static_cast<size_t>(t)] = row[best] - std::log(total);
    }
  };
  return c;
}

} // namespace

void add_loss_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const tile& s : tiles)
      for (const bool loss_only : {false, true}) {
        to.push_back(cross_entropy_case(s, act, loss_only, 4, random));
        if (act == dtype::f32)
          to.push_back(cross_entropy_case(s, act, loss_only, 80, random));
      }
  for (const bool greedy : {true, false}) {
    to.push_back(certain_sample_case(0, 16, greedy, random));
    to.push_back(certain_sample_case(1, 5, greedy, random));
    to.push_back(certain_sample_case(7, 333, greedy, random));
  }
}

} // namespace neuroshard::kernels::testing
