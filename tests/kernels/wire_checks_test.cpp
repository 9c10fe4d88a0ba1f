#include "kernels/core/crc32c.hpp"
#include "kernels/core/finite.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string_view>
#include <vector>

using namespace neuroshard::kernels;

TEST_CASE("CRC-32C has the values of RFC 3720") {
  const std::string_view digits = "123456789";
  CHECK(crc32c(digits.data(), digits.size()) == 0xe3069283U);
  std::vector<uint8_t> bytes(32, 0);
  CHECK(crc32c(bytes.data(), bytes.size()) == 0x8a9136aaU);
  bytes.assign(32, 0xff);
  CHECK(crc32c(bytes.data(), bytes.size()) == 0x62a8ab43U);
  for (size_t i = 0; i < 32; ++i)
    bytes[i] = static_cast<uint8_t>(i);
  CHECK(crc32c(bytes.data(), bytes.size()) == 0x46dd794eU);
  CHECK(crc32c(nullptr, 0) == 0);
}

TEST_CASE("CRC-32C is the same with and without the instruction, whole and in pieces, at any address") {
  std::mt19937 rng{7};
  std::vector<uint8_t> bytes(40'000);
  for (auto& b : bytes)
    b = static_cast<uint8_t>(rng());
  for (const size_t length : {size_t{1}, size_t{7}, size_t{8}, size_t{255}, size_t{767}, size_t{768},
                              size_t{769}, size_t{6'143}, size_t{6'144}, size_t{6'200}, size_t{39'990}})
    for (const size_t first : {size_t{0}, size_t{1}, size_t{5}}) {
      const uint32_t whole = crc32c(bytes.data() + first, length);
      CHECK(whole == crc32c_portable(bytes.data() + first, length));
      const size_t cut = length / 3;
      CHECK(whole == crc32c(bytes.data() + first + cut, length - cut, crc32c(bytes.data() + first, cut)));
    }
}

TEST_CASE("one NaN or infinity among any number of values is seen, wherever it is") {
  const auto check = [](dtype type, const std::vector<uint32_t>& bad, const std::vector<uint32_t>& good) {
    const size_t size = size_of(type);
    for (size_t count = 1; count < 70; ++count)
      for (size_t at = 0; at < count; ++at) {
        std::vector<uint8_t> bytes(count * size + 1, 0);
        auto* const data = bytes.data() + 1; // no alignment
        for (const auto bits : good)
          for (size_t i = 0; i < count; ++i)
            std::memcpy(data + i * size, &bits, size);
        REQUIRE(all_finite(type, data, count * size));
        for (const auto bits : bad) {
          std::memcpy(data + at * size, &bits, size);
          REQUIRE_FALSE(all_finite(type, data, count * size));
        }
      }
  };
  check(dtype::f32, {0x7f800000, 0xff800000, 0x7fc00000, 0xff800001}, {0x7f7fffff, 0xff7fffff, 0x00000001});
  check(dtype::bf16, {0x7f80, 0xff80, 0x7fc0, 0xffff}, {0x7f7f, 0xff7f, 0x0001});
  check(dtype::f16, {0x7c00, 0xfc00, 0x7e00}, {0x7bff, 0xfbff, 0x0001});
  const double inside = std::numeric_limits<double>::max(), outside = std::nan("");
  CHECK(all_finite(dtype::f64, &inside, 8));
  CHECK_FALSE(all_finite(dtype::f64, &outside, 8));
  CHECK(all_finite(dtype::i32, &outside, 8));
  CHECK(all_finite(dtype::f32, nullptr, 0));
}
