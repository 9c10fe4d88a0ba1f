#pragma once

#include "actors/common/error.hpp"

#include <cstdint>
#include <optional>
#include <set>
#include <string>

namespace neuroshard {

/// Which driver trains this stage, and how far the step in hand is (spec grpc-api.md section 4, "Training
/// binding"). Only the rules; the owner runs the model. An empty error means: allowed.
class training_binding {
public:
  static constexpr int64_t silence_us_max = 120'000'000;

  /// Binds to a session. Refused with `busy_pipeline` while another one has been heard within 120 s. The same
  /// session may bind anew (a driver that was restarted). What was accumulated before is void: the owner
  /// discards it.
  caf::error bind(const std::string& session, uint64_t last_committed_step, int64_t now_us);
  void release();
  bool bound() const noexcept { return !session_.empty(); }
  /// True once: the driver has been silent too long and the binding ended.
  bool expire(int64_t now_us);

  /// Work of this session is being computed: nobody is silent.
  void still_working(int64_t now_us) noexcept { heard_us_ = now_us; }
  /// A message of this session has come: `not_bound` when it is another's.
  caf::error heard(const std::string& session, int64_t now_us);
  /// Whether this micro-batch may be run: the step must be above the last committed one (`step`) and the one
  /// in hand, or that one must be ready to be committed first; a micro-batch is run once
  /// (`duplicate_microbatch`).
  caf::error may_forward(uint64_t step, uint32_t microbatch) const;
  /// True when the step in hand is ready and a TRAIN of `step` must commit it first.
  bool commits_first(uint64_t step) const noexcept;

  /// A micro-batch of this step begins to run: from now on there may be something to discard.
  void begin(uint64_t step) { step_ = step; }
  /// A micro-batch has been run forward.
  void forwarded(uint64_t step, uint32_t microbatch, bool is_last);
  /// Its gradient is accumulated here.
  void accumulated(uint64_t step, uint32_t microbatch);
  bool ready() const noexcept {
    return last_ && accumulated_.size() == size_t{*last_} + 1 && *accumulated_.rbegin() == *last_;
  }
  /// Whether `step` may be committed now: `not_ready`.
  caf::error may_commit(uint64_t step) const;
  bool committed_before(uint64_t step) const noexcept { return step != 0 && step == last_committed_; }
  void committed(uint64_t step);
  /// Forgets the step in hand.
  void discard();

  bool under_way() const noexcept { return step_ != 0; }
  uint64_t step() const noexcept { return step_; } ///< in hand; 0: none
  uint64_t last_committed() const noexcept { return last_committed_; }
  uint32_t inner_steps() const noexcept { return inner_steps_; } ///< committed since the binding

private:
  std::string session_;
  int64_t heard_us_ = 0;
  uint64_t last_committed_ = 0;
  uint32_t inner_steps_ = 0;
  uint64_t step_ = 0;
  std::set<uint32_t> forwarded_;
  std::set<uint32_t> accumulated_;
  std::optional<uint32_t> last_; ///< index of the step's last micro-batch, once known
};

} // namespace neuroshard
