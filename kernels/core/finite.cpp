#include "kernels/core/finite.hpp"

#include <cstdint>
#include <cstring>

namespace neuroshard::kernels {

namespace {

/// An exponent of all ones, in each lane of 64 bits, and its lowest bit: the sum of both has the lane's top
/// bit, that of any smaller exponent has not.
struct exponent_lanes {
  uint64_t exponent = 0, lowest = 0, top = 0;
};

constexpr exponent_lanes lanes_of(dtype type) noexcept {
  switch (type) {
  case dtype::f32:
    return {0x7f80'0000'7f80'0000, 0x0080'0000'0080'0000, 0x8000'0000'8000'0000};
  case dtype::bf16:
    return {0x7f80'7f80'7f80'7f80, 0x0080'0080'0080'0080, 0x8000'8000'8000'8000};
  case dtype::f16:
    return {0x7c00'7c00'7c00'7c00, 0x0400'0400'0400'0400, 0x8000'8000'8000'8000};
  case dtype::f64:
    return {0x7ff0'0000'0000'0000, 0x0010'0000'0000'0000, 0x8000'0000'0000'0000};
  default:
    return {};
  }
}

} // namespace

bool all_finite(dtype type, const void* data, size_t bytes) noexcept {
  const auto lanes = lanes_of(type);
  if (lanes.exponent == 0)
    return true;
  const auto* at = static_cast<const char*>(data);
  uint64_t seen[4] = {};
  for (; bytes >= sizeof seen; at += sizeof seen, bytes -= sizeof seen) {
    uint64_t words[4];
    std::memcpy(words, at, sizeof words);
    for (int i = 0; i < 4; ++i)
      seen[i] |= (words[i] & lanes.exponent) + lanes.lowest;
  }
  uint64_t rest[4] = {};
  std::memcpy(rest, at, bytes);
  for (int i = 0; i < 4; ++i)
    seen[i] |= (rest[i] & lanes.exponent) + lanes.lowest;
  return ((seen[0] | seen[1] | seen[2] | seen[3]) & lanes.top) == 0;
}

} // namespace neuroshard::kernels
