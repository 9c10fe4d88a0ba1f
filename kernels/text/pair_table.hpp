#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace neuroshard::text {

/// A map from pairs of token ids to a u32, open addressing. Never erases; holds at most half its slots. The
/// hash is seeded per process: merge tables come from files, and one made to collide must not make the loader
/// quadratic.
class pair_table {
public:
  static constexpr uint32_t absent = UINT32_MAX;

  explicit pair_table(size_t capacity = 0)
      : slots_(std::bit_ceil(capacity * 2 + 2)), mask_(slots_.size() - 1) {}

  /// The value of the pair, or `absent`.
  uint32_t find(uint32_t left, uint32_t right) const noexcept {
    const uint64_t key = key_of(left, right);
    for (size_t at = place_of(key);; at = (at + 1) & mask_) {
      const slot& s = slots_[at];
      if (s.value == absent || s.key == key)
        return s.value;
    }
  }

  /// False when the pair is there already. Precondition: fewer pairs than the capacity, value != absent.
  bool insert(uint32_t left, uint32_t right, uint32_t value) noexcept {
    const uint64_t key = key_of(left, right);
    for (size_t at = place_of(key);; at = (at + 1) & mask_) {
      slot& s = slots_[at];
      if (s.value == absent) {
        s = {key, value};
        return true;
      }
      if (s.key == key)
        return false;
    }
  }

  static uint64_t key_of(uint32_t left, uint32_t right) noexcept { return (uint64_t{left} << 32) | right; }

  /// A seeded mixer (the finalizer of SplitMix64).
  static size_t mix(uint64_t key) noexcept {
    static const uint64_t seed = (uint64_t{std::random_device{}()} << 32) | std::random_device{}();
    key ^= seed;
    key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9U;
    key = (key ^ (key >> 27)) * 0x94D049BB133111EBU;
    return static_cast<size_t>(key ^ (key >> 31));
  }

private:
  struct slot {
    uint64_t key = 0;
    uint32_t value = absent;
  };
  size_t place_of(uint64_t key) const noexcept { return mix(key) & mask_; }

  std::vector<slot> slots_;
  size_t mask_;
};

} // namespace neuroshard::text
