#include "actors/gradient_exchanger/unit_values.hpp"

#include "actors/common/error.hpp"

#include <algorithm>

namespace neuroshard {

namespace {
constexpr size_t rank_max = 4;
constexpr uint64_t tensor_elements_max = uint64_t{1} << 40;
constexpr size_t unit_tensors_max = 65'536;
} // namespace

uint64_t tensor_shape::elements() const noexcept {
  if (shape.empty() || shape.size() > rank_max)
    return 0;
  uint64_t product = 1;
  for (const int64_t dim : shape) {
    if (dim < 1 || static_cast<uint64_t>(dim) > tensor_elements_max / product)
      return 0;
    product *= static_cast<uint64_t>(dim);
  }
  return product;
}

uint64_t unit_layout::elements() const noexcept {
  uint64_t sum = 0;
  for (const auto& tensor : tensors)
    sum += tensor.elements();
  return sum;
}

uint64_t unit_layout::largest() const noexcept {
  uint64_t most = 0;
  for (const auto& tensor : tensors)
    most = std::max(most, tensor.elements());
  return most;
}

bool unit_layout::well_formed() const noexcept {
  if (tensors.empty() || tensors.size() > unit_tensors_max)
    return false;
  for (size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].name.empty() || tensors[i].name.size() > 255 || tensors[i].elements() == 0 ||
        (i > 0 && tensors[i - 1].name >= tensors[i].name))
      return false;
  return true;
}

caf::error held_values::read(size_t tensor, std::span<float> out) const {
  if (tensor >= values_.size() || values_[tensor].size() != out.size())
    return refuse(errc::internal, "A tensor of another shape was asked for.");
  std::copy(values_[tensor].begin(), values_[tensor].end(), out.begin());
  return {};
}

} // namespace neuroshard
