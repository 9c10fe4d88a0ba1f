#pragma once

#include "actors/common/tensor_handle.hpp"
#include "actors/gradient_exchanger/unit_values.hpp"
#include "kernels/core/sha256.hpp"

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Weights of a unit as they are read of the worker: f32 tensors in host memory, in the order of its layout.
namespace neuroshard {

/// "embed", "head" or "layer.N" of a parameter's name (spec/model.md section 10); empty for any other name.
std::string unit_of_parameter(std::string_view name);

/// The unit hash (spec/model.md section 10) of f32 values, one span for each tensor.
kernels::digest hash_of_unit(const unit_layout& layout,
                             const std::function<std::span<const float>(size_t tensor)>& values);
kernels::digest hash_of_unit(const unit_layout& layout, const unit_values& values);
kernels::digest hash_of_unit(const unit_layout& layout, const std::vector<tensor_handle>& values);

/// Elements of a handle that holds f32 in host memory.
std::span<const float> floats_of(const tensor_handle& handle) noexcept;
/// A handle that owns the values.
tensor_handle handle_of(const std::vector<int64_t>& shape, std::vector<float> values);
/// A copy.
unit_values values_of(const std::vector<tensor_handle>& tensors);

/// The pseudo-gradient w_H - w0. Refers to both, which outlive it.
class weight_difference final : public value_source {
public:
  weight_difference(const std::vector<tensor_handle>& after, const std::vector<tensor_handle>& before)
      : after_(after), before_(before) {}
  /// Error: internal, for a tensor or a length that is not there.
  caf::error read(size_t tensor, std::span<float> out) const override;

private:
  const std::vector<tensor_handle>& after_;
  const std::vector<tensor_handle>& before_;
};

} // namespace neuroshard
