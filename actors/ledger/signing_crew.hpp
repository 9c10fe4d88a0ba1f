#pragma once

#include "actors/identity/node_identity.hpp"

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace neuroshard {

/// Signs the transactions of a group on every core: a signature costs more than all else that a transaction
/// does. The threads sleep while there are too few to be worth waking them for.
class signing_crew {
public:
  /// `threads` beside the caller's own.
  signing_crew(std::shared_ptr<const node_identity> identity, unsigned threads);
  ~signing_crew();
  signing_crew(const signing_crew&) = delete;
  signing_crew& operator=(const signing_crew&) = delete;

  /// One beside the caller for each further core.
  static unsigned threads_here() noexcept;

  /// Asks for the wallet's signature of a transaction payload; both must stay where they are until `finish`.
  void add(const std::string& payload, signature& to);
  /// Takes part in what is left and waits for the rest.
  void finish();

private:
  struct job {
    const std::string* payload;
    signature* to;
  };
  void work();
  /// Signs one job if there is any; the lock is given up meanwhile.
  bool sign_one(std::unique_lock<std::mutex>& lock);

  std::shared_ptr<const node_identity> identity_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::condition_variable done_;
  std::deque<job> jobs_;
  size_t in_work_ = 0;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

} // namespace neuroshard
