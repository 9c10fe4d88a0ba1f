#include "actors/layer_worker/serving_copies.hpp"

namespace neuroshard {

void serving_copies::add(const model::serving_ptr& copy, uint64_t model_version, uint64_t inner_step,
                         int64_t now_us) {
  for (auto& [id, old] : records_)
    if (old.retired_us == 0)
      old.retired_us = now_us;
  records_[copy->id()] = {{copy->id(), model_version, inner_step}, copy, 0, {}};
}

const serving_copies::record* serving_copies::find(uint64_t copy_id) const {
  const auto at = records_.find(copy_id);
  return at == records_.end() ? nullptr : &at->second;
}

const serving_copies::record* serving_copies::newest() const {
  return records_.empty() ? nullptr : &records_.rbegin()->second;
}

void serving_copies::set_hash(uint64_t copy_id, const caf::expected<std::string>& hash) {
  const auto at = records_.find(copy_id);
  if (at == records_.end())
    return;
  if (hash)
    at->second.hash = *hash;
  else
    at->second.hash_failure = hash.error();
}

uint64_t serving_copies::retire(int64_t now_us) {
  uint64_t evict_below = 0;
  for (auto at = records_.begin(); at != records_.end();) {
    const auto& old = at->second;
    const bool over = old.retired_us != 0 && now_us - old.retired_us >= retired_us_max;
    if (over)
      evict_below = at->first + 1;
    // A copy nobody holds is kept on record for the rest of its time: a generation that just ended asks for
    // its hash.
    if (over && old.copy.expired())
      at = records_.erase(at);
    else
      ++at;
  }
  return evict_below;
}

} // namespace neuroshard
