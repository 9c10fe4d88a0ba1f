#include "tests/kernels/op_cases.hpp"

#include <algorithm>
#include <cmath>

// Causal grouped-query attention of whole sequences. The oracle of the gradients is the central difference of
// the forward formula in double; shapes where that would take too long are compared with the reference
// backend alone.
namespace neuroshard::kernels::testing {

namespace {

struct shape {
  int64_t sequences, positions, heads, kv_heads, size;
  std::vector<double> lengths; ///< none: all full
  bool differentiate;          ///< small enough for differences

  int64_t rows() const { return sequences * positions; }
  int64_t length(int64_t b) const {
    return lengths.empty()
               ? positions
               : std::clamp<int64_t>(static_cast<int64_t>(lengths[static_cast<size_t>(b)]), 0, positions);
  }
  std::string text() const {
    return "B" + std::to_string(sequences) + " S" + std::to_string(positions) + " H" + std::to_string(heads) +
           " G" + std::to_string(kv_heads) + " D" + std::to_string(size) + (lengths.empty() ? "" : " padded");
  }
};

const std::vector<shape>& shapes() {
  static const std::vector<shape> all{
      {0, 0, 2, 1, 16, {}, true},       {1, 1, 1, 1, 4, {}, true},     {2, 7, 4, 2, 8, {}, true},
      {3, 5, 2, 2, 6, {5, 0, 3}, true}, {1, 17, 3, 1, 5, {}, true},    {1, 9, 2, 1, 16, {40}, true},
      {2, 33, 4, 2, 32, {}, false},     {1, 130, 2, 1, 64, {}, false}, {2, 65, 4, 1, 64, {64, 11}, false},
      {1, 70, 2, 2, 128, {}, false},
  };
  return all;
}

struct attended {
  std::vector<double> out, lse;
};

attended attention_of(const shape& s, const std::vector<double>& q, const std::vector<double>& k,
                      const std::vector<double>& v) {
  attended a{std::vector<double>(q.size(), 0.0),
             std::vector<double>(static_cast<size_t>(s.rows() * s.heads), 0.0)};
  const auto at = [&](int64_t row, int64_t head, int64_t heads) {
    return static_cast<size_t>((row * heads + head) * s.size);
  };
  const auto size = static_cast<size_t>(s.size);
  for (int64_t b = 0; b < s.sequences; ++b)
    for (int64_t head = 0; head < s.heads; ++head)
      for (int64_t i = 0; i < s.length(b); ++i) {
        const int64_t g = head / (s.heads / s.kv_heads);
        const size_t mine = at(b * s.positions + i, head, s.heads);
        std::vector<double> weights;
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          const size_t other = at(b * s.positions + j, g, s.kv_heads);
          double score = 0;
          for (size_t d = 0; d < size; ++d)
            score += q[mine + d] * k[other + d];
          weights.push_back(std::exp(score / std::sqrt(static_cast<double>(s.size))));
          total += weights.back();
        }
        for (int64_t j = 0; j <= i; ++j)
          for (size_t d = 0; d < size; ++d)
            a.out[mine + d] +=
                weights[static_cast<size_t>(j)] / total * v[at(b * s.positions + j, g, s.kv_heads) + d];
        a.lse[static_cast<size_t>((b * s.heads + head) * s.positions + i)] = std::log(total);
      }
  return a;
}

operand lengths_of(const shape& s) {
  return input("lengths", dtype::i32, {s.sequences}, s.lengths);
}

/// q, k and v as they come out of one fused projection: slices of the same rows when `gap` is theirs.
struct inputs {
  std::vector<double> q, k, v;
};

inputs draw(const shape& s, dtype act, numbers& random) {
  return {rounded(random.many(s.rows() * s.heads * s.size, -2, 2), act),
          rounded(random.many(s.rows() * s.kv_heads * s.size, -2, 2), act),
          rounded(random.many(s.rows() * s.kv_heads * s.size), act)};
}

op_case forward_case(const shape& s, dtype act, bool with_lse, numbers& random) {
  const auto in = draw(s, act, random);
  op_case c;
  c.name = std::string("attention ") + name_of(act) + " " + s.text() + (with_lse ? "" : " without lse");
  c.operands = {input("q", act, {s.rows(), s.heads, s.size}, in.q, 3),
                input("k", act, {s.rows(), s.kv_heads, s.size}, in.k, 5),
                input("v", act, {s.rows(), s.kv_heads, s.size}, in.v, 1),
                output("out", act, {s.rows(), s.heads, s.size}, act == dtype::bf16 ? 2e-2 : 1e-5, 7)};
  if (with_lse)
    c.operands.push_back(
        output("lse", dtype::f32, {s.sequences, s.heads, s.positions}, act == dtype::bf16 ? 1e-3 : 1e-5));
  const bool padded = !s.lengths.empty();
  if (padded)
    c.operands.push_back(lengths_of(s));
  c.run = [=](call& call) {
    attention_args a{call[0], call[1], call[2], call[3], {}, {}, s.sequences, {}};
    if (with_lse)
      a.lse = call[4];
    if (padded)
      a.lengths = call.operands.back();
    a.workspace = call.scratch(call.ops().attention_workspace(call.device(), a));
    return call.ops().attention(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    auto a = attention_of(s, v[0], v[1], v[2]);
    v[3] = std::move(a.out);
    if (with_lse)
      v[4] = std::move(a.lse);
  };
  return c;
}

op_case backward_case(const shape& s, dtype act, numbers& random) {
  const auto in = draw(s, act, random);
  const auto forward = attention_of(s, in.q, in.k, in.v);
  const double tolerance = act == dtype::bf16 ? 3e-2 : 2e-5;
  op_case c;
  c.name = std::string("attention_backward ") + name_of(act) + " " + s.text();
  c.operands = {input("q", act, {s.rows(), s.heads, s.size}, in.q, 3),
                input("k", act, {s.rows(), s.kv_heads, s.size}, in.k, 5),
                input("v", act, {s.rows(), s.kv_heads, s.size}, in.v, 1),
                input("out", act, {s.rows(), s.heads, s.size}, forward.out),
                input("lse", dtype::f32, {s.sequences, s.heads, s.positions}, forward.lse),
                input("dout", act, {s.rows(), s.heads, s.size}, random.many(s.rows() * s.heads * s.size), 7),
                output("dq", act, {s.rows(), s.heads, s.size}, tolerance, 3),
                output("dk", act, {s.rows(), s.kv_heads, s.size}, tolerance, 5),
                output("dv", act, {s.rows(), s.kv_heads, s.size}, tolerance, 1)};
  const bool padded = !s.lengths.empty();
  if (padded)
    c.operands.push_back(lengths_of(s));
  c.run = [=](call& call) {
    attention_backward_args a{call[0], call[1], call[2], call[3], call[4],     {},
                              call[5], call[6], call[7], call[8], s.sequences, {}};
    if (padded)
      a.lengths = call[9];
    a.workspace = call.scratch(call.ops().attention_backward_workspace(call.device(), a));
    return call.ops().attention_backward(call.on.impl(), a);
  };
  if (s.differentiate)
    c.oracle = [=](values& v) {
      v[6] = numeric_gradient([&](const auto& q) { return attention_of(s, q, v[1], v[2]).out; }, v[0], v[5]);
      v[7] = numeric_gradient([&](const auto& k) { return attention_of(s, v[0], k, v[2]).out; }, v[1], v[5]);
      v[8] = numeric_gradient([&](const auto& w) { return attention_of(s, v[0], v[1], w).out; }, v[2], v[5]);
    };
  return c;
}

} // namespace

void add_attention_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const shape& s : shapes()) {
      to.push_back(forward_case(s, act, true, random));
      to.push_back(forward_case(s, act, false, random));
      to.push_back(backward_case(s, act, random));
    }
}

} // namespace neuroshard::kernels::testing
