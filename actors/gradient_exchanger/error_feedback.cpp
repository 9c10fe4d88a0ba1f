#include "actors/gradient_exchanger/error_feedback.hpp"

#include <utility>

namespace neuroshard {

void error_feedback::add_to(size_t tensor, std::span<float> delta) const {
  if (tensor >= residual_.size() || residual_[tensor].size() != delta.size())
    return;
  for (size_t i = 0; i < delta.size(); ++i)
    delta[i] += residual_[tensor][i];
}

caf::error error_feedback::settle(const unit_layout& layout, const value_source& delta,
                                  const value_source& sent) {
  unit_values next;
  next.reserve(layout.tensors.size());
  std::vector<float> told;
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    auto& u = next.emplace_back(layout.tensors[tensor].elements());
    told.resize(u.size());
    if (auto wrong = delta.read(tensor, u))
      return wrong;
    if (auto wrong = sent.read(tensor, told))
      return wrong;
    add_to(tensor, u);
    for (size_t i = 0; i < u.size(); ++i)
      u[i] -= told[i];
  }
  residual_ = std::move(next);
  return {};
}

} // namespace neuroshard
