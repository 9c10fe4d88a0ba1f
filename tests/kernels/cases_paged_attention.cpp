#include "tests/kernels/op_cases.hpp"

#include <algorithm>
#include <cmath>

// The KV cache: appending rows of several sessions, and attention over them through block tables, for prefill
// and decode alike.
namespace neuroshard::kernels::testing {

namespace {

/// Sessions whose blocks lie in a shuffled pool. Each adds `fresh` rows after what it `had`.
struct scene {
  struct session {
    int64_t had, fresh;
  };
  std::vector<session> sessions;
  int64_t heads, kv_heads, size;
  int64_t padding_rows = 0; ///< rows with row_cache -1 at the end

  int64_t rows() const {
    int64_t n = padding_rows;
    for (const session& s : sessions)
      n += s.fresh;
    return n;
  }
  int64_t blocks_max() const {
    int64_t most = 1;
    for (const session& s : sessions)
      most = std::max(most, (s.had + s.fresh + kv_block - 1) / kv_block);
    return most;
  }
  std::string text() const {
    std::string t;
    for (const session& s : sessions)
      t += std::to_string(s.had) + "+" + std::to_string(s.fresh) + " ";
    return t + "H" + std::to_string(heads) + " G" + std::to_string(kv_heads) + " D" + std::to_string(size) +
           (padding_rows > 0 ? " padded" : "");
  }
};

const std::vector<scene>& scenes() {
  static const std::vector<scene> all{
      {{}, 2, 1, 16},
      {{{0, 1}}, 1, 1, 4},
      {{{0, 7}}, 4, 2, 8},
      {{{15, 1}, {16, 1}, {31, 1}, {0, 1}}, 4, 2, 32, 1},
      {{{20, 5}, {0, 17}, {3, 1}}, 6, 2, 10, 2},
      {{{0, 100}}, 4, 1, 64},
      {{{300, 1}, {129, 1}, {64, 1}, {17, 1}, {200, 1}}, 8, 2, 64},
      {{{90, 33}, {255, 1}}, 4, 4, 128},
      {{{530, 1}, {257, 1}, {47, 1}, {0, 1}}, 12, 4, 64, 1},
      {{{79, 1}, {300, 2}}, 7, 1, 104},
  };
  return all;
}

struct laid_out {
  std::vector<double> row_cache, positions, tables;
  int64_t blocks = 1;
};

/// Gives each session its blocks, highest first, so that a table is never the identity.
laid_out lay_out(const scene& s) {
  laid_out l;
  for (const auto& one : s.sessions)
    l.blocks += (one.had + one.fresh + kv_block - 1) / kv_block;
  int64_t next = l.blocks - 1;
  for (size_t i = 0; i < s.sessions.size(); ++i) {
    const auto& one = s.sessions[i];
    for (int64_t b = 0; b < s.blocks_max(); ++b)
      l.tables.push_back(b * kv_block < one.had + one.fresh ? static_cast<double>(next--) : -1.0);
    for (int64_t r = 0; r < one.fresh; ++r) {
      l.row_cache.push_back(static_cast<double>(i));
      l.positions.push_back(static_cast<double>(one.had + r));
    }
  }
  for (int64_t r = 0; r < s.padding_rows; ++r) {
    l.row_cache.push_back(-1);
    l.positions.push_back(0);
  }
  return l;
}

size_t slot(const scene& s, const values& v, size_t tables, double cache, int64_t position) {
  const auto entry = static_cast<size_t>(static_cast<int64_t>(cache) * s.blocks_max() + position / kv_block);
  return (static_cast<size_t>(v[tables][entry]) * kv_block + static_cast<size_t>(position % kv_block)) *
         static_cast<size_t>(s.kv_heads * s.size);
}

op_case append_case(const scene& s, dtype act, numbers& random) {
  const laid_out l = lay_out(s);
  const auto sessions = static_cast<int64_t>(s.sessions.size());
  const int64_t row = s.kv_heads * s.size;
  const std::vector<int64_t> cache{l.blocks, kv_block, s.kv_heads, s.size};
  op_case c;
  c.name = std::string("kv_append ") + name_of(act) + " " + s.text();
  c.operands = {input("k", act, {s.rows(), s.kv_heads, s.size}, random.many(s.rows() * row), 3),
                input("v", act, {s.rows(), s.kv_heads, s.size}, random.many(s.rows() * row), 1),
                input("row_cache", dtype::i32, {s.rows()}, l.row_cache),
                input("positions", dtype::i32, {s.rows()}, l.positions),
                input("tables", dtype::i32, {sessions, s.blocks_max()}, l.tables),
                accumulated("key_cache", act, cache, random.many(l.blocks * kv_block * row), 0),
                accumulated("value_cache", act, cache, random.many(l.blocks * kv_block * row), 0)};
  c.run = [](call& call) {
    return call.ops().kv_append(call.on.impl(),
                                {call[0], call[1], call[2], call[3], call[4], call[5], call[6]});
  };
  c.oracle = [=](values& v) {
    for (size_t t = 0; t < v[2].size(); ++t)
      for (size_t which : {size_t{0}, size_t{1}})
        if (v[2][t] >= 0)
          std::copy_n(v[which].begin() + static_cast<std::ptrdiff_t>(t) * row, row,
                      v[5 + which].begin() +
                          static_cast<std::ptrdiff_t>(slot(s, v, 4, v[2][t], static_cast<int64_t>(v[3][t]))));
  };
  return c;
}

op_case attention_case(const scene& s, dtype act, numbers& random) {
  const laid_out l = lay_out(s);
  const auto sessions = static_cast<int64_t>(s.sessions.size());
  const int64_t row = s.kv_heads * s.size;
  const std::vector<int64_t> cache{l.blocks, kv_block, s.kv_heads, s.size};
  op_case c;
  c.name = std::string("paged_attention ") + name_of(act) + " " + s.text();
  c.operands = {
      input("q", act, {s.rows(), s.heads, s.size}, random.many(s.rows() * s.heads * s.size, -2, 2), 3),
      input("row_cache", dtype::i32, {s.rows()}, l.row_cache),
      input("positions", dtype::i32, {s.rows()}, l.positions),
      input("tables", dtype::i32, {sessions, s.blocks_max()}, l.tables),
      input("key_cache", act, cache, random.many(l.blocks * kv_block * row, -2, 2)),
      input("value_cache", act, cache, random.many(l.blocks * kv_block * row)),
      output("out", act, {s.rows(), s.heads, s.size}, act == dtype::bf16 ? 2e-2 : 1e-5, 5)};
  c.run = [](call& call) {
    paged_attention_args a{call[0], call[1], call[2], call[3], call[4], call[5], call[6], {}};
    a.workspace = call.scratch(call.ops().paged_attention_workspace(call.device(), a));
    return call.ops().paged_attention(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    const auto size = static_cast<size_t>(s.size);
    std::fill(v[6].begin(), v[6].end(), 0.0);
    for (size_t t = 0; t < v[1].size(); ++t)
      for (int64_t head = 0; head < s.heads && v[1][t] >= 0; ++head) {
        const auto within = static_cast<size_t>(head / (s.heads / s.kv_heads) * s.size);
        const size_t mine = (t * static_cast<size_t>(s.heads) + static_cast<size_t>(head)) * size;
        double total = 0;
        std::vector<double> sum(size, 0.0);
        for (int64_t j = 0; j <= static_cast<int64_t>(v[2][t]); ++j) {
          const size_t other = slot(s, v, 3, v[1][t], j) + within;
          double score = 0;
          for (size_t d = 0; d < size; ++d)
            score += v[0][mine + d] * v[4][other + d];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(s.size)));
          total += weight;
          for (size_t d = 0; d < size; ++d)
            sum[d] += weight * v[5][other + d];
        }
        for (size_t d = 0; d < size; ++d)
          v[6][mine + d] = sum[d] / total;
      }
  };
  return c;
}

} // namespace

void add_paged_attention_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const scene& s : scenes()) {
      to.push_back(append_case(s, act, random));
      to.push_back(attention_case(s, act, random));
    }
}

} // namespace neuroshard::kernels::testing
