#pragma once

#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/signing_crew.hpp"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace neuroshard {

/// A transaction that is not in the store yet: it waits for its signature, and its hash for those before it.
struct unwritten_transaction {
  transaction row;
  std::string payload;
  uint64_t ticket = 0; ///< of its signature
  int64_t from_id = 0;
  int64_t to_id = 0;
  std::vector<posting> postings;
  std::vector<int64_t> account_ids;
  std::optional<history_type> seen_as; ///< in the history of `seen_by`
  int64_t seen_by = 0;
  int32_t day = 0;
};

/// What is left to be written of a group when its last operation is applied.
struct group_rest {
  std::deque<unwritten_transaction> transactions;
  std::vector<account_row> accounts;
  totals_row totals;
};

/// Ends groups: waits for the signatures, chains and writes the transactions, commits. Either on the caller's
/// thread or on one of its own, so that the next group is applied and signed meanwhile; the store is the
/// writer's while `busy`. One thread calls all of it.
class group_writer {
public:
  group_writer(ledger_store& store, signing_crew& crew) : store_(store), crew_(crew) {}
  /// Waits for the group under way.
  ~group_writer();
  group_writer(const group_writer&) = delete;
  group_writer& operator=(const group_writer&) = delete;

  /// The hash the next transaction is chained to.
  void set_head(const digest& hash) { hash_ = hash; }
  const digest& head() const noexcept { return hash_; }

  /// Signatures, hashes and rows, without a commit.
  void append(std::deque<unwritten_transaction>& transactions);
  /// All of it. After an error the store is as it is: to be rolled back.
  caf::error write(group_rest& group);

  /// `write` on the writer's own thread; `written` is called there after it. Nothing may be under way.
  void start(group_rest group, std::function<void()> written);
  bool busy() const noexcept { return busy_.load(std::memory_order_acquire); }
  void wait();
  /// The outcome of the group that was started last, after waiting for it.
  caf::error outcome();

private:
  void work();

  ledger_store& store_;
  signing_crew& crew_;
  digest hash_{};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> busy_{false};
  bool ending_ = false;
  group_rest group_;
  std::function<void()> written_;
  caf::error outcome_;
  std::thread thread_; ///< begun with the first group it writes
};

} // namespace neuroshard
