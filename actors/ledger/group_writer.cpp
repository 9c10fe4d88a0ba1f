#include "actors/ledger/group_writer.hpp"

#include <utility>

namespace neuroshard {

group_writer::~group_writer() {
  if (!thread_.joinable())
    return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void group_writer::append(std::deque<unwritten_transaction>& transactions) {
  for (auto& each : transactions) {
    crew_.finish(each.ticket);
    each.row.hash = row_hash(hash_, each.row.seq, each.payload, each.row.sig, postings_hash(each.postings));
    hash_ = each.row.hash;
    store_.append(each.row, each.from_id, each.to_id, each.postings, each.account_ids);
    if (each.seen_as)
      store_.add_history(each.seen_by, *each.seen_as, each.row.seq, each.day);
  }
  transactions.clear();
}

caf::error group_writer::write(group_rest& group) {
  append(group.transactions);
  for (auto& row : group.accounts)
    store_.save_account(row);
  store_.save_totals(group.totals);
  return store_.commit() ? caf::error{} : store_.fault();
}

void group_writer::start(group_rest group, std::function<void()> written) {
  if (!thread_.joinable())
    thread_ = std::thread([this] { work(); });
  {
    const std::lock_guard lock(mutex_);
    group_ = std::move(group);
    written_ = std::move(written);
    busy_ = true;
  }
  changed_.notify_all();
}

void group_writer::wait() {
  if (!busy())
    return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !busy(); });
}

caf::error group_writer::outcome() {
  wait();
  return std::exchange(outcome_, {});
}

void group_writer::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || busy(); });
    if (!busy())
      return;
    lock.unlock();
    outcome_ = write(group_);
    const auto written = std::exchange(written_, {});
    lock.lock();
    busy_.store(false, std::memory_order_release);
    changed_.notify_all();
    lock.unlock();
    if (written)
      written();
    lock.lock();
  }
}

} // namespace neuroshard
