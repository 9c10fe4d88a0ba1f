#include "kernels/core/check.hpp"
#include "tests/support/test.hpp"

#include <array>
#include <limits>
#include <string>
#include <vector>

using namespace neuroshard::kernels;

namespace {

alignas(64) std::array<std::byte, 1 << 16> memory;

tensor make(dtype type, std::initializer_list<int64_t> shape) {
  return make_tensor(memory.data(), type, shape);
}
tensor f32(std::initializer_list<int64_t> shape) {
  return make(dtype::f32, shape);
}
tensor i32(std::initializer_list<int64_t> shape) {
  return make(dtype::i32, shape);
}

/// Refused, with a line that holds the text.
bool refuses(const status& s, const std::string& text) {
  const bool right = s.why() == code::invalid_argument && s.message().find(text) != std::string::npos;
  if (!right)
    MESSAGE("got: " << s.message());
  return right;
}

} // namespace

TEST_CASE("a bad operand is named, with what it has and what it should have") {
  linear_args good{f32({3, 8}), make(dtype::i8, {160}), weight_use::serve, 5, f32({3, 5}), false, {}};
  const needed_bytes needed{.prepared = 160};
  CHECK(check(good, needed).ok());
  auto a = good;
  a.x = {};
  CHECK(refuses(check(a, needed), "linear: x is missing"));
  a = good;
  a.x.data = nullptr;
  CHECK(refuses(check(a, needed), "linear: x is missing"));
  a = good;
  a.out = f32({3, 4});
  CHECK(refuses(check(a, needed), "out has shape [3, 4], expected [3, 5]"));
  a = good;
  a.out = f32({3, 5, 1});
  CHECK(refuses(check(a, needed), "out has rank 3, expected 2"));
  a = good;
  a.out.type = dtype::i32;
  CHECK(refuses(check(a, needed), "out has an element type"));
  a = good;
  a.weight.shape[0] = 159;
  CHECK(refuses(check(a, needed), "weight has shape [159], expected [160]"));
  a = good;
  a.out_features = -1;
  CHECK(refuses(check(a, needed), "out_features is negative"));
  a = good;
  a.x.shape[0] = -3;
  CHECK(refuses(check(a, needed), "x has shape [-3, 8]"));
  a = good;
  a.x.shape[0] = std::numeric_limits<int64_t>::max();
  CHECK(refuses(check(a, needed), "x has shape"));
}

TEST_CASE("strides that make no matrix are refused") {
  add_args good{f32({4, 8}), f32({4, 8}), f32({4, 8})};
  CHECK(check(good).ok());
  auto a = good;
  a.a.stride[1] = 2;
  CHECK(refuses(check(a), "add: a has gaps in its innermost dimension"));
  a = good;
  a.out.stride[0] = 7;
  CHECK(refuses(check(a), "out has rows that lie over each other"));
  a = good;
  a.b.stride[0] = 0; // reading one row again and again is legal
  CHECK(check(a).ok());
  a.b.stride[0] = -8;
  CHECK(refuses(check(a), "b has rows"));
  a = good;
  a.a.stride[0] = int64_t{1} << 60;
  CHECK(refuses(check(a), "a is too large"));
  a = good;
  a.a.data = memory.data() + 2;
  CHECK(refuses(check(a), "a is not aligned"));
}

TEST_CASE("zero rows need no memory") {
  add_args a{make_tensor(nullptr, dtype::f32, {0, 8}), make_tensor(nullptr, dtype::f32, {0, 8}),
             make_tensor(nullptr, dtype::f32, {0, 8})};
  CHECK(check(a).ok());
}

TEST_CASE("activations of one call are all of one type") {
  CHECK(refuses(check(swiglu_args{f32({2, 4}), make(dtype::bf16, {2, 4}), f32({2, 4})}),
                "up has an element type"));
  CHECK(refuses(check(swiglu_args{i32({2, 4}), i32({2, 4}), i32({2, 4})}), "gate has an element type"));
}

TEST_CASE("scratch memory is checked for size and alignment") {
  linear_backward_weight_args a{f32({3, 4}), f32({3, 8}), f32({4, 8}), {}};
  CHECK(check(a, {}).ok());
  const needed_bytes needed{.workspace = 100};
  CHECK(refuses(check(a, needed), "workspace is missing, 100 bytes are needed"));
  a.workspace = make(dtype::i8, {99});
  CHECK(refuses(check(a, needed), "workspace has 99 bytes, 100 are needed"));
  a.workspace = make_tensor(memory.data() + 32, dtype::i8, {100});
  CHECK(refuses(check(a, needed), "workspace is not aligned"));
  a.workspace = make(dtype::i8, {100});
  CHECK(check(a, needed).ok());
}

TEST_CASE("attention refuses heads and sequences that do not divide") {
  attention_args good{
      f32({6, 4, 8}), f32({6, 2, 8}), f32({6, 2, 8}), f32({6, 4, 8}), f32({2, 4, 3}), {}, 2, {}};
  CHECK(check(good, {}).ok());
  auto a = good;
  a.sequences = 4;
  CHECK(refuses(check(a, {}), "no multiple of sequences"));
  a = good;
  a.sequences = -1;
  CHECK(refuses(check(a, {}), "sequences is negative"));
  a = good;
  a.k = f32({6, 3, 8});
  a.v = f32({6, 3, 8});
  CHECK(refuses(check(a, {}), "the kv heads do not divide the heads"));
  a = good;
  a.lengths = i32({3});
  CHECK(refuses(check(a, {}), "lengths has shape [3], expected [2]"));
  attention_backward_args b;
  b.q = good.q;
  b.k = good.k;
  b.v = good.v;
  b.out = b.dout = b.dq = good.out;
  b.dk = b.dv = good.k;
  b.sequences = 2;
  CHECK(refuses(check(b, {}), "lse is missing"));
  b.lse = good.lse;
  CHECK(check(b, {}).ok());
}

TEST_CASE("parameters of the loss, the sampler and the optimizer stay in their ranges") {
  alignas(8) static std::array<double, 1> loss;
  cross_entropy_args ce{f32({2, 9}), i32({2}), make_tensor(loss.data(), dtype::f64, {1}), 9, 1, false, {}};
  CHECK(check(ce, {}).ok());
  ce.valid_vocab = 10;
  CHECK(refuses(check(ce, {}), "valid_vocab"));
  ce.valid_vocab = 9;
  ce.scale = std::numeric_limits<float>::infinity();
  CHECK(refuses(check(ce, {}), "scale"));

  std::vector<sample_params> rows(2, sample_params{.valid_vocab = 9});
  sample_args s{f32({2, 9}), rows, i32({2}), {}, {}};
  CHECK(check(s, {}).ok());
  for (const float bad :
       {-1.0F, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    rows[1] = {.temperature = bad, .valid_vocab = 9};
    CHECK(refuses(check(s, {}), "temperature"));
  }
  for (const float bad : {-0.1F, 1.1F, std::numeric_limits<float>::quiet_NaN()}) {
    rows[1] = {.top_p = bad, .valid_vocab = 9};
    CHECK(refuses(check(s, {}), "top_p"));
  }
  rows[1] = {.valid_vocab = 2};
  CHECK(refuses(check(s, {}), "valid_vocab"));
  rows.pop_back();
  s.params = rows;
  CHECK(refuses(check(s, {}), "params"));

  std::vector<adamw_item> items{{f32({4}), f32({4}), f32({4}), f32({4}), 0}};
  adamw_args o{items, f32({1}), 0.1F};
  CHECK(check(o).ok());
  o.t = 0;
  CHECK(refuses(check(o), "t is 0"));
  o.t = 1;
  o.beta1 = 1;
  CHECK(refuses(check(o), "beta1"));
  o.beta1 = 0.9F;
  items[0].gradient = f32({5});
  CHECK(refuses(check(o), "equal length"));
}

TEST_CASE("the reference backend refuses before it writes") {
  void* q = nullptr;
  REQUIRE(reference_backend()->open_queue(nullptr, &q).ok());
  alignas(64) std::array<float, 8> out{1, 2, 3, 4, 5, 6, 7, 8};
  const auto before = out;
  const tensor x = make_tensor(out.data(), dtype::f32, {2, 4});
  CHECK(
      refuses(reference_backend()->add(q, {x, f32({2, 3}), x}), "add: b has shape [2, 3], expected [2, 4]"));
  CHECK(out == before);
  rms_norm_args norm;
  CHECK(refuses(reference_backend()->rms_norm(q, norm), "x is missing"));
  attention_args attention;
  CHECK(refuses(reference_backend()->attention(q, attention), "q is missing"));
}
