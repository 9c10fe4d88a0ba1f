#include "gateway/http/blocking.hpp"

namespace neuroshard::http {

namespace {
constexpr size_t waiting_max = 256;
}

blocking_worker::blocking_worker() : thread_([this] { run(); }) {}

blocking_worker::~blocking_worker() {
  stop();
}

void blocking_worker::stop() {
  {
    const std::lock_guard hold(guard_);
    stopping_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable())
    thread_.join();
}

bool blocking_worker::submit(std::function<void()> job) {
  {
    const std::lock_guard hold(guard_);
    if (stopping_ || jobs_.size() >= waiting_max)
      return false;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

void blocking_worker::run() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock hold(guard_);
      changed_.wait(hold, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_)
        return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

} // namespace neuroshard::http
