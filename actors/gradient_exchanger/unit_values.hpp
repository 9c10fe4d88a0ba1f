#pragma once

#include <caf/error.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// One tensor of a unit: its name (spec/model.md section 10) and its dimensions, rank 1 to 4.
struct tensor_shape {
  std::string name;
  std::vector<int64_t> shape;

  /// Product of the dimensions; 0 for a rank or a dimension out of bounds, or a product above 2^40.
  uint64_t elements() const noexcept;
  friend bool operator==(const tensor_shape&, const tensor_shape&) = default;
};

/// The tensors of a unit, ascending by name.
struct unit_layout {
  std::vector<tensor_shape> tensors;

  uint64_t elements() const noexcept;
  /// Of the largest tensor: what working tensor by tensor holds.
  uint64_t largest() const noexcept;
  /// At least one tensor, names ascending and none twice, every shape in bounds.
  bool well_formed() const noexcept;
  friend bool operator==(const unit_layout&, const unit_layout&) = default;
};

/// The f32 values of a unit, one vector for each tensor of its layout.
using unit_values = std::vector<std::vector<float>>;

/// The values of a unit where they are read one tensor at a time, so that n contributions need not lie in
/// memory as f32 at once. Reading twice gives the same values.
class value_source {
public:
  virtual ~value_source() = default;
  /// Overwrites `out`, which has the elements of that tensor.
  virtual caf::error read(size_t tensor, std::span<float> out) const = 0;
};

/// Values that lie in memory. Holds the one copy it is given.
class held_values final : public value_source {
public:
  explicit held_values(unit_values values) : values_(std::move(values)) {}
  /// Error: internal, for a tensor or a length that is not there.
  caf::error read(size_t tensor, std::span<float> out) const override;

private:
  unit_values values_;
};

} // namespace neuroshard
