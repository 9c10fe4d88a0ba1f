#include "actors/trainer/reward_claims.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

void reward_claims::begin(uint64_t inner_step, std::string outer_model_hash) {
  *this = {};
  outer_hash_ = std::move(outer_model_hash);
  begin_ = inner_step;
}

void reward_claims::step(uint64_t, uint64_t label_tokens) {
  tokens_ += label_tokens;
}

void reward_claims::saving(uint64_t inner_step, bool ends_round) {
  saving_.push_back({inner_step, tokens_, ends_round});
}

void reward_claims::failed(uint64_t inner_step) {
  std::erase_if(saving_, [&](const mark& m) { return m.inner_step == inner_step; });
}

std::vector<unclaimed_work> reward_claims::open() const {
  std::vector<unclaimed_work> all;
  uint64_t begin = begin_;
  uint64_t tokens = claimed_;
  unclaimed_work next;
  next.model_hash_start = outer_hash_;
  for (const mark& m : saving_) {
    if (!m.ends_round && &m != &saving_.back())
      continue;
    // The ranges of one checkpoint are bounded; what comes first is the oldest debt.
    if (m.inner_step > begin && m.tokens > tokens && all.size() < unclaimed_max &&
        (next.hash_of || !next.model_hash_start.empty())) {
      next.step_begin = begin;
      next.step_end = m.inner_step;
      next.label_tokens = m.tokens - tokens;
      all.push_back(next);
    }
    begin = std::max(begin, m.inner_step);
    tokens = m.tokens;
    if (m.ends_round)
      next.hash_of = m.inner_step;
  }
  return all;
}

std::optional<uint64_t> reward_claims::outer_under_way() const {
  const auto at = std::find_if(saving_.rbegin(), saving_.rend(), [](const mark& m) { return m.ends_round; });
  return at == saving_.rend() ? std::nullopt : std::optional(at->inner_step);
}

std::optional<reward_claim> reward_claims::saved(uint64_t inner_step,
                                                 const std::optional<std::string>& outer_hash) {
  std::optional<reward_claim> claim;
  const auto at = std::find_if(saving_.rbegin(), saving_.rend(),
                               [&](const mark& m) { return m.inner_step == inner_step; });
  if (at != saving_.rend()) {
    const mark held = *at;
    std::erase_if(saving_, [&](const mark& m) { return m.inner_step <= inner_step; });
    if (!outer_hash_.empty() && held.inner_step > begin_) {
      if (held.tokens > claimed_)
        claim = reward_claim{outer_hash_, begin_, held.inner_step, held.tokens - claimed_};
      begin_ = held.inner_step;
      claimed_ = held.tokens;
    }
  }
  if (outer_hash)
    outer_hash_ = *outer_hash;
  return claim;
}

} // namespace neuroshard
