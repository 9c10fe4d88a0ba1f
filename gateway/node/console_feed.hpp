#pragma once

#include "actors/common/clock.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "gateway/config/console.hpp"

#include <cstdint>
#include <memory>

namespace neuroshard {

/// Feeds the terminal from the snapshots: the progress line, and now and then a sample of what the model
/// writes.
class console_feed {
public:
  console_feed(std::shared_ptr<console> out, snapshot_board_ptr board, inference_scheduler_actor scheduler,
               time_source_ptr time)
      : out_(std::move(out)), board_(std::move(board)), scheduler_(std::move(scheduler)),
        time_(std::move(time)) {}

  /// Where preparing the data set stands; shown until the model runs.
  void preparing(std::string phase, double fraction);
  /// Called several times a second by the thread of main.
  void tick(int64_t last_step);

private:
  void ask_for_sample(uint64_t step);

  std::shared_ptr<console> out_;
  snapshot_board_ptr board_;
  inference_scheduler_actor scheduler_;
  time_source_ptr time_;
  std::string phase_;
  double fraction_ = 0;
  std::optional<double> validation_;
  uint64_t validation_step_ = 0;
  int64_t sampled_us_ = 0;
  uint64_t sampled_step_ = 0;
  int64_t pause_us_ = 15'000'000; ///< until the next sample; doubles up to two minutes
};

} // namespace neuroshard
