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

void signing_crew::add(const std::string& payload, signature& to) {
  size_t waiting = 0;
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({&payload, &to});
    waiting = jobs_.size();
  }
  if (waiting >= worth_waking_for)
    wanted_.notify_one();
}

void signing_crew::finish() {
  std::unique_lock lock(mutex_);
  while (sign_one(lock)) {
  }
  done_.wait(lock, [this] { return in_work_ == 0; });
}

void signing_crew::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_.wait(lock, [this] { return ending_ || jobs_.size() >= worth_waking_for; });
    if (ending_)
      return;
    while (sign_one(lock)) {
    }
  }
}

bool signing_crew::sign_one(std::unique_lock<std::mutex>& lock) {
  if (jobs_.empty())
    return false;
  const job next = jobs_.front();
  jobs_.pop_front();
  ++in_work_;
  lock.unlock();
  *next.to = identity_->sign_as_wallet(transaction_tag, *next.payload);
  lock.lock();
  if (--in_work_ == 0)
    done_.notify_all();
  return true;
}

} // namespace neuroshard
