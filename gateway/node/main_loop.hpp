#pragma once

#include <array>
#include <csignal>
#include <deque>
#include <functional>
#include <mutex>

namespace neuroshard {

/// The thread of main: runs what others post to it, takes the process's signals, and ticks. One per process;
/// made before any other thread, because it blocks the signals for all of them.
class main_loop {
public:
  /// Blocks SIGINT, SIGTERM and SIGHUP for this thread and its children, ignores SIGPIPE.
  main_loop();
  ~main_loop();
  main_loop(const main_loop&) = delete;
  main_loop& operator=(const main_loop&) = delete;

  /// Any thread. Run on the thread of main, in order. Dropped after the loop has ended.
  void post(std::function<void()> work);
  /// Runs until `end`. `on_signal` gets SIGINT, SIGTERM, SIGHUP; `on_tick` is called about every `tick_ms`.
  void run(const std::function<void(int)>& on_signal, const std::function<void()>& on_tick, int tick_ms);
  /// From the loop's own thread.
  void end() { ended_ = true; }

private:
  int signals_ = -1;
  int wake_ = -1;
  bool ended_ = false;
  std::mutex guard_;
  std::deque<std::function<void()>> posted_;
};

} // namespace neuroshard
