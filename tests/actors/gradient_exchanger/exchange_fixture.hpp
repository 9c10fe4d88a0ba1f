#pragma once

#include "actors/common/error.hpp"
#include "actors/gradient_exchanger/delta_codec.hpp"
#include "kernels/core/philox.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

/// Units and values for the tests of an exchange.
namespace neuroshard::exchange_tests {

/// NEUROSHARD_TEST_SEED, else random; printed by INFO where a test uses it.
inline uint64_t seed() {
  static const uint64_t value = [] {
    const char* set = std::getenv("NEUROSHARD_TEST_SEED");
    return set != nullptr ? std::strtoull(set, nullptr, 10) : std::random_device{}();
  }();
  return value;
}

/// Uniform draws that depend on the seed and a stream alone.
class draws {
public:
  explicit draws(uint64_t stream) : key_(seed() * 1'000'003 + stream) {}
  uint64_t below(uint64_t n) { return kernels::philox_below(key_, at_++, 0, n); }
  double unit() {
    return static_cast<double>(below(uint64_t{1} << 53)) / static_cast<double>(uint64_t{1} << 53);
  }
  /// Normal, by Box and Muller.
  float normal(double deviation) {
    const double radius = std::sqrt(-2 * std::log(1 - unit()));
    return static_cast<float>(deviation * radius * std::cos(6.283185307179586 * unit()));
  }

private:
  uint64_t key_;
  uint64_t at_ = 0;
};

/// A layer in small: dense f32 below 1,024 elements, odd lengths, several slices with parts of 8 KiB.
inline std::shared_ptr<const unit_layout> small_layer() {
  auto made = std::make_shared<unit_layout>();
  made->tensors = {{"layers.0.attn.q.weight", {67, 61}},
                   {"layers.0.attn_norm.weight", {61}},
                   {"layers.0.ffn.gate.weight", {1'024}},
                   {"layers.0.ffn.up.weight", {1'023}},
                   {"layers.0.moe.experts.0.up.weight", {3, 5, 7, 11}}};
  return made;
}

inline unit_values random_values(const unit_layout& layout, draws& from, double deviation) {
  unit_values made;
  for (const auto& tensor : layout.tensors) {
    auto& values = made.emplace_back(tensor.elements());
    for (auto& value : values)
      value = from.normal(deviation);
  }
  return made;
}

inline std::vector<delta_part> encoded(const unit_layout& layout, const delta_options& how,
                                       const unit_values& values) {
  auto made = encode_delta(layout, how, [&](size_t tensor, std::span<float> out) {
    std::copy(values[tensor].begin(), values[tensor].end(), out.begin());
    return caf::error{};
  });
  REQUIRE(static_cast<bool>(made));
  return std::move(*made);
}

inline unit_values all_of(const unit_layout& layout, const value_source& from) {
  unit_values made;
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    made.emplace_back(layout.tensors[tensor].elements());
    REQUIRE_FALSE(static_cast<bool>(from.read(tensor, made.back())));
  }
  return made;
}

inline std::string node_name(uint64_t number) {
  constexpr char digits[] = "0123456789abcdef";
  std::string name(32, '0');
  for (size_t at = 31; number != 0; --at, number >>= 4)
    name[at] = digits[number & 0xf];
  return name;
}

inline std::string reason_of(const caf::error& error) {
  return problem_of(error).reason;
}

} // namespace neuroshard::exchange_tests
