#include "kernels/core/dtype.hpp"
#include "kernels/core/philox.hpp"
#include "kernels/core/tensor.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <limits>

using namespace neuroshard::kernels;

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  using words = std::array<uint32_t, 4>;
  CHECK(philox(0, 0, 0) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr uint64_t ones = ~uint64_t{0};
  CHECK(philox(ones, ones, ones) == words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  // The third vector: digits of pi.
  CHECK(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a draw below n stays below n and reaches every value") {
  std::array<int, 7> seen{};
  for (uint64_t i = 0; i < 700; ++i)
    ++seen.at(philox_below(1, i, 0, 7));
  for (const int count : seen)
    CHECK(count > 50);
  CHECK_EQ(philox_below(1, 2, 3, 1), 0U);
}

TEST_CASE("bf16 rounds to nearest, ties to even, and keeps what is not a number") {
  const auto round_trip = [](float x) { return to_f32(to_bf16(x)); };
  CHECK_EQ(round_trip(1.0F), 1.0F);
  CHECK_EQ(round_trip(-0.0F), 0.0F);
  CHECK(std::signbit(round_trip(-0.0F)));
  CHECK_EQ(round_trip(1.0F + 0x1p-8F), 1.0F);                      // half way: to even
  CHECK_EQ(round_trip(1.0F + 3 * 0x1p-8F), 1.0F + 0x1p-6F);        // half way: to even, upwards
  CHECK_EQ(round_trip(1.0F + 0x1p-8F + 0x1p-20F), 1.0F + 0x1p-7F); // just past half way
  CHECK(std::isnan(round_trip(std::numeric_limits<float>::quiet_NaN())));
  CHECK(
      std::isnan(round_trip(std::bit_cast<float>(0x7f800001U)))); // a payload that rounding would carry away
  CHECK_EQ(round_trip(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  CHECK_EQ(round_trip(std::numeric_limits<float>::max()), std::numeric_limits<float>::infinity());
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = to_f32(bf16{static_cast<uint16_t>(bits)});
    if (!std::isnan(value))
      REQUIRE_EQ(to_bf16(value).bits, bits);
  }
}

TEST_CASE("views of a tensor share its memory") {
  std::array<float, 24> memory{};
  const tensor whole = make_tensor(memory.data(), dtype::f32, {4, 6});
  CHECK(whole.contiguous());
  CHECK_EQ(whole.bytes(), 96U);
  const tensor part = columns_of(rows_of(whole, 1, 2), 2, 3);
  CHECK_EQ(part.as<float>(), memory.data() + 8);
  CHECK_EQ(part.elements(), 6);
  CHECK_FALSE(part.contiguous());
  CHECK(rows_of(whole, 3, 1).contiguous());
  CHECK_FALSE(static_cast<bool>(tensor{}));
}
