#pragma once

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <vector>

namespace neuroshard::test {

/// An actor system without threads: a test steps messages with `sched.run()` and moves timers with
/// `sched.advance_time()`. Spawn no detached actor in it: those would run on threads of their own. IdBlocks:
/// the type-id blocks the test's messages need.
template <class... IdBlocks>
struct deterministic {
  struct config : caf::actor_system_config {
    config() {
      (add_message_types<IdBlocks>(), ...);
      set("scheduler.policy", caf::atom("testing"));
    }
  };
  config cfg;
  caf::actor_system sys{cfg};
  caf::scheduler::test_coordinator& sched = dynamic_cast<caf::scheduler::test_coordinator&>(sys.scheduler());
  caf::scoped_actor self{sys};

  /// Spawned actors are handed through here, so that they end with the fixture, also when a check has thrown:
  /// an actor system waits for its actors, and a test must fail rather than hang.
  template <class Handle>
  Handle keep(Handle actor) {
    kept_.push_back(caf::actor_cast<caf::strong_actor_ptr>(actor));
    return actor;
  }
  ~deterministic() {
    for (auto& actor : kept_)
      caf::anon_send_exit(actor, caf::exit_reason::kill);
    sched.run();
  }

private:
  std::vector<caf::strong_actor_ptr> kept_;
};

} // namespace neuroshard::test
