#include "gateway/node/main_loop.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <utility>

namespace neuroshard {

main_loop::main_loop() {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int s : {SIGINT, SIGTERM, SIGHUP})
    sigaddset(&mask, s);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  struct sigaction ignore = {};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &ignore, nullptr);
  signals_ = ::signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (signals_ < 0 || wake_ < 0)
    std::abort(); // Out of descriptors before anything was opened.
}

main_loop::~main_loop() {
  ::close(signals_);
  ::close(wake_);
}

void main_loop::post(std::function<void()> work) {
  {
    const std::lock_guard hold(guard_);
    posted_.push_back(std::move(work));
  }
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_, &one, sizeof one);
}

void main_loop::run(const std::function<void(int)>& on_signal, const std::function<void()>& on_tick,
                    int tick_ms) {
  while (!ended_) {
    pollfd watched[2] = {{signals_, POLLIN, 0}, {wake_, POLLIN, 0}};
    ::poll(watched, 2, tick_ms);
    signalfd_siginfo info{};
    while (!ended_ && ::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
      on_signal(static_cast<int>(info.ssi_signo));
    uint64_t count = 0;
    [[maybe_unused]] const auto drained = ::read(wake_, &count, sizeof count);
    std::deque<std::function<void()>> work;
    {
      const std::lock_guard hold(guard_);
      work.swap(posted_);
    }
    for (auto& next : work)
      if (!ended_)
        next();
    if (!ended_)
      on_tick();
  }
}

} // namespace neuroshard
