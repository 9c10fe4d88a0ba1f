#include "kernels/cpu/cpu_backend.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <cstring>
#include <vector>

// What only large operands do: long contexts, many ids, rows enough to wake a thread.

using namespace neuroshard::kernels;

namespace {

constexpr const char* sets[] = {"sse4", "avx2", "avx512", "avx512_bf16"};

struct opened {
  explicit opened(const backend& table, int threads = 1, const char* isa = "") {
    device_options options;
    options.threads = threads;
    options.isa = isa;
    on = *device::open(table, options);
    work = std::move(*queue::open(on));
  }
  const backend& ops() const { return on->ops(); }
  device_ptr on;
  std::unique_ptr<queue> work;
};

/// Bytes at a cache line's start, as a device gives them.
class memory {
public:
  tensor numbers(dtype type, std::initializer_list<int64_t> shape, float scale = 1) {
    const tensor t = zeros(type, shape);
    for (int64_t i = 0; i < t.elements(); ++i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      const float x = scale * (static_cast<float>(state_ >> 40) * 0x1p-23F - 1.0F);
      if (type == dtype::bf16)
        t.as<bf16>()[i] = to_bf16(x);
      else
        t.as<float>()[i] = x;
    }
    return t;
  }
  tensor zeros(dtype type, std::initializer_list<int64_t> shape) {
    tensor t = make_tensor(nullptr, type, shape);
    kept_.emplace_back(static_cast<size_t>(t.bytes()) + 64);
    const auto at = reinterpret_cast<uintptr_t>(kept_.back().data());
    t.data = kept_.back().data() + (64 - at % 64) % 64;
    return t;
  }
  tensor whole_numbers(std::initializer_list<int64_t> shape, const std::vector<int32_t>& values) {
    const tensor t = zeros(dtype::i32, shape);
    std::copy(values.begin(), values.end(), t.as<int32_t>());
    return t;
  }

private:
  uint64_t state_ = 5;
  std::vector<std::vector<std::byte>> kept_;
};

bool same(const tensor& a, const tensor& b) {
  return std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0;
}

double value(const tensor& t, int64_t i) {
  return t.type == dtype::bf16 ? static_cast<double>(to_f32(t.as<bf16>()[i]))
                               : static_cast<double>(t.as<float>()[i]);
}

} // namespace

TEST_CASE("single rows over long contexts agree with the reference, whatever the number of threads") {
  struct scene {
    int64_t heads, kv_heads, size;
  };
  constexpr int64_t caches = 3;
  constexpr int64_t blocks = 45;
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const scene& s : {scene{4, 4, 64}, scene{4, 2, 32}, scene{6, 2, 64}, scene{8, 2, 128},
                           scene{5, 1, 24}, scene{7, 1, 80}}) {
      CAPTURE(s.heads);
      CAPTURE(s.size);
      memory m;
      std::vector<int32_t> tables(caches * blocks);
      for (int32_t i = 0; i < caches * blocks; ++i)
        tables[static_cast<size_t>(i)] = i * 47 % (caches * blocks); // 47 and 135 have no common divisor
      paged_attention_args a;
      a.q = m.numbers(act, {caches, s.heads, s.size}, 3);
      a.row_cache = m.whole_numbers({caches}, {2, 0, 1});
      a.positions = m.whole_numbers({caches}, {blocks * kv_block - 1, 255, 601});
      a.tables = m.whole_numbers({caches, blocks}, tables);
      a.key_cache = m.numbers(act, {caches * blocks, kv_block, s.kv_heads, s.size}, 2);
      a.value_cache = m.numbers(act, {caches * blocks, kv_block, s.kv_heads, s.size});
      a.out = m.zeros(act, {caches, s.heads, s.size});
      const auto run = [&](const opened& o, const tensor& out) {
        paged_attention_args mine = a;
        mine.out = out;
        const uint64_t needed = o.ops().paged_attention_workspace(o.on->impl(), mine);
        if (needed > 0)
          mine.workspace = m.zeros(dtype::i8, {static_cast<int64_t>(needed)});
        return o.ops().paged_attention(o.work->impl(), mine);
      };
      REQUIRE(run(opened(*reference_backend()), a.out).ok());
      for (const char* isa : sets) {
        CAPTURE(isa);
        const tensor alone = m.zeros(act, {caches, s.heads, s.size});
        const tensor together = m.zeros(act, {caches, s.heads, s.size});
        REQUIRE(run(opened(*cpu_backend(), 1, isa), alone).ok());
        REQUIRE(run(opened(*cpu_backend(), 3, isa), together).ok());
        CHECK(same(alone, together));
        double apart = 0;
        double largest = 0;
        for (int64_t i = 0; i < alone.elements(); ++i) {
          apart = std::max(apart, std::abs(value(alone, i) - value(a.out, i)));
          largest = std::max(largest, std::abs(value(a.out, i)));
        }
        CHECK(apart <= largest * (act == dtype::f32 ? 1e-5 : 1e-2));
      }
    }
}

TEST_CASE("embedding gradients of repeated ids do not depend on the number of threads") {
  constexpr int64_t rows = 700;
  constexpr int64_t width = 200;
  constexpr int64_t vocab = 37;
  memory m;
  std::vector<int32_t> ids(rows);
  for (int32_t i = 0; i < rows; ++i)
    ids[static_cast<size_t>(i)] = i % 3 == 0 ? 5 : i * 11 % static_cast<int32_t>(vocab);
  for (const dtype act : {dtype::f32, dtype::bf16}) {
    const tensor held = m.whole_numbers({rows}, ids);
    const tensor dout = m.numbers(act, {rows, width});
    const auto run = [&](const opened& o) {
      const tensor dtable = m.zeros(dtype::f32, {vocab, width});
      REQUIRE(o.ops().embedding_backward(o.work->impl(), {held, dout, dtable, {}}).ok());
      return dtable;
    };
    const tensor alone = run(opened(*cpu_backend(), 1));
    for (const int threads : {2, 3, 5})
      CHECK(same(alone, run(opened(*cpu_backend(), threads))));
    const tensor truth = run(opened(*reference_backend()));
    double apart = 0;
    for (int64_t i = 0; i < truth.elements(); ++i)
      apart = std::max(apart, std::abs(value(alone, i) - value(truth, i)));
    CHECK(apart <= 1e-4);
  }
}

TEST_CASE("of two rows for the same slot of a cache the later one stays, whatever the number of threads") {
  constexpr int64_t rows = 900;
  constexpr int64_t blocks = 40;
  constexpr int64_t heads = 2;
  constexpr int64_t size = 64;
  memory m;
  std::vector<int32_t> tables(blocks);
  for (int32_t i = 0; i < blocks; ++i)
    tables[static_cast<size_t>(i)] = i * 7 % blocks;
  tables[3] = -1;   // no block
  tables[5] = 9999; // no such block
  std::vector<int32_t> positions(rows);
  for (int32_t i = 0; i < rows; ++i)
    positions[static_cast<size_t>(i)] = i < 400   ? i
                                        : i < 500 ? 3 + i % 5
                                                  : i * 13 % (blocks * kv_block + 40) - 20;
  std::vector<int32_t> caches(rows, 0);
  caches[17] = -1;
  caches[18] = 1; // there is one cache
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const bool strided : {false, true}) {
      // A product makes queries, keys and values side by side: rows with gaps.
      const tensor wide = m.numbers(act, {rows, 3 * heads, size});
      kv_append_args a;
      a.k = strided ? make_tensor(wide.data, act, {rows, heads, size}) : m.numbers(act, {rows, heads, size});
      if (strided)
        a.k.stride[0] = 3 * heads * size;
      a.v = m.numbers(act, {rows, heads, size});
      a.row_cache = m.whole_numbers({rows}, caches);
      a.positions = m.whole_numbers({rows}, positions);
      a.tables = m.whole_numbers({1, blocks}, tables);
      const auto run = [&](const opened& o) {
        kv_append_args mine = a;
        mine.key_cache = m.zeros(act, {blocks, kv_block, heads, size});
        mine.value_cache = m.zeros(act, {blocks, kv_block, heads, size});
        REQUIRE(o.ops().kv_append(o.work->impl(), mine).ok());
        return std::pair{mine.key_cache, mine.value_cache};
      };
      const auto truth = run(opened(*reference_backend()));
      for (const int threads : {1, 2, 5}) {
        const auto got = run(opened(*cpu_backend(), threads));
        CHECK(same(got.first, truth.first));
        CHECK(same(got.second, truth.second));
      }
    }
}
