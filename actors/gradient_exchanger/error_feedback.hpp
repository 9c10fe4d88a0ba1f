#pragma once

#include "actors/gradient_exchanger/unit_values.hpp"

#include <span>

namespace neuroshard {

/// What a node has not yet told the others of one unit: the error of quantization and all that top-k left out
/// (spec/training.md section 5). u = delta + r is sent; once the contribution is in the set, r = u - what was
/// sent, dequantized. Owned by whoever forms the contributions of the unit; saved in checkpoints; cleared
/// when alone and on resync. Holds one f32 copy of the unit (two inside settle), nothing while it is zero.
class error_feedback {
public:
  error_feedback() = default;
  /// From a checkpoint. Values of another layout than the unit's are refused by the caller.
  explicit error_feedback(unit_values residual) : residual_(std::move(residual)) {}

  /// u = delta + r of one tensor, in place.
  void add_to(size_t tensor, std::span<float> delta) const;
  /// r = u - sent. `delta(tensor, out)` gives the pseudo-gradient again, so u need not have been kept; `sent`
  /// is what was sent, dequantized. On an error r is what it was.
  caf::error settle(const unit_layout& layout, const value_source& delta, const value_source& sent);
  void clear() noexcept { residual_.clear(); }

  bool zero() const noexcept { return residual_.empty(); }
  /// For the checkpoint; empty while zero.
  const unit_values& residual() const noexcept { return residual_; }

private:
  unit_values residual_;
};

} // namespace neuroshard
