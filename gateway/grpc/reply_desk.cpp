#include "gateway/grpc/reply_desk.hpp"

#include "actors/common/error.hpp"
#include "gateway/grpc/own_thread.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_companion.hpp>
#include <caf/mailbox_element.hpp>
#include <caf/spawn_options.hpp>

#include <utility>
#include <vector>

namespace neuroshard::rpc {

namespace {

/// How often those that wait in vain are looked for; an actor that died without a word is rare.
constexpr auto sweep_every = std::chrono::milliseconds(200);

} // namespace

reply_desk::reply_desk(caf::actor_system& system) : ear_(system.spawn<caf::actor_companion, caf::hidden>()) {
  caf::actor_cast<caf::actor_companion*>(ear_)->on_enqueue(
      [held = shared_](const caf::mailbox_element_ptr& element) {
        if (!element->mid.is_response())
          return;
        handler on_reply;
        {
          const std::lock_guard hold{held->lock};
          const auto at = held->waiting.find(element->mid.request_id().integer_value());
          if (at == held->waiting.end())
            return;
          on_reply = std::move(at->second.on_reply);
          held->waiting.erase(at);
        }
        auto content = element->move_content_to_message();
        if (content.match_elements<caf::error>())
          on_reply(std::move(content.get_mutable_as<caf::error>(0)));
        else
          on_reply(std::move(content));
      });
}

reply_desk::~reply_desk() {
  close(); // whoever still holds the ear speaks to nobody; it goes with the last of them
}

void reply_desk::ask(const caf::strong_actor_ptr& to, caf::message what, std::chrono::milliseconds patience,
                     handler on_reply) {
  const auto now = std::chrono::steady_clock::now();
  std::vector<handler> late;
  uint64_t id = 0;
  {
    const std::lock_guard hold{shared_->lock};
    if (shared_->closed)
      return;
    if (now - shared_->swept > sweep_every) {
      shared_->swept = now;
      for (auto at = shared_->waiting.begin(); at != shared_->waiting.end();)
        if (at->second.until < now) {
          late.push_back(std::move(at->second.on_reply));
          at = shared_->waiting.erase(at);
        } else {
          ++at;
        }
    }
    id = shared_->next++;
    shared_->waiting.emplace(id, entry{std::move(on_reply), now + patience});
  }
  for (const auto& one : late)
    one(refuse(errc::timeout, "This part of the node did not answer in time."));
  send_and_run(to, caf::actor_cast<caf::strong_actor_ptr>(ear_), caf::make_message_id(id), std::move(what));
}

void reply_desk::close() {
  std::map<uint64_t, entry> dropped;
  const std::lock_guard hold{shared_->lock};
  shared_->closed = true;
  dropped.swap(shared_->waiting);
}

} // namespace neuroshard::rpc
