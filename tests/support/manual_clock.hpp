#pragma once

#include "actors/common/clock.hpp"

#include <atomic>

namespace neuroshard::test {

/// Time that moves only when a test says so. Thread safe.
class manual_clock final : public time_source {
public:
  explicit manual_clock(int64_t unix_us = 1'800'000'000'000'000) : unix_us_(unix_us) {}
  int64_t unix_us() const override { return unix_us_.load(); }
  int64_t steady_us() const override { return steady_us_.load(); }
  void advance_us(int64_t by) {
    unix_us_ += by;
    steady_us_ += by;
  }
  void advance_s(int64_t by) { advance_us(by * 1'000'000); }
  /// Sets the wall clock alone (a clock that was corrected).
  void set_unix_us(int64_t to) { unix_us_ = to; }

private:
  std::atomic<int64_t> unix_us_;
  std::atomic<int64_t> steady_us_{1'000'000};
};

/// Repeatable "randomness".
class counting_random final : public random_source {
public:
  explicit counting_random(uint64_t seed = 1) : state_(seed) {}
  void fill(void* out, size_t bytes) override {
    auto* to = static_cast<unsigned char*>(out);
    for (size_t i = 0; i < bytes; ++i) {
      state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      to[i] = static_cast<unsigned char>(state_ >> 33);
    }
  }

private:
  uint64_t state_;
};

} // namespace neuroshard::test
