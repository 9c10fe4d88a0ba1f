#include "kernels/cpu/cpu_backend.hpp"
#include "tests/support/test.hpp"

#include <cstring>
#include <string>
#include <thread>
#include <vector>

using namespace neuroshard::kernels;

namespace {

device_ptr open(int threads, const std::string& isa = {}) {
  device_options options;
  options.threads = threads;
  options.isa = isa;
  auto opened = device::open(*cpu_backend(), options);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  return *opened;
}

code refusal(const device_options& options) {
  return device::open(*cpu_backend(), options).status().why();
}

/// Buffers with numbers from a simple generator.
struct operands {
  explicit operands(device_ptr device) : on(std::move(device)) {}

  tensor make(dtype type, std::initializer_list<int64_t> shape) {
    tensor t = make_tensor(nullptr, type, shape);
    auto memory = on->alloc(std::max<uint64_t>(t.bytes(), 64));
    REQUIRE(memory.ok());
    kept.push_back(*memory);
    t.data = (*memory)->address;
    std::memset(t.data, 0, t.bytes());
    return t;
  }
  tensor random(dtype type, std::initializer_list<int64_t> shape) {
    const tensor t = make(type, shape);
    for (int64_t i = 0; i < t.elements(); ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      const float x = static_cast<float>(state >> 40) * 0x1p-23F - 1.0F;
      if (type == dtype::bf16)
        t.as<bf16>()[i] = to_bf16(x);
      else
        t.as<float>()[i] = x;
    }
    return t;
  }
  tensor scratch(uint64_t bytes) { return make(dtype::i8, {static_cast<int64_t>(bytes)}); }

  device_ptr on;
  uint64_t state = 17;
  std::vector<buffer_ptr> kept;
};

std::string bytes_of(const tensor& t) {
  return {static_cast<const char*>(t.data), t.bytes()};
}

/// A product forward and back, large enough for several tiles, and attention there and back; all that they
/// wrote.
std::string step_of(const device_ptr& on, dtype act, int64_t rows) {
  constexpr int64_t n = 384;
  constexpr int64_t k = 320;
  operands o(on);
  auto opened = queue::open(on);
  REQUIRE(opened.ok());
  void* q = (*opened)->impl();
  const backend& ops = on->ops();
  const tensor weight = o.random(dtype::f32, {n, k});
  const tensor prepared = o.scratch(ops.prepared_bytes(on->impl(), n, k, act, weight_use::train));
  REQUIRE(ops.prepare_weight(q, {weight, act, weight_use::train, prepared}).ok());

  linear_args forward{
      o.random(act, {rows, k}), prepared, weight_use::train, n, o.make(act, {rows, n}), false, {}};
  REQUIRE(ops.linear(q, forward).ok());
  linear_backward_input_args input{forward.out, prepared, k, o.make(act, {rows, k}), false, {}};
  REQUIRE(ops.linear_backward_input(q, input).ok());
  linear_backward_weight_args gradient{forward.out, forward.x, o.random(dtype::f32, {n, k}), {}};
  gradient.workspace = o.scratch(ops.linear_backward_weight_workspace(on->impl(), gradient));
  REQUIRE(ops.linear_backward_weight(q, gradient).ok());

  attention_args attend;
  attend.sequences = 1;
  attend.q = o.random(act, {rows, 4, 64});
  attend.k = o.random(act, {rows, 2, 64});
  attend.v = o.random(act, {rows, 2, 64});
  attend.out = o.make(act, {rows, 4, 64});
  attend.lse = o.make(dtype::f32, {1, 4, rows});
  attend.workspace = o.scratch(ops.attention_workspace(on->impl(), attend));
  REQUIRE(ops.attention(q, attend).ok());
  attention_backward_args back;
  back.q = attend.q;
  back.k = attend.k;
  back.v = attend.v;
  back.out = attend.out;
  back.lse = attend.lse;
  back.dout = o.random(act, {rows, 4, 64});
  back.dq = o.make(act, {rows, 4, 64});
  back.dk = o.make(act, {rows, 2, 64});
  back.dv = o.make(act, {rows, 2, 64});
  back.workspace = o.scratch(ops.attention_backward_workspace(on->impl(), back));
  REQUIRE(ops.attention_backward(q, back).ok());

  std::string all;
  for (const tensor& t :
       {prepared, forward.out, input.dx, gradient.dw, attend.out, attend.lse, back.dq, back.dk, back.dv})
    all += bytes_of(t);
  return all;
}

} // namespace

TEST_CASE("bits do not depend on the number of threads, nor on a change of it") {
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const int64_t rows : {5, 16, 161, 300}) {
      CAPTURE(rows);
      const std::string alone = step_of(open(1), act, rows);
      CHECK(step_of(open(2), act, rows) == alone);
      const device_ptr on = open(3);
      CHECK(step_of(on, act, rows) == alone);
      REQUIRE(set_cpu_threads(*on, 2).ok());
      CHECK(cpu_threads(*on) == 2);
      CHECK(step_of(on, act, rows) == alone);
    }
}

TEST_CASE("two queues on two threads share a device") {
  const device_ptr on = open(2);
  const std::string truth = step_of(on, dtype::f32, 70);
  std::string first;
  std::string second;
  std::thread other([&] { first = step_of(on, dtype::f32, 70); });
  second = step_of(on, dtype::f32, 70);
  other.join();
  CHECK(first == truth);
  CHECK(second == truth);
}

TEST_CASE("the instruction set can be capped, and an unknown one is refused") {
  for (const char* isa : {"sse4", "avx2", "avx512", "avx512_bf16"}) {
    CAPTURE(isa);
    const device_ptr on = open(1, isa);
    CHECK(on->info().host_visible);
    if (std::string(isa) == "sse4" || std::string(isa) == "avx2")
      CHECK_FALSE(on->info().fast_bf16);
    CHECK(step_of(on, dtype::bf16, 40).size() == step_of(on, dtype::bf16, 40).size());
  }
  device_options options;
  options.isa = "mmx";
  CHECK(refusal(options) == code::invalid_argument);
}

TEST_CASE("a device that is not there and an absurd number of threads are refused") {
  device_options options;
  options.index = 1;
  CHECK(refusal(options) == code::invalid_argument);
  options.index = 0;
  options.threads = -1;
  CHECK(refusal(options) == code::invalid_argument);
  options.threads = 100000;
  CHECK(refusal(options) == code::invalid_argument);
  const device_ptr on = open(1);
  CHECK(set_cpu_threads(*on, -1).why() == code::invalid_argument);
  auto reference = device::open(*reference_backend(), {});
  REQUIRE(reference.ok());
  CHECK(set_cpu_threads(**reference, 1).why() == code::invalid_argument);
}

TEST_CASE("a device says what it is") {
  const device_ptr on = open(2);
  CHECK_FALSE(on->info().name.empty());
  CHECK(on->info().memory_total > (uint64_t{1} << 28));
  CHECK(on->info().threads == 2);
}

TEST_CASE("a serving copy takes no more than the size of its type") {
  const device_ptr on = open(1);
  for (const dtype act : {dtype::f32, dtype::bf16})
    for (const auto& [n, k] : {std::pair{256, 256}, {1024, 256}, {4096, 256}, {32000, 768}, {768, 2048}}) {
      const auto bytes = on->ops().prepared_bytes(on->impl(), n, k, act, weight_use::serve);
      CHECK(bytes <= static_cast<uint64_t>(n) * static_cast<uint64_t>(k) * size_of(act));
    }
}

TEST_CASE("memory beyond what the system has is an error, not a crash") {
  const device_ptr on = open(1);
  CHECK(on->alloc(uint64_t{1} << 62).status().why() == code::out_of_memory);
}
