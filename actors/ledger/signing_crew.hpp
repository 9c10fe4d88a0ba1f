#pragma once

#include "actors/identity/node_identity.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace neuroshard {

/// Signs transactions on every core, from the moment they are applied: a signature costs more than all else
/// that a transaction does. The threads sleep while there are too few to be worth waking them for. One thread
/// adds; any may wait.
class signing_crew {
public:
  /// `threads` beside those that wait.
  signing_crew(std::shared_ptr<const node_identity> identity, unsigned threads);
  ~signing_crew();
  signing_crew(const signing_crew&) = delete;
  signing_crew& operator=(const signing_crew&) = delete;

  /// One beside the caller for each further core.
  static unsigned threads_here() noexcept;

  /// Asks for the wallet's signature of a transaction payload; both must stay where they are until `finish`
  /// of the ticket, which counts from 1.
  uint64_t add(const std::string& payload, signature& to);
  /// Waits for the signatures up to this ticket, and signs while it waits.
  void finish(uint64_t ticket);

private:
  struct job {
    const std::string* payload;
    signature* to;
    bool done = false;
  };
  void work();
  /// How many wait for a thread.
  size_t unsigned_jobs() const noexcept { return jobs_.size() - (next_ - first_); }
  /// Signs the next job, which must be there; the lock is given up meanwhile.
  void sign_next(std::unique_lock<std::mutex>& lock);

  std::shared_ptr<const node_identity> identity_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable done_;
  std::deque<job> jobs_;
  uint64_t first_ = 1; ///< ticket of jobs_.front(); all before it are signed
  uint64_t next_ = 1;  ///< the next that a thread takes
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

} // namespace neuroshard
