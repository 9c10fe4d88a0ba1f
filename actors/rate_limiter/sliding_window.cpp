#include "actors/rate_limiter/sliding_window.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

uint32_t seconds_up(int64_t us) {
  return static_cast<uint32_t>(std::max<int64_t>((us + 999'999) / 1'000'000, 0));
}

} // namespace

uint32_t sliding_window::limit_of(limit_class of) const noexcept {
  switch (of) {
  case limit_class::status:
    return limits_.status;
  case limit_class::inference:
    return limits_.inference;
  case limit_class::wallet:
    return limits_.wallet;
  case limit_class::health:
    return limits_.health;
  case limit_class::auth_failures:
    return limits_.auth_failures;
  }
  return limits_.status;
}

admit_verdict sliding_window::admit(const admit_request& request, int64_t now_us) {
  admit_verdict verdict;
  verdict.limit = limit_of(request.of);
  if (verdict.limit == 0)
    return verdict;
  std::string key;
  key.reserve(request.identity.size() + 1);
  key.push_back(static_cast<char>('0' + static_cast<int>(request.of)));
  key += request.identity;

  auto found = windows_.find(key);
  if (found == windows_.end()) {
    if (request.peek) {
      verdict.remaining = verdict.limit;
      return verdict;
    }
    if (windows_.size() >= identities_max_) {
      windows_.erase(order_.front().key);
      order_.pop_front();
    }
    order_.push_back({key, {}});
    found = windows_.emplace(std::move(key), std::prev(order_.end())).first;
  }
  auto& times = found->second->times;
  while (!times.empty() && times.front() <= now_us - window_us)
    times.pop_front();

  if (times.size() >= verdict.limit) {
    verdict.allowed = false;
    // With a limit that was lowered meanwhile, several requests must leave before one fits.
    const int64_t frees_at = times[times.size() - verdict.limit] + window_us;
    verdict.retry_after_s = std::max(1U, seconds_up(frees_at - now_us));
    verdict.reset_s = std::max(1U, seconds_up(times.back() + window_us - now_us));
    return verdict;
  }
  if (!request.peek) {
    times.push_back(times.empty() ? now_us : std::max(now_us, times.back()));
    order_.splice(order_.end(), order_, found->second);
  }
  verdict.remaining = verdict.limit - static_cast<uint32_t>(times.size());
  verdict.reset_s = times.empty() ? 0 : seconds_up(times.back() + window_us - now_us);
  return verdict;
}

void sliding_window::expire(int64_t now_us) {
  while (!order_.empty() &&
         (order_.front().times.empty() || order_.front().times.back() <= now_us - window_us)) {
    windows_.erase(order_.front().key);
    order_.pop_front();
  }
}

} // namespace neuroshard
