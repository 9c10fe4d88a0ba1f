#include "actors/gradient_exchanger/round_rules.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

namespace neuroshard {

namespace {

size_t collectors_of(size_t members) {
  return std::min(members, round_rules::collectors_max);
}

kernels::digest collector_hash(uint64_t round, const std::string& node_id) {
  std::array<uint8_t, 8> number{};
  for (size_t i = 0; i < number.size(); ++i)
    number[i] = static_cast<uint8_t>(round >> (8 * i));
  return kernels::sha256().update(number).update(node_id).finish();
}

} // namespace

std::vector<std::string> collector_order(uint64_t round, std::vector<std::string> members) {
  std::vector<std::pair<kernels::digest, std::string>> hashed;
  hashed.reserve(members.size());
  for (auto& member : members)
    hashed.emplace_back(collector_hash(round, member), std::move(member));
  std::sort(hashed.begin(), hashed.end());
  hashed.erase(std::unique(hashed.begin(), hashed.end()), hashed.end());
  members.clear();
  for (auto& [hash, member] : hashed)
    members.push_back(std::move(member));
  return members;
}

void exchange_window::all_heard(int64_t now_ms) noexcept {
  end_ms_ = std::min(end_ms_, std::max(now_ms, t0_ms_));
}

std::optional<size_t> exchange_window::collector(int64_t now_ms, size_t members) const noexcept {
  if (open(now_ms))
    return std::nullopt;
  const auto at = static_cast<uint64_t>(now_ms - end_ms_) / round_rules::collector_ms;
  return at < collectors_of(members) ? std::optional<size_t>(at) : std::nullopt;
}

bool exchange_window::given_up(int64_t now_ms, size_t members) const noexcept {
  return !open(now_ms) && !collector(now_ms, members);
}

std::string better_collector(const std::vector<std::string>& order, const std::string& a,
                             const std::string& b) {
  for (size_t i = 0; i < collectors_of(order.size()); ++i)
    if (order[i] == a || order[i] == b)
      return order[i];
  return {};
}

void round_lengths::add(int64_t length_ms) {
  if (last_.size() == round_rules::lengths_kept)
    last_.erase(last_.begin());
  last_.push_back(std::max<int64_t>(length_ms, 0));
}

std::optional<int64_t> round_lengths::median_ms() const {
  if (last_.empty())
    return std::nullopt;
  auto sorted = last_;
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle]
                                : sorted[middle - 1] + (sorted[middle] - sorted[middle - 1]) / 2;
}

bool round_overdue(int64_t age_ms, const round_lengths& lengths) {
  const auto median = lengths.median_ms();
  return median && age_ms > round_rules::overdue_least_ms && age_ms / 2 >= *median && age_ms > 2 * *median;
}

std::string_view round_end_refused(const round_end& what, const round_view& view,
                                   const round_lengths& lengths) {
  if (what.round != view.round || what.architecture_id != view.architecture_id)
    return "other_round";
  if (view.ended)
    return "already_ended";
  if (!view.from_driver)
    return "not_a_driver";
  if (what.inner_steps < view.diloco_steps && !round_overdue(view.age_ms, lengths))
    return "too_early";
  return {};
}

std::optional<kernels::digest> standing_hash(std::vector<member_hash> members) {
  std::stable_sort(members.begin(), members.end(),
                   [](const member_hash& a, const member_hash& b) { return a.node_id < b.node_id; });
  members.erase(
      std::unique(members.begin(), members.end(),
                  [](const member_hash& a, const member_hash& b) { return a.node_id == b.node_id; }),
      members.end());
  std::map<kernels::digest, size_t> sizes;
  for (const auto& member : members)
    ++sizes[member.unit_hash];
  std::optional<kernels::digest> best;
  // In ascending node id, so that of equal groups the one with the lowest id comes first.
  for (const auto& member : members)
    if (!best || sizes[member.unit_hash] > sizes[*best])
      best = member.unit_hash;
  return best;
}

} // namespace neuroshard
