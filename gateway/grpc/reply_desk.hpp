#pragma once

#include <caf/actor.hpp>
#include <caf/actor_system.hpp>
#include <caf/expected.hpp>
#include <caf/message.hpp>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>

namespace neuroshard::rpc {

/// Asks actors and hears their replies on the thread they are sent from: no actor of ours lies between a call
/// and the actor that answers it. For calls whose way through the bridge would show. Thread safe.
class reply_desk {
public:
  /// Is called once, or dropped: at the end, or when `patience` is over and somebody asks again.
  using handler = std::function<void(caf::expected<caf::message>)>;

  explicit reply_desk(caf::actor_system& system);
  ~reply_desk();
  reply_desk(const reply_desk&) = delete;

  void ask(const caf::strong_actor_ptr& to, caf::message what, std::chrono::milliseconds patience,
           handler on_reply);
  /// Drops every handler that waits; what is asked from now on is dropped at once.
  void close();

private:
  struct entry {
    handler on_reply;
    std::chrono::steady_clock::time_point until;
  };
  struct shared {
    std::mutex lock;
    bool closed = false;
    uint64_t next = 1;
    std::map<uint64_t, entry> waiting;
    std::chrono::steady_clock::time_point swept;
  };

  std::shared_ptr<shared> shared_ = std::make_shared<shared>();
  caf::actor ear_;
};

} // namespace neuroshard::rpc
