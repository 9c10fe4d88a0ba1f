#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace neuroshard::kernels {

/// Element types. The numbers are those of the wire format (DType of proto/neuroshard) and of unit hashes.
enum class dtype : uint32_t {
  unspecified = 0,
  f32 = 1,
  bf16 = 2,
  f16 = 3,
  i32 = 4,
  i64 = 5,
  i8 = 6,
  f64 = 50
};

/// Bytes of one element; 0 for `unspecified`.
constexpr size_t size_of(dtype t) noexcept {
  switch (t) {
  case dtype::f64:
  case dtype::i64:
    return 8;
  case dtype::f32:
  case dtype::i32:
    return 4;
  case dtype::bf16:
  case dtype::f16:
    return 2;
  case dtype::i8:
    return 1;
  case dtype::unspecified:
    break;
  }
  return 0;
}

/// The upper half of an IEEE binary32 value.
struct bf16 {
  uint16_t bits;
};

/// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
constexpr bf16 to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U)
    return {static_cast<uint16_t>((bits >> 16) | 0x40U)};
  return {static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
}

constexpr float to_f32(bf16 value) noexcept {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

} // namespace neuroshard::kernels
