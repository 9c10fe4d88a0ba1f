#include "kernels/model/session_table.hpp"

#include "kernels/core/backend.hpp"

#include <algorithm>
#include <cassert>

namespace neuroshard::model {

namespace {
constexpr size_t evicted_remembered = 1024;

int64_t blocks_for(int64_t positions) {
  return (positions + kernels::kv_block - 1) / kernels::kv_block;
}
} // namespace

session_table::session_table(int64_t sessions_max, int64_t blocks_total, int64_t blocks_per_session,
                             session_time::duration idle_after)
    : blocks_total_(blocks_total), blocks_per_session_(blocks_per_session), idle_after_(idle_after) {
  slots_.resize(static_cast<size_t>(sessions_max));
  table_.resize(static_cast<size_t>(sessions_max * blocks_per_session));
  for (int64_t i = sessions_max - 1; i >= 0; --i)
    free_slots_.push_back(static_cast<int32_t>(i));
  for (int64_t i = blocks_total - 1; i >= 0; --i)
    free_blocks_.push_back(static_cast<int32_t>(i));
  by_id_.reserve(static_cast<size_t>(sessions_max));
}

session* session_table::find(std::string_view id) {
  const auto found = by_id_.find(std::string(id));
  return found == by_id_.end() ? nullptr : &*slots_[static_cast<size_t>(found->second)];
}

const session* session_table::find(std::string_view id) const {
  return const_cast<session_table*>(this)->find(id);
}

bool session_table::was_evicted(std::string_view id) const {
  return std::find(evicted_.begin(), evicted_.end(), id) != evicted_.end();
}

session* session_table::create(std::string id, serving_ptr weights, session_time now) {
  assert(find(id) == nullptr);
  if (free_slots_.empty()) {
    session* oldest = oldest_idle(nullptr, now);
    if (oldest == nullptr)
      return nullptr;
    evict(*oldest);
  }
  std::erase(evicted_, id);
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  by_id_.emplace(id, slot);
  session s;
  s.id = std::move(id);
  s.slot = slot;
  s.weights = std::move(weights);
  s.last_use = now;
  return &slots_[static_cast<size_t>(slot)].emplace(std::move(s));
}

bool session_table::reserve(session& s, int64_t positions, session_time now) {
  const int64_t wanted = blocks_for(positions);
  if (wanted > blocks_per_session_)
    return false;
  // Evicting everybody and failing all the same would help nobody: look first whether it can be had.
  int64_t possible = blocks_free();
  for (const auto& other : slots_)
    if (other && &*other != &s && idle(*other, now))
      possible += other->blocks;
  if (wanted - s.blocks > possible)
    return false;
  while (wanted - s.blocks > blocks_free())
    evict(*oldest_idle(&s, now));
  int32_t* table = own_row(s);
  for (; s.blocks < wanted; ++s.blocks) {
    table[s.blocks] = free_blocks_.back();
    free_blocks_.pop_back();
  }
  return true;
}

void session_table::truncate(session& s, int64_t length) {
  s.length = std::min(s.length, length);
  const int32_t* table = row(s);
  for (const int64_t kept = blocks_for(s.length); s.blocks > kept; --s.blocks)
    free_blocks_.push_back(table[s.blocks - 1]);
}

bool session_table::release(std::string_view id) {
  session* s = find(id);
  if (s == nullptr)
    return false;
  if (s->busy)
    s->closing = true;
  else
    drop(*s);
  return true;
}

void session_table::settle(session& s) {
  s.busy = false;
  if (s.closing)
    drop(s);
}

size_t session_table::expire(session_time idle_since) {
  size_t freed = 0;
  for (auto& slot : slots_)
    if (slot && !slot->busy && slot->last_use < idle_since) {
      drop(*slot);
      ++freed;
    }
  return freed;
}

size_t session_table::retire_copies_before(uint64_t copy_id) {
  size_t retired = 0;
  for (auto& slot : slots_)
    if (slot && !slot->busy && slot->weights && slot->weights->id() < copy_id) {
      evict(*slot);
      ++retired;
    }
  return retired;
}

bool session_table::idle(const session& s, session_time now) const noexcept {
  return !s.busy && (idle_after_ == session_time::duration{} || now - s.last_use >= idle_after_);
}

session* session_table::oldest_idle(const session* but_not, session_time now) {
  session* oldest = nullptr;
  for (auto& slot : slots_)
    if (slot && &*slot != but_not && idle(*slot, now) &&
        (oldest == nullptr || slot->last_use < oldest->last_use))
      oldest = &*slot;
  return oldest;
}

void session_table::evict(session& s) {
  if (evicted_.size() == evicted_remembered)
    evicted_.pop_front();
  evicted_.push_back(s.id);
  drop(s);
}

void session_table::drop(session& s) {
  truncate(s, 0);
  by_id_.erase(s.id);
  const int32_t slot = s.slot;
  free_slots_.push_back(slot);
  slots_[static_cast<size_t>(slot)].reset();
}

} // namespace neuroshard::model
