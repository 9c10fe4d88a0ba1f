#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/exchange.hpp"
#include "gateway/http/task.hpp"

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace neuroshard::http {

/// A thread for what may take milliseconds (reads of the book, key derivation) and must not hold up a lane.
/// Bounded.
class blocking_worker {
public:
  blocking_worker();
  ~blocking_worker();
  blocking_worker(const blocking_worker&) = delete;
  blocking_worker& operator=(const blocking_worker&) = delete;
  /// False when too much is waiting already.
  bool submit(std::function<void()> job);
  /// Ends the thread after the job in hand; what waits is dropped. Called before what the jobs use goes.
  void stop();

private:
  void run();
  std::mutex guard_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

template <class T>
struct blocking_result {
  waker wait;
  std::optional<caf::expected<T>> value;
};

/// `co_await run_blocking<T>(worker, home, fn)`: what `fn` returned (caf::expected<T>), or `overloaded`.
template <class T, class F>
task<caf::expected<T>> run_blocking(blocking_worker& worker, lane_ptr home, F fn) {
  auto result = std::make_shared<blocking_result<T>>();
  const bool taken = worker.submit([result, home, fn = std::move(fn)]() mutable {
    auto value = std::make_shared<caf::expected<T>>(refuse(errc::internal, "The read failed."));
    try {
      *value = fn();
    } catch (const std::exception&) { // out of memory: the refusal above stands
    }
    home->post([result, value] {
      result->value.emplace(std::move(*value));
      result->wait.wake();
    });
  });
  if (!taken)
    co_return caf::expected<T>(refuse(errc::overloaded, "Too many reads are waiting."));
  while (!result->value)
    co_await until_woken{result->wait};
  co_return std::move(*result->value);
}

} // namespace neuroshard::http
