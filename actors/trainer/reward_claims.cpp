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

std::optional<reward_claim> reward_claims::open() const {
  if (outer_hash_.empty() || saving_.empty())
    return std::nullopt;
  const auto outer = std::find_if(saving_.begin(), saving_.end(),
                                  [this](const mark& m) { return m.ends_round && m.inner_step > begin_; });
  const mark& last = outer == saving_.end() ? saving_.back() : *outer;
  if (last.inner_step <= begin_ || last.tokens <= claimed_)
    return std::nullopt;
  return reward_claim{outer_hash_, begin_, last.inner_step, last.tokens - claimed_};
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
