#include "kernels/core/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace neuroshard::kernels {

namespace {

constexpr uint32_t polynomial = 0x82f63b78U; // reflected

/// tables[k][b]: the register after the byte b and k zero bytes.
using crc_tables = std::array<std::array<uint32_t, 256>, 8>;
constexpr crc_tables make_tables() {
  crc_tables made{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t r = b;
    for (int bit = 0; bit < 8; ++bit)
      r = (r >> 1) ^ ((r & 1U) != 0 ? polynomial : 0U);
    made[0][b] = r;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t b = 0; b < 256; ++b)
      made[k][b] = (made[k - 1][b] >> 8) ^ made[0][made[k - 1][b] & 0xffU];
  return made;
}
constexpr crc_tables tables = make_tables();

uint32_t one_byte(uint32_t r, uint8_t b) noexcept {
  return (r >> 8) ^ tables[0][(r ^ b) & 0xffU];
}

#if defined(__x86_64__)

/// How a register moves over a fixed number of zero bytes; a linear map, looked up a byte at a time.
class zero_run {
public:
  explicit zero_run(size_t bytes) noexcept {
    for (unsigned bit = 0; bit < 32; ++bit) {
      uint32_t r = 1U << bit;
      for (size_t i = 0; i < bytes; ++i)
        r = one_byte(r, 0);
      for (uint32_t b = 0; b < 256; ++b)
        if ((b & (1U << (bit % 8))) != 0)
          moved_[bit / 8][b] ^= r;
    }
  }
  uint32_t operator()(uint32_t r) const noexcept {
    return moved_[0][r & 0xffU] ^ moved_[1][(r >> 8) & 0xffU] ^ moved_[2][(r >> 16) & 0xffU] ^
           moved_[3][r >> 24];
  }

private:
  std::array<std::array<uint32_t, 256>, 4> moved_{};
};

uint64_t word_at(const uint8_t* at) noexcept {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

/// The instruction has a latency of three cycles and may start in each: three streams side by side, joined
/// after `stream` bytes of each.
__attribute__((target("sse4.2"))) uint64_t three_streams(const uint8_t*& at, size_t& left, uint64_t r,
                                                         size_t stream, const zero_run& over) noexcept {
  for (; left >= 3 * stream; at += 3 * stream, left -= 3 * stream) {
    uint64_t second = 0, third = 0;
    for (size_t i = 0; i < stream; i += 8) {
      r = _mm_crc32_u64(r, word_at(at + i));
      second = _mm_crc32_u64(second, word_at(at + stream + i));
      third = _mm_crc32_u64(third, word_at(at + 2 * stream + i));
    }
    r = over(static_cast<uint32_t>(r)) ^ second;
    r = over(static_cast<uint32_t>(r)) ^ third;
  }
  return r;
}

__attribute__((target("sse4.2"))) uint32_t with_instruction(const uint8_t* at, size_t left,
                                                            uint32_t before) noexcept {
  constexpr size_t long_stream = 2'048, short_stream = 256;
  static const zero_run over_long{long_stream}, over_short{short_stream};
  uint64_t r = ~before;
  r = three_streams(at, left, r, long_stream, over_long);
  r = three_streams(at, left, r, short_stream, over_short);
  for (; left >= 8; at += 8, left -= 8)
    r = _mm_crc32_u64(r, word_at(at));
  for (; left > 0; ++at, --left)
    r = _mm_crc32_u8(static_cast<uint32_t>(r), *at);
  return ~static_cast<uint32_t>(r);
}

#endif

} // namespace

uint32_t crc32c_portable(const void* data, size_t bytes, uint32_t before) noexcept {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t r = ~before;
  for (; bytes >= 8; at += 8, bytes -= 8) {
    r ^= static_cast<uint32_t>(at[0]) | static_cast<uint32_t>(at[1]) << 8 |
         static_cast<uint32_t>(at[2]) << 16 | static_cast<uint32_t>(at[3]) << 24;
    r = tables[7][r & 0xffU] ^ tables[6][(r >> 8) & 0xffU] ^ tables[5][(r >> 16) & 0xffU] ^
        tables[4][r >> 24] ^ tables[3][at[4]] ^ tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
  }
  for (; bytes > 0; ++at, --bytes)
    r = one_byte(r, *at);
  return ~r;
}

uint32_t crc32c(const void* data, size_t bytes, uint32_t before) noexcept {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (has_instruction)
    return with_instruction(static_cast<const uint8_t*>(data), bytes, before);
#endif
  return crc32c_portable(data, bytes, before);
}

} // namespace neuroshard::kernels
