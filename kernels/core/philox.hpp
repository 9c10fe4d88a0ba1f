#pragma once

#include <array>
#include <cstdint>

namespace neuroshard::kernels {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter-based
/// generator. The same key and counter give the same 128 bits on every machine, so any element can be drawn
/// without the ones before it.
constexpr std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) noexcept {
  std::array<uint32_t, 4> c{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                            static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53U} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57U} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  return c;
}

/// The first 64 bits of a draw.
constexpr uint64_t philox_u64(uint64_t key, uint64_t counter, uint64_t draw = 0) noexcept {
  const auto words = philox(key, counter, draw);
  return words[0] | (uint64_t{words[1]} << 32);
}

/// A uniform integer below n: the high part of (64-bit draw x n).
constexpr uint64_t philox_below(uint64_t key, uint64_t counter, uint64_t draw, uint64_t n) noexcept {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(philox_u64(key, counter, draw)) * n) >> 64);
}

} // namespace neuroshard::kernels
