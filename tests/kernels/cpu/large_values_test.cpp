#include "kernels/cpu/cpu_backend.hpp"
#include "tests/support/test.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

using namespace neuroshard::kernels;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

struct opened {
  explicit opened(const char* isa) {
    device_options options;
    options.threads = 1;
    options.isa = isa;
    on = *device::open(*cpu_backend(), options);
    work = std::move(*queue::open(on));
  }
  device_ptr on;
  std::unique_ptr<queue> work;
};

tensor row(std::vector<float>& of) {
  return make_tensor(of.data(), dtype::f32, {1, static_cast<int64_t>(of.size())});
}
tensor row(std::vector<bf16>& of) {
  return make_tensor(of.data(), dtype::bf16, {1, static_cast<int64_t>(of.size())});
}

constexpr const char* sets[] = {"sse4", "avx2", "avx512", "avx512_bf16"};

} // namespace

TEST_CASE("swiglu stays finite far out and passes a NaN on") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    std::vector<float> gate{-1e30F, -1e4F, -100,  -88,       -20, -1, 0, 1, 20, 88,
                            100,    1e4F,  1e30F, nan_value, 2,   3,  4, 5, 6};
    std::vector<float> up(gate.size(), 1.0F);
    std::vector<float> out(gate.size());
    REQUIRE(o.on->ops().swiglu(o.work->impl(), {row(gate), row(up), row(out)}).ok());
    for (size_t i = 0; i < gate.size(); ++i) {
      if (std::isnan(gate[i])) {
        CHECK(std::isnan(out[i]));
        continue;
      }
      const double z = static_cast<double>(gate[i]);
      const double truth = z / (1 + std::exp(-z));
      CHECK(std::isfinite(out[i]));
      CHECK(std::abs(static_cast<double>(out[i]) - truth) <= 3e-7 * std::abs(truth) + 1e-30);
    }
  }
}

TEST_CASE("the exponential is within two units in the last place") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    // silu(z) / z = 1 / (1 + e^-z): the error of the exponential shows fully where e^-z is large.
    constexpr int64_t count = 4000;
    std::vector<float> gate(count);
    for (int64_t i = 0; i < count; ++i)
      gate[static_cast<size_t>(i)] = -80.0F + 0.04F * static_cast<float>(i);
    std::vector<float> up(count, 1.0F);
    std::vector<float> out(count);
    REQUIRE(o.on->ops().swiglu(o.work->impl(), {row(gate), row(up), row(out)}).ok());
    double worst = 0;
    for (size_t i = 0; i < gate.size(); ++i) {
      const double z = static_cast<double>(gate[i]);
      const double truth = z / (1 + std::exp(-z));
      if (truth != 0)
        worst = std::max(worst, std::abs(static_cast<double>(out[i]) / truth - 1));
    }
    CHECK(worst < 4 * 0x1p-24); // the exponential, the sum, the quotient and the product round once each
  }
}

TEST_CASE("swiglu in bf16 errs by its rounding alone and passes a NaN on") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    constexpr size_t count = 4003;
    std::vector<bf16> gate(count);
    for (size_t i = 0; i < count; ++i)
      gate[i] = to_bf16(-80.0F + 0.04F * static_cast<float>(i));
    gate[10] = to_bf16(nan_value);
    gate[11] = to_bf16(1e30F);
    gate[12] = to_bf16(-1e30F);
    std::vector<bf16> up(count, to_bf16(1.0F));
    std::vector<bf16> out(count);
    REQUIRE(o.on->ops().swiglu(o.work->impl(), {row(gate), row(up), row(out)}).ok());
    CHECK(std::isnan(to_f32(out[10])));
    CHECK(out[11].bits == gate[11].bits);
    CHECK(to_f32(out[12]) == 0);
    double worst = 0;
    for (size_t i = 13; i < count; ++i) {
      const double z = static_cast<double>(to_f32(gate[i]));
      const double truth = z / (1 + std::exp(-z));
      if (truth != 0)
        worst = std::max(worst, std::abs(static_cast<double>(to_f32(out[i])) / truth - 1));
    }
    CHECK(worst < 0x1p-8 + 0x1p-12); // half a unit of bf16, and what is left for everything else
  }
}

TEST_CASE("the loss in bf16 is that of the rounded logits and its gradient errs by its rounding alone") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    constexpr size_t count = 1237;
    std::vector<bf16> logits(count);
    for (size_t i = 0; i < count; ++i)
      logits[i] = to_bf16(std::sin(static_cast<float>(i)) * 9.0F);
    logits[7] = to_bf16(-infinity); // a word that may never come
    logits[8] = to_bf16(-3e38F);
    double total = 0;
    for (const bf16 x : logits)
      total += std::exp(static_cast<double>(to_f32(x)));
    std::vector<double> truth(count);
    for (size_t i = 0; i < count; ++i)
      truth[i] = std::exp(static_cast<double>(to_f32(logits[i]))) / total - (i == 20 ? 1 : 0);
    const double true_loss = std::log(total) - static_cast<double>(to_f32(logits[20]));
    int32_t label = 20;
    double loss = 0;
    cross_entropy_args a;
    a.logits = row(logits);
    a.labels = make_tensor(&label, dtype::i32, {1});
    a.loss_sum = make_tensor(&loss, dtype::f64, {1});
    a.valid_vocab = static_cast<int64_t>(count);
    alignas(64) double workspace[8];
    a.workspace = make_tensor(workspace, dtype::i8, {64});
    REQUIRE(o.on->ops().cross_entropy(o.work->impl(), a).ok());
    CHECK(std::abs(loss - true_loss) < 1e-5);
    double worst = 0;
    for (size_t i = 0; i < count; ++i)
      worst = std::max(worst, std::abs(static_cast<double>(to_f32(logits[i])) - truth[i]) /
                                  std::max(std::abs(truth[i]), 1e-30));
    CHECK(worst < 0x1p-8 + 0x1p-12);
  }
}

TEST_CASE("the loss of huge logits is finite and its gradient a distribution") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    std::vector<float> logits(37, -1e30F);
    logits[5] = 1e30F;
    logits[6] = 9e29F;
    int32_t label = 5;
    double loss = 0;
    cross_entropy_args a;
    a.logits = row(logits);
    a.labels = make_tensor(&label, dtype::i32, {1});
    a.loss_sum = make_tensor(&loss, dtype::f64, {1});
    a.valid_vocab = 37;
    alignas(64) double workspace[8];
    a.workspace = make_tensor(workspace, dtype::i8, {64});
    REQUIRE(o.on->ops().cross_entropy(o.work->impl(), a).ok());
    CHECK(loss == 0);
    for (const float g : logits)
      CHECK(g == 0);
  }
}

TEST_CASE("a conversion keeps infinities and NaNs and rounds to even") {
  for (const char* isa : sets) {
    CAPTURE(isa);
    const opened o(isa);
    std::vector<float> x{
        0.0F,  -0.0F, infinity, -infinity, nan_value, 1.0F, 1.00390625F, 1.01171875F, 3.4e38F, -2.5F, 1e-20F,
        7,     8,     9,        10,        11,        12,   13,          14,          15,      16,    17.1F,
        18.2F, 19.3F, 20.4F,    21.5F,     22,        23,   24,          25,          26,      27,    28};
    std::vector<bf16> half(x.size());
    convert_args a;
    a.x = make_tensor(x.data(), dtype::f32, {static_cast<int64_t>(x.size())});
    a.out = make_tensor(half.data(), dtype::bf16, {static_cast<int64_t>(x.size())});
    REQUIRE(o.on->ops().convert(o.work->impl(), a).ok());
    for (size_t i = 0; i < x.size(); ++i)
      if (std::isnan(x[i]))
        CHECK(std::isnan(to_f32(half[i])));
      else
        CHECK(half[i].bits == to_bf16(x[i]).bits);
  }
}
