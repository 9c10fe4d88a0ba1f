#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace neuroshard::kernels::reference {

namespace {

/// The first element of [G,D] at a position of a cache; -1 where the cache, the position or the block does
/// not exist.
int64_t slot_offset(const tensor& tables, const tensor& cache, int64_t which, int64_t position) noexcept {
  if (which < 0 || which >= tables.shape[0] || position < 0 || position / kv_block >= tables.shape[1])
    return -1;
  const int64_t block =
      tables.as<int32_t>()[which * tables.stride[0] + position / kv_block * tables.stride[1]];
  if (block < 0 || block >= cache.shape[0])
    return -1;
  return block * cache.stride[0] + position % kv_block * cache.stride[1];
}

} // namespace

/// The scores of one row over the longest context that the tables can hold, and one row of output.
uint64_t paged_attention_workspace(void*, const paged_attention_args& a) {
  return static_cast<uint64_t>(a.tables.shape[1] * kv_block + a.q.shape[2]) * sizeof(float);
}

status kv_append(void*, const kv_append_args& a) {
  NEUROSHARD_TRY(check(a));
  const elements k(a.k);
  const elements v(a.v);
  for (int64_t t = 0; t < a.k.shape[0]; ++t) {
    const int64_t slot =
        slot_offset(a.tables, a.key_cache, index_at(a.row_cache, t), index_at(a.positions, t));
    if (slot < 0)
      continue;
    for (int64_t g = 0; g < a.k.shape[1]; ++g)
      for (int64_t d = 0; d < a.k.shape[2]; ++d) {
        const int64_t at = slot + g * a.key_cache.stride[2] + d;
        elements(a.key_cache).store(at, k.get(t, g, d));
        elements(a.value_cache).store(at, v.get(t, g, d));
      }
  }
  return {};
}

status paged_attention(void* queue, const paged_attention_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = paged_attention_workspace(queue, a)}));
  const elements q(a.q);
  const elements keys(a.key_cache);
  const elements values(a.value_cache);
  const elements out(a.out);
  const int64_t heads = a.q.shape[1];
  const int64_t size = a.q.shape[2];
  const int64_t group = heads / a.key_cache.shape[2];
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  const int64_t context_max = a.tables.shape[1] * kv_block;
  float* scores = a.workspace.as<float>();
  float* sum = scores + context_max;
  for (int64_t t = 0; t < a.q.shape[0]; ++t) {
    const int64_t cache = index_at(a.row_cache, t);
    const int64_t position = index_at(a.positions, t);
    const bool legal = cache >= 0 && cache < a.tables.shape[0] && position >= 0 && position < context_max;
    const int64_t seen = legal ? position + 1 : 0;
    const auto element = [&](int64_t j, int64_t head, int64_t d) {
      const int64_t slot = slot_offset(a.tables, a.key_cache, cache, j);
      const int64_t within = j % kv_block * a.key_cache.stride[1];
      return (slot < 0 ? within : slot) + head / group * a.key_cache.stride[2] + d;
    };
    for (int64_t head = 0; head < heads; ++head) {
      float largest = -std::numeric_limits<float>::infinity();
      for (int64_t j = 0; j < seen; ++j) {
        scores[j] = 0;
        for (int64_t d = 0; d < size; ++d)
          scores[j] += q.get(t, head, d) * keys.load(element(j, head, d));
        scores[j] *= scale;
        largest = std::max(largest, scores[j]);
      }
      float total = 0;
      std::fill_n(sum, size, 0.0F);
      for (int64_t j = 0; j < seen; ++j) {
        const float weight = std::exp(scores[j] - largest);
        total += weight;
        for (int64_t d = 0; d < size; ++d)
          sum[d] += weight * values.load(element(j, head, d));
      }
      for (int64_t d = 0; d < size; ++d)
        out.set(t, head, d, seen > 0 ? sum[d] / total : 0.0F);
    }
  }
  return {};
}

} // namespace neuroshard::kernels::reference
