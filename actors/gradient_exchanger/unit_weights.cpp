#include "actors/gradient_exchanger/unit_weights.hpp"

#include "actors/common/error.hpp"
#include "kernels/model/parameters.hpp"

#include <algorithm>
#include <memory>

namespace neuroshard {

std::string unit_of_parameter(std::string_view name) {
  constexpr std::string_view layers = "layers.";
  if (name == "embed.weight")
    return "embed";
  if (name == "norm.weight" || name == "head.weight")
    return "head";
  if (!name.starts_with(layers))
    return {};
  const auto number = name.substr(layers.size(), name.find('.', layers.size()) - layers.size());
  return "layer." + std::string(number);
}

kernels::digest hash_of_unit(const unit_layout& layout,
                             const std::function<std::span<const float>(size_t tensor)>& values) {
  std::vector<model::tensor_digest> tensors;
  tensors.reserve(layout.tensors.size());
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const auto now = values(i);
    tensors.push_back({layout.tensors[i].name, kernels::dtype::f32, layout.tensors[i].shape,
                       kernels::sha256().update(now.data(), now.size_bytes()).finish()});
  }
  return model::unit_hash(std::move(tensors));
}
kernels::digest hash_of_unit(const unit_layout& layout, const unit_values& values) {
  return hash_of_unit(layout, [&](size_t tensor) { return std::span<const float>(values[tensor]); });
}
kernels::digest hash_of_unit(const unit_layout& layout, const std::vector<tensor_handle>& values) {
  return hash_of_unit(layout, [&](size_t tensor) { return floats_of(values[tensor]); });
}

std::span<const float> floats_of(const tensor_handle& handle) noexcept {
  return {handle.view.as<const float>(), static_cast<size_t>(handle.view.bytes() / sizeof(float))};
}

tensor_handle handle_of(const std::vector<int64_t>& shape, std::vector<float> values) {
  auto owner = std::make_shared<std::vector<float>>(std::move(values));
  tensor_handle made;
  const auto dim = [&](size_t at) { return at < shape.size() ? shape[at] : 1; };
  made.view = kernels::make_tensor(owner->data(), kernels::dtype::f32, {dim(0), dim(1), dim(2), dim(3)});
  made.view.rank = static_cast<int>(shape.size()); // the trailing ones take no part: strides are the same
  for (int at = made.view.rank; at < 4; ++at)
    made.view.shape[static_cast<size_t>(at)] = 0;
  made.owner = std::move(owner);
  return made;
}

unit_values values_of(const std::vector<tensor_handle>& tensors) {
  unit_values made;
  made.reserve(tensors.size());
  for (const auto& tensor : tensors) {
    const auto now = floats_of(tensor);
    made.emplace_back(now.begin(), now.end());
  }
  return made;
}

caf::error weight_difference::read(size_t tensor, std::span<float> out) const {
  if (tensor >= after_.size() || tensor >= before_.size() || floats_of(after_[tensor]).size() != out.size() ||
      floats_of(before_[tensor]).size() != out.size())
    return refuse(errc::internal, "A tensor of another shape was asked for.");
  const auto after = floats_of(after_[tensor]);
  const auto before = floats_of(before_[tensor]);
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = after[i] - before[i];
  return {};
}

} // namespace neuroshard
