#include "actors/ledger/signing_crew.hpp"

#include "actors/ledger/records.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

constexpr size_t worth_waking_for = 4;
constexpr unsigned threads_max = 15;

} // namespace

signing_crew::signing_crew(std::shared_ptr<const node_identity> identity, unsigned threads)
    : identity_(std::move(identity)) {
  for (unsigned i = 0; i < threads; ++i)
    threads_.emplace_back([this] { work(); });
}

signing_crew::~signing_crew() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wanted_.notify_all();
  for (auto& thread : threads_)
    thread.join();
}

unsigned signing_crew::threads_here() noexcept {
  return std::clamp(std::thread::hardware_concurrency(), 1U, threads_max + 1) - 1;
}

uint64_t signing_crew::add(const std::string& payload, signature& to) {
  size_t waiting = 0;
  uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({&payload, &to});
    ticket = first_ + jobs_.size() - 1;
    waiting = unsigned_jobs();
  }
  if (waiting >= worth_waking_for)
    wanted_.notify_one();
  return ticket;
}

void signing_crew::finish(uint64_t ticket) {
  std::unique_lock lock(mutex_);
  while (first_ <= ticket)
    if (unsigned_jobs() > 0)
      sign_next(lock);
    else
      done_.wait(lock);
}

void signing_crew::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(lock, [this] { return ending_ || unsigned_jobs() >= worth_waking_for; });
    if (ending_)
      return;
    while (unsigned_jobs() > 0)
      sign_next(lock);
  }
}

void signing_crew::sign_next(std::unique_lock<std::mutex>& lock) {
  const uint64_t ticket = next_++;
  const job mine = jobs_[ticket - first_];
  lock.unlock();
  *mine.to = identity_->sign_as_wallet(transaction_tag, *mine.payload);
  lock.lock();
  jobs_[ticket - first_].done = true;
  const uint64_t before = first_;
  for (; !jobs_.empty() && jobs_.front().done; ++first_)
    jobs_.pop_front();
  if (first_ != before)
    done_.notify_all();
}

} // namespace neuroshard
