#pragma once

#include "kernels/model/serving_copy.hpp"

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

/// Private to kernels/model: who owns which blocks of the KV pool. Plain bookkeeping, no device.
namespace neuroshard::model {

using session_time = std::chrono::steady_clock::time_point;

/// One KV cache. Its block table is row `slot` of the table that the kernels read.
struct session {
  std::string id;
  int32_t slot = 0;
  int64_t length = 0; ///< positions held
  int64_t blocks = 0; ///< blocks owned; the first entries of its row
  serving_ptr weights;
  session_time last_use;
  bool busy = false;    ///< part of a call under way: neither evicted nor freed
  bool closing = false; ///< to be freed when that call ends
};

class session_table {
public:
  /// A session makes room for another only when it was last used at least `idle_after` ago: one that is
  /// generating, which between two calls is not busy, never does. 0: whenever it is not busy.
  session_table(int64_t sessions_max, int64_t blocks_total, int64_t blocks_per_session,
                session_time::duration idle_after = {});

  /// Null when unknown.
  session* find(std::string_view id);
  const session* find(std::string_view id) const;
  /// Whether it was evicted, as far as remembered (the last 1,024).
  bool was_evicted(std::string_view id) const;
  /// A new empty session; the oldest idle one makes room. Null when none is idle. Precondition: unknown id.
  session* create(std::string id, serving_ptr weights, session_time now);
  /// Gives the session blocks for `positions`, evicting the oldest idle others. False when that cannot be;
  /// then it keeps what it had. Newly given entries of its row: [previous blocks, blocks).
  bool reserve(session& s, int64_t positions, session_time now = {});
  /// Forgets positions from `length` on, and blocks that held only such.
  void truncate(session& s, int64_t length);
  /// Frees the session, or marks it when busy. False when unknown.
  bool release(std::string_view id);
  /// Ends a call: no longer busy; frees it when it was to be closed.
  void settle(session& s);
  size_t expire(session_time idle_since);
  size_t retire_copies_before(uint64_t copy_id);

  size_t size() const noexcept { return by_id_.size(); }
  int64_t blocks_total() const noexcept { return blocks_total_; }
  int64_t blocks_free() const noexcept { return static_cast<int64_t>(free_blocks_.size()); }
  int64_t blocks_per_session() const noexcept { return blocks_per_session_; }
  int64_t sessions_max() const noexcept { return static_cast<int64_t>(slots_.size()); }
  /// The block table: sessions_max rows of blocks_per_session entries. Stays where it is.
  const int32_t* row(const session& s) const noexcept {
    return &table_[static_cast<size_t>(s.slot * blocks_per_session_)];
  }

private:
  int32_t* own_row(const session& s) noexcept {
    return &table_[static_cast<size_t>(s.slot * blocks_per_session_)];
  }
  bool idle(const session& s, session_time now) const noexcept;
  session* oldest_idle(const session* but_not, session_time now);
  void evict(session& s);
  void drop(session& s);

  int64_t blocks_total_;
  int64_t blocks_per_session_;
  session_time::duration idle_after_;
  std::vector<std::optional<session>> slots_;
  std::vector<int32_t> free_slots_;
  std::vector<int32_t> free_blocks_;
  std::vector<int32_t> table_;
  std::unordered_map<std::string, int32_t> by_id_;
  std::deque<std::string> evicted_;
};

} // namespace neuroshard::model
