#include "gateway/node/held_board.hpp"

namespace neuroshard {

std::optional<held_range> held_board::read() const {
  const std::lock_guard hold{lock_};
  return range_;
}

bool held_board::assign(held_range next) {
  const std::lock_guard hold{lock_};
  if (range_ == next)
    return false;
  range_ = next;
  units_.clear();
  return true;
}

void held_board::announce(std::vector<unit_state> units, uint64_t version) {
  const std::lock_guard hold{lock_};
  units_ = std::move(units);
  units_version_ = version;
}

std::vector<unit_state> held_board::units_at(uint64_t version) const {
  const std::lock_guard hold{lock_};
  return version == units_version_ ? units_ : std::vector<unit_state>{};
}

std::vector<held_layer> layers_of(const held_range& held, const model::architecture& a,
                                  kernels::dtype compute, bool training) {
  const auto megabytes = [&](int64_t parameters) {
    const uint64_t bytes =
        training ? model::training_memory(parameters, compute) : model::serving_memory(parameters, compute);
    return static_cast<uint32_t>((bytes + (1U << 20) - 1) >> 20);
  };
  std::vector<held_layer> layers;
  if (held.embed)
    layers.push_back({0, "embedding", megabytes(a.embed_parameters()), "loading"});
  for (uint32_t i = held.begin; i < held.end; ++i)
    layers.push_back({i, "transformer", megabytes(a.layer_parameters()), "loading"});
  if (held.head)
    layers.push_back(
        {static_cast<uint32_t>(a.num_layers), "lm_head", megabytes(a.head_parameters()), "loading"});
  return layers;
}

std::vector<node_role> roles_of(const held_range& held) {
  std::vector<node_role> roles;
  if (held.embed)
    roles.push_back(node_role::driver);
  if (held.head)
    roles.push_back(node_role::validator);
  if (held.begin < held.end)
    roles.push_back(node_role::worker);
  return roles;
}

} // namespace neuroshard
