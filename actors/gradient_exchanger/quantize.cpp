#include "actors/gradient_exchanger/quantize.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace neuroshard {

namespace {

static_assert(std::endian::native == std::endian::little, "values are copied as they lie in memory");

void append_scale(float scale, std::string& scales) {
  char bytes[sizeof scale];
  std::memcpy(bytes, &scale, sizeof scale);
  scales.append(bytes, sizeof bytes);
}

float scale_at(std::string_view scales, size_t block) {
  float scale = 0;
  std::memcpy(&scale, scales.data() + block * sizeof scale, sizeof scale);
  return scale;
}

float scale_of(std::span<const float> block, float limit) {
  float most = 0;
  for (const float value : block)
    most = std::max(most, std::fabs(value));
  return most / limit;
}

/// Rounds half to even: at 1.5 x 2^23 an f32 has no fraction bits left, so the addition itself rounds.
int quantized(float value, float scale, float limit) {
  constexpr float no_fraction = 12'582'912.0f;
  // Below the smallest normal number the scale has lost so many bits that the quotient may pass the limit.
  const float q = std::clamp(value / scale, -limit, limit);
  return static_cast<int>((q + no_fraction) - no_fraction);
}

} // namespace

void append_i8(std::span<const float> x, std::string& values, std::string& scales) {
  const size_t begin = values.size();
  values.resize(begin + x.size());
  char* out = values.data() + begin;
  for (size_t at = 0; at < x.size(); at += quantize_i8.block) {
    const auto block = x.subspan(at, std::min(quantize_i8.block, x.size() - at));
    const float scale = scale_of(block, quantize_i8.limit);
    append_scale(scale, scales);
    for (const float value : block)
      *out++ = scale == 0 ? '\0' : static_cast<char>(quantized(value, scale, quantize_i8.limit));
  }
}

void append_i4(std::span<const float> x, std::string& values, std::string& scales) {
  const size_t begin = values.size();
  values.resize(begin + (x.size() + 1) / 2);
  auto* out = reinterpret_cast<uint8_t*>(values.data()) + begin;
  for (size_t at = 0; at < x.size(); at += quantize_i4.block) {
    const auto block = x.subspan(at, std::min(quantize_i4.block, x.size() - at));
    const float scale = scale_of(block, quantize_i4.limit);
    append_scale(scale, scales);
    for (size_t i = 0; scale != 0 && i < block.size(); ++i) {
      const auto nibble = static_cast<uint8_t>(quantized(block[i], scale, quantize_i4.limit) & 0xf);
      out[(at + i) / 2] |= static_cast<uint8_t>(nibble << ((at + i) % 2 * 4));
    }
  }
}

void append_f32(std::span<const float> x, std::string& values) {
  values.append(reinterpret_cast<const char*>(x.data()), x.size_bytes());
}

void read_i8(std::string_view values, std::string_view scales, std::span<float> out) {
  for (size_t at = 0; at < out.size(); at += quantize_i8.block) {
    const float scale = scale_at(scales, at / quantize_i8.block);
    const size_t end = std::min(out.size(), at + quantize_i8.block);
    for (size_t i = at; i < end; ++i)
      out[i] = static_cast<float>(static_cast<int8_t>(values[i])) * scale;
  }
}

void read_i4(std::string_view values, std::string_view scales, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int nibble = (static_cast<uint8_t>(values[i / 2]) >> (i % 2 * 4)) & 0xf;
    const int q = nibble < 8 ? nibble : nibble - 16;
    out[i] = static_cast<float>(q) * scale_at(scales, i / quantize_i4.block);
  }
}

void read_f32(std::string_view values, std::span<float> out) {
  std::memcpy(out.data(), values.data(), out.size_bytes());
}

} // namespace neuroshard
