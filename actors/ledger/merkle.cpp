#include "actors/ledger/merkle.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace neuroshard {

namespace {

kernels::digest leaf_of(const kernels::digest& id) {
  constexpr std::array<uint8_t, 1> tag = {0x00};
  return kernels::sha256()
      .update(std::span<const uint8_t>(tag))
      .update(std::span<const uint8_t>(id))
      .finish();
}

kernels::digest node_of(const kernels::digest& left, const kernels::digest& right) {
  constexpr std::array<uint8_t, 1> tag = {0x01};
  return kernels::sha256()
      .update(std::span<const uint8_t>(tag))
      .update(std::span<const uint8_t>(left))
      .update(std::span<const uint8_t>(right))
      .finish();
}

} // namespace

kernels::digest merkle_root(std::vector<kernels::digest> ids) {
  if (ids.empty())
    return kernels::sha256::of(std::string_view("empty"));
  std::sort(ids.begin(), ids.end());
  for (auto& id : ids)
    id = leaf_of(id);
  while (ids.size() > 1) {
    size_t made = 0;
    for (size_t i = 0; i < ids.size(); i += 2)
      ids[made++] = i + 1 < ids.size() ? node_of(ids[i], ids[i + 1]) : ids[i];
    ids.resize(made);
  }
  return ids.front();
}

} // namespace neuroshard
