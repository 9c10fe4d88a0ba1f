#include "gateway/grpc/own_thread.hpp"

#include <caf/actor_system.hpp>
#include <caf/execution_unit.hpp>
#include <caf/resumable.hpp>
#include <caf/scheduled_actor.hpp>
#include <caf/scheduler/abstract_coordinator.hpp>

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace neuroshard::rpc {

namespace {

/// What an actor may take off its mailbox before others have their turn.
constexpr size_t messages_at_once = 16;
/// After this the network waits no longer for actors: they go on on CAF's threads.
constexpr auto moment = std::chrono::milliseconds(1);

class runner;
/// The runner that is at work on this thread.
thread_local runner* at_work = nullptr;

/// A thread as one of CAF's execution units. Runs what is woken in the order it is woken in.
class runner final : public caf::execution_unit {
public:
  /// An actor keeps the address of what ran it last, and others may come to use it: then the actor is for
  /// CAF.
  void exec_later(caf::resumable* job) override {
    if (at_work == this)
      woken_.push_back(job);
    else
      hand_over(job);
  }
  void run() {
    const auto until = std::chrono::steady_clock::now() + moment;
    while (!woken_.empty()) {
      auto* const job = woken_.front();
      woken_.pop_front();
      if (std::chrono::steady_clock::now() >= until) {
        hand_over(job);
        continue;
      }
      switch (job->resume(this, messages_at_once)) {
      case caf::resumable::resume_later:
        hand_over(job);
        break;
      case caf::resumable::awaiting_message:
      case caf::resumable::done:
        intrusive_ptr_release(job);
        break;
      case caf::resumable::shutdown_execution_unit: // is told to CAF's own threads alone
        break;
      }
    }
  }

private:
  /// Gives it, and the reference that comes with it, to CAF's threads. Whatever is woken is an actor.
  static void hand_over(caf::resumable* job) {
    auto* const actor = static_cast<caf::scheduled_actor*>(job);
    actor->home_system().scheduler().enqueue(actor);
  }

  std::deque<caf::resumable*> woken_;
};

/// Runners of the threads that have ended are for those to come; none is ever destroyed, see exec_later().
class runner_pool {
public:
  runner* take() {
    const std::lock_guard hold{lock_};
    if (free_.empty())
      free_.push_back(all_.emplace_back(std::make_unique<runner>()).get());
    auto* const taken = free_.back();
    free_.pop_back();
    return taken;
  }
  void give_back(runner* unused) {
    const std::lock_guard hold{lock_};
    free_.push_back(unused);
  }

private:
  std::mutex lock_;
  std::vector<std::unique_ptr<runner>> all_;
  std::vector<runner*> free_;
};

runner_pool& pool() {
  static auto& made = *new runner_pool;
  return made;
}

struct runner_of_thread {
  runner* mine = pool().take();
  ~runner_of_thread() { pool().give_back(mine); }
};

} // namespace

void send_and_run(const caf::strong_actor_ptr& to, caf::strong_actor_ptr from, caf::message_id id,
                  caf::message what) {
  if (at_work)
    return to->enqueue(std::move(from), id, std::move(what), at_work);
  thread_local runner_of_thread own;
  at_work = own.mine;
  to->enqueue(std::move(from), id, std::move(what), at_work);
  own.mine->run();
  at_work = nullptr;
}

} // namespace neuroshard::rpc
