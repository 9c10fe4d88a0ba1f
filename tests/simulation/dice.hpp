#pragma once

#include "actors/common/clock.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace neuroshard::simulation {

/// Draws that follow from a seed alone (splitmix64).
class dice {
public:
  explicit dice(uint64_t seed) : state_(seed) {}

  uint64_t next() noexcept {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  /// In [0, n), n > 0.
  uint64_t below(uint64_t n) noexcept { return next() % n; }
  /// In [least, most].
  int64_t between(int64_t least, int64_t most) noexcept {
    return least + static_cast<int64_t>(below(static_cast<uint64_t>(most - least + 1)));
  }
  /// In [0, 1).
  double unit() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  bool chance(double p) noexcept { return unit() < p; }
  /// Dice of their own, so that what one part of a world draws does not shift what another draws.
  dice fork() noexcept { return dice{next()}; }

private:
  uint64_t state_;
};

/// Randomness of one actor.
class dice_random final : public random_source {
public:
  explicit dice_random(dice from) : from_(from) {}
  void fill(void* out, size_t bytes) override {
    auto* to = static_cast<unsigned char*>(out);
    for (size_t i = 0; i < bytes; ++i)
      to[i] = static_cast<unsigned char>(from_.next() >> 56);
  }

private:
  dice from_;
};

} // namespace neuroshard::simulation
