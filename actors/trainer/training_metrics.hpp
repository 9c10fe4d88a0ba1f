#pragma once

#include "actors/checkpointer/training_state.hpp"

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace neuroshard {

/// What the loss has been: EMA, checkpoints of it, the least, and the speed (spec training.md section 10).
/// Plain values, kept in checkpoints. Used by one thread.
class training_metrics {
public:
  static constexpr uint64_t history_every_steps = 10;
  static constexpr size_t history_max = 100;
  static constexpr size_t first_max = 3;
  static constexpr int64_t speed_window_us = 30'000'000;
  static constexpr int64_t best_window_us = 5'000'000;

  void restore(const training_state& from);
  void store(training_state& to) const;

  /// A committed step, its mean loss (finite) and label tokens, at a time.
  void step(uint64_t inner_step, double loss, uint64_t tokens, int64_t now_us);
  /// Forgets the speed (after a pause).
  void pause();

  std::optional<double> ema() const noexcept { return ema_; }
  std::optional<double> least() const noexcept { return least_; }
  const std::vector<double>& history() const noexcept { return history_; }
  const std::vector<double>& first() const noexcept { return first_; }
  double tokens_per_second(int64_t now_us) const;
  /// The most of it ever seen here over at least `best_window_us`; 0: not measured yet.
  double best_tokens_per_second() const noexcept { return best_; }
  double steps_per_second(int64_t now_us) const;

private:
  struct sample {
    int64_t at_us;
    uint64_t tokens;
  };
  std::optional<double> ema_;
  std::optional<double> least_;
  std::vector<double> history_;
  std::vector<double> first_;
  std::deque<sample> recent_;
  double best_ = 0;
};

} // namespace neuroshard
