#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

/// Symmetric quantization in blocks (spec/training.md section 5): scale = max|x| / limit, q = x / scale
/// rounded half to even and clamped to +-limit, scale 0 for a block of zeros. All f32, so that every machine
/// makes the same bytes of the same values.
namespace neuroshard {

/// How many values share a scale, and the largest |q|.
struct quantizer {
  size_t block;
  float limit;
};
inline constexpr quantizer quantize_i8{256, 127.0f};
inline constexpr quantizer quantize_i4{64, 7.0f};

/// Appends a byte a value to `values` and a little-endian f32 a block to `scales`. `x` is finite.
void append_i8(std::span<const float> x, std::string& values, std::string& scales);
/// Two values a byte, the first in the low nibble; an odd end leaves the high nibble 0.
void append_i4(std::span<const float> x, std::string& values, std::string& scales);
/// Little-endian f32.
void append_f32(std::span<const float> x, std::string& values);

/// Overwrite `out`. The lengths must fit: out.size() values (i4: half of it, rounded up), a scale for each
/// begun block.
void read_i8(std::string_view values, std::string_view scales, std::span<float> out);
void read_i4(std::string_view values, std::string_view scales, std::span<float> out);
void read_f32(std::string_view values, std::span<float> out);

/// Scales of `count` values.
constexpr uint64_t blocks_of(const quantizer& by, uint64_t count) noexcept {
  return count / by.block + (count % by.block != 0);
}

} // namespace neuroshard
