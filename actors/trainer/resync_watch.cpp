#include "actors/trainer/resync_watch.hpp"

#include <utility>

namespace neuroshard {

namespace {
constexpr size_t avoided_max = 64;
} // namespace

void resync_watch::rest() {
  must_ = false;
  unclear_since_us_.reset();
  apart_since_us_.reset();
  target_.reset();
  avoid_.clear();
  tries_ = 0;
}

void resync_watch::look(const own_weights& own, const peer_list& peers, int64_t now_us) {
  if (given_up_until_us_ && now_us < *given_up_until_us_)
    return;
  auto found = find_standing(own, peers, avoid_);
  target_.reset();
  switch (found.where) {
  case standing_weights::place::alone:
    return rest();
  case standing_weights::place::in_step:
    if (!must_) {
      settled_ = true;
      return rest();
    }
    break; // the others' records are late: they have gone on
  case standing_weights::place::unsettled:
    break;
  case standing_weights::place::apart:
    unclear_since_us_.reset();
    if (!apart_since_us_)
      apart_since_us_ = now_us;
    if (must_ || tries_ > 0 || !settled_ || found.version >= own.version + 2 ||
        now_us - *apart_since_us_ >= apart_us)
      target_ = std::move(found);
    return;
  }
  if (!syncing())
    return;
  if (!unclear_since_us_)
    unclear_since_us_ = now_us;
  if (now_us - *unclear_since_us_ >= unclear_us)
    rest();
}

std::optional<standing_weights> resync_watch::take(int64_t now_us) const {
  return now_us >= again_us_ ? target_ : std::nullopt;
}

bool resync_watch::failed(const std::vector<std::string>& nodes, int64_t now_us) {
  for (const auto& node : nodes)
    if (avoid_.size() < avoided_max)
      avoid_.insert(node);
  if (++tries_ < tries_max) {
    again_us_ = now_us + (pause_first_us << (tries_ - 1));
    return true;
  }
  rest();
  given_up_until_us_ = now_us + given_up_us;
  return false;
}

void resync_watch::taken() {
  rest();
  settled_ = true;
}

} // namespace neuroshard
