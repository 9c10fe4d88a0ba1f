#include "tests/kernels/op_cases.hpp"

#include <cmath>

// Embedding, RoPE, SwiGLU, convert and add. Gradients are central differences of the forward formula in
// double.
namespace neuroshard::kernels::testing {

namespace {

struct matrix_shape {
  int64_t rows, width;
};

const std::vector<matrix_shape> shapes{{0, 8}, {1, 1}, {1, 64}, {7, 33}, {16, 48}, {65, 130}};

double tolerance_of(dtype type) {
  return type == dtype::bf16 ? 1e-2 : 2e-6;
}

std::string label(const char* op, const matrix_shape& s, dtype type, const char* more = "") {
  return std::string(op) + " " + name_of(type) + " [" + std::to_string(s.rows) + "," +
         std::to_string(s.width) + "]" + more;
}

double silu(double z) {
  return z / (1 + std::exp(-z));
}

std::vector<double> some_ids(int64_t count, int64_t rows, numbers& random) {
  std::vector<double> ids;
  for (int64_t i = 0; i < count; ++i)
    ids.push_back(static_cast<double>(random.below(rows + 2) - 1)); // some out of range on either side
  return ids;
}

size_t row_of(double id, int64_t rows) {
  return id >= 0 && id < static_cast<double>(rows) ? static_cast<size_t>(id) : 0;
}

op_case embedding_case(const matrix_shape& s, dtype act, dtype held, numbers& random) {
  constexpr int64_t rows = 11;
  op_case c;
  c.name = label("embedding", s, act, held == dtype::f32 ? " of f32" : " of bf16");
  c.operands = {input("ids", dtype::i32, {s.rows}, some_ids(s.rows, rows, random)),
                input("table", held, {rows, s.width}, random.many(rows * s.width)),
                output("out", act, {s.rows, s.width}, act == dtype::bf16 ? 4e-3 : 0, 5)};
  c.run = [](call& call) { return call.ops().embedding(call.on.impl(), {call[0], call[1], call[2]}); };
  c.oracle = [=](values& v) {
    const auto width = static_cast<size_t>(s.width);
    for (size_t t = 0; t < v[0].size(); ++t)
      for (size_t i = 0; i < width; ++i)
        v[2][t * width + i] = v[1][row_of(v[0][t], rows) * width + i];
  };
  return c;
}

op_case embedding_backward_case(const matrix_shape& s, dtype act, numbers& random) {
  constexpr int64_t rows = 5; // few rows: many rows of dout meet in one
  op_case c;
  c.name = label("embedding_backward", s, act);
  c.operands = {input("ids", dtype::i32, {s.rows}, some_ids(s.rows, rows, random)),
                input("dout", act, {s.rows, s.width}, random.many(s.rows * s.width), 3),
                accumulated("dtable", dtype::f32, {rows, s.width}, random.many(rows * s.width), 2e-6)};
  c.run = [](call& call) {
    embedding_backward_args a{call[0], call[1], call[2], {}};
    a.workspace = call.scratch(call.ops().embedding_backward_workspace(call.device(), a));
    return call.ops().embedding_backward(call.on.impl(), a);
  };
  c.oracle = [=](values& v) {
    const auto width = static_cast<size_t>(s.width);
    for (size_t t = 0; t < v[0].size(); ++t)
      for (size_t i = 0; i < width; ++i)
        v[2][row_of(v[0][t], rows) * width + i] += v[1][t * width + i];
  };
  return c;
}

op_case rope_case(int64_t rows, int64_t heads, int64_t size, dtype act, bool inverse, numbers& random) {
  constexpr int64_t positions = 40;
  const int64_t half = size / 2;
  op_case c;
  c.name = label("rope", {rows, heads * size}, act, inverse ? " inverse" : "");
  std::vector<double> at;
  for (int64_t t = 0; t < rows; ++t)
    at.push_back(static_cast<double>(random.below(positions + 2) - 1)); // out of the tables: left as it is
  std::vector<double> cosine;
  std::vector<double> sine;
  for (int64_t m = 0; m < positions; ++m)
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(m) *
                           std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(size));
      cosine.push_back(std::cos(angle));
      sine.push_back(std::sin(angle));
    }
  c.operands = {
      accumulated("x", act, {rows, heads, size}, random.many(rows * heads * size), tolerance_of(act), 7),
      input("positions", dtype::i32, {rows}, at), input("cosine", dtype::f32, {positions, half}, cosine),
      input("sine", dtype::f32, {positions, half}, sine)};
  c.run = [=](call& call) {
    return call.ops().rope(call.on.impl(), {call[0], call[1], call[2], call[3], inverse});
  };
  c.oracle = [=](values& v) {
    for (int64_t t = 0; t < rows; ++t) {
      const auto m = static_cast<int64_t>(v[1][static_cast<size_t>(t)]);
      if (m < 0 || m >= positions)
        continue;
      for (int64_t pair = 0; pair < heads * half; ++pair) {
        const auto angle = static_cast<size_t>(m * half + pair % half);
        const double turn = inverse ? -v[3][angle] : v[3][angle];
        double& even = v[0][static_cast<size_t>(t * heads * size + 2 * pair)];
        double& odd = v[0][static_cast<size_t>(t * heads * size + 2 * pair + 1)];
        const double before = even;
        even = before * v[2][angle] - odd * turn;
        odd = before * turn + odd * v[2][angle];
      }
    }
  };
  return c;
}

op_case swiglu_case(const matrix_shape& s, dtype act, numbers& random) {
  op_case c;
  c.name = label("swiglu", s, act);
  c.operands = {input("gate", act, {s.rows, s.width}, random.many(s.rows * s.width, -8, 8), 3),
                input("up", act, {s.rows, s.width}, random.many(s.rows * s.width), 5),
                output("out", act, {s.rows, s.width}, tolerance_of(act), 1)};
  if (s.rows > 0) { // the far ends of the sigmoid
    c.operands[0].values.front() = -200;
    c.operands[0].values.back() = 200;
  }
  c.run = [](call& call) { return call.ops().swiglu(call.on.impl(), {call[0], call[1], call[2]}); };
  c.oracle = [](values& v) {
    for (size_t i = 0; i < v[0].size(); ++i)
      v[2][i] = silu(v[0][i]) * v[1][i];
  };
  return c;
}

op_case swiglu_backward_case(const matrix_shape& s, dtype act, bool in_place, numbers& random) {
  op_case c;
  c.name = label("swiglu_backward", s, act, in_place ? " in place" : "");
  c.operands = {input("gate", act, {s.rows, s.width}, random.many(s.rows * s.width, -6, 6), 3),
                input("up", act, {s.rows, s.width}, random.many(s.rows * s.width), 3),
                input("dout", act, {s.rows, s.width}, random.many(s.rows * s.width)),
                output("dgate", act, {s.rows, s.width}, tolerance_of(act), 3),
                output("dup", act, {s.rows, s.width}, tolerance_of(act), 3)};
  if (in_place) {
    c.operands[3].alias_of = 0;
    c.operands[4].alias_of = 1;
  }
  c.run = [](call& call) {
    return call.ops().swiglu_backward(call.on.impl(), {call[0], call[1], call[2], call[3], call[4]});
  };
  c.oracle = [](values& v) {
    constexpr double h = 1e-5;
    for (size_t i = 0; i < v[0].size(); ++i) {
      v[3][i] = v[2][i] * v[1][i] * (silu(v[0][i] + h) - silu(v[0][i] - h)) / (2 * h);
      v[4][i] = v[2][i] * silu(v[0][i]);
    }
  };
  return c;
}

op_case convert_case(const matrix_shape& s, dtype from, dtype to, numbers& random) {
  op_case c;
  c.name = label("convert", s, from, to == dtype::bf16 ? " to bf16" : " to f32");
  c.operands = {input("x", from, {s.rows, s.width}, random.many(s.rows * s.width, -1e3, 1e3), 3),
                output("out", to, {s.rows, s.width}, 0, 1)};
  c.run = [](call& call) { return call.ops().convert(call.on.impl(), {call[0], call[1]}); };
  c.oracle = [=](values& v) { v[1] = rounded(v[0], to); };
  return c;
}

op_case add_case(const matrix_shape& s, dtype act, bool in_place, numbers& random) {
  op_case c;
  c.name = label("add", s, act, in_place ? " in place" : "");
  c.operands = {input("a", act, {s.rows, s.width}, random.many(s.rows * s.width), 3),
                input("b", act, {s.rows, s.width}, random.many(s.rows * s.width), 1),
                output("out", act, {s.rows, s.width}, 0, 3)};
  if (in_place)
    c.operands[2].alias_of = 0;
  c.run = [](call& call) { return call.ops().add(call.on.impl(), {call[0], call[1], call[2]}); };
  c.oracle = [=](values& v) {
    for (size_t i = 0; i < v[0].size(); ++i)
      v[2][i] = rounded(rounded(v[0][i] + v[1][i], dtype::f32), act);
  };
  return c;
}

} // namespace

void add_rowwise_cases(std::vector<op_case>& to, uint64_t seed) {
  numbers random(seed);
  for (const dtype act : {dtype::f32, dtype::bf16}) {
    for (const matrix_shape& s : shapes) {
      to.push_back(embedding_case(s, act, dtype::f32, random));
      to.push_back(embedding_case(s, act, act, random));
      to.push_back(embedding_backward_case(s, act, random));
      to.push_back(swiglu_case(s, act, random));
      to.push_back(convert_case(s, act, dtype::bf16, random));
      to.push_back(convert_case(s, act, dtype::f32, random));
      for (const bool in_place : {false, true}) {
        to.push_back(swiglu_backward_case(s, act, in_place, random));
        to.push_back(add_case(s, act, in_place, random));
      }
    }
    for (const bool inverse : {false, true}) {
      to.push_back(rope_case(0, 2, 8, act, inverse, random));
      to.push_back(rope_case(1, 1, 2, act, inverse, random));
      to.push_back(rope_case(9, 3, 10, act, inverse, random));
      to.push_back(rope_case(17, 2, 64, act, inverse, random));
    }
  }
}

} // namespace neuroshard::kernels::testing
