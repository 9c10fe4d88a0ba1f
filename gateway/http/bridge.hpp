#pragma once

#include "actors/common/error.hpp"
#include "gateway/http/exchange.hpp"
#include "gateway/http/task.hpp"

#include <caf/actor.hpp>
#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/duration.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/type_id.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

namespace neuroshard::http {

/// A request that the bridge is to make of another actor on a handler's behalf.
class bridge_call {
public:
  virtual ~bridge_call() = default;
  /// On the bridge's thread: sends the request and arranges for its reply.
  virtual void run(caf::event_based_actor* self) = 0;
};
using bridge_call_ptr = std::shared_ptr<bridge_call>;

} // namespace neuroshard::http

CAF_BEGIN_TYPE_ID_BLOCK(neuroshard_http, caf::first_custom_type_id + 950)
CAF_ADD_TYPE_ID(neuroshard_http, (neuroshard::http::bridge_call_ptr))
CAF_END_TYPE_ID_BLOCK(neuroshard_http)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(neuroshard::http::bridge_call_ptr)

namespace neuroshard::http {

/// The one actor through which the gateway's threads talk to all others: no scoped actor per request. Thread
/// safe.
class bridge {
public:
  explicit bridge(caf::actor_system& system);
  ~bridge();
  bridge(const bridge&) = delete;
  bridge& operator=(const bridge&) = delete;
  void submit(bridge_call_ptr call);
  /// Sends a message that nobody answers.
  template <class Handle, class Message>
  void tell(const Handle& to, Message message);

private:
  caf::actor worker_;
};

/// What a reply and the coroutine that waits for it share; the reply is filled in on the lane.
template <class Reply>
struct asked {
  lane_ptr home;
  waker wait;
  std::optional<caf::expected<Reply>> reply;
  /// Set when nobody waits any more: a reply that comes then goes here, to undo what it says was done.
  std::function<void(Reply&)> too_late;
};

/// Completes `asked` exactly once; a call that is dropped unanswered (bridge gone, system stopping) says
/// `unavailable`.
template <class Reply, class Handle, class... Ts>
class request_call final : public bridge_call,
                           public std::enable_shared_from_this<request_call<Reply, Handle, Ts...>> {
public:
  request_call(std::shared_ptr<asked<Reply>> answer, Handle to, caf::duration timeout, Ts... message)
      : answer_(std::move(answer)), to_(std::move(to)), timeout_(timeout), message_(std::move(message)...) {}
  ~request_call() override {
    complete(refuse(errc::unavailable, "This part of the node is not there at the moment."));
  }

  void run(caf::event_based_actor* self) override {
    const auto me = this->shared_from_this();
    std::apply(
        [&](Ts&... parts) {
          self->request(to_, timeout_, std::move(parts)...)
              .then([me](Reply& value) { me->complete(std::move(value)); },
                    [me](caf::error& why) { me->complete(std::move(why)); });
        },
        message_);
  }

private:
  void complete(caf::expected<Reply> value) {
    if (auto answer = std::exchange(answer_, nullptr)) {
      const lane_ptr home = answer->home;
      home->post([answer = std::move(answer), value = std::move(value)]() mutable {
        if (answer->too_late) {
          if (value)
            answer->too_late(*value);
          return;
        }
        answer->reply.emplace(std::move(value));
        answer->wait.wake();
      });
    }
  }

  std::shared_ptr<asked<Reply>> answer_;
  Handle to_;
  caf::duration timeout_;
  std::tuple<Ts...> message_;
};

/// `co_await ask<Reply>(bridge, home, actor, timeout_ms, message...)`: the actor's reply or an error, on the
/// lane. An empty handle is `not_ready`.
template <class Reply, class Handle, class... Ts>
task<caf::expected<Reply>> ask(bridge& through, lane_ptr home, Handle to, int64_t timeout_ms, Ts... message) {
  if (!to)
    co_return caf::expected<Reply>(refuse(errc::not_ready, "The node is still starting."));
  auto answer = std::make_shared<asked<Reply>>();
  answer->home = std::move(home);
  through.submit(std::make_shared<request_call<Reply, Handle, Ts...>>(
      answer, std::move(to), caf::duration(std::chrono::milliseconds(timeout_ms)), std::move(message)...));
  while (!answer->reply)
    co_await until_woken{answer->wait};
  co_return std::move(*answer->reply);
}

/// Likewise for a request whose reply says that something was begun. After the time the answer is `timeout`,
/// and a reply that comes later is given to `undo`, on the lane. Uses the connection's `wake_after`.
template <class Reply, class Handle, class Message>
task<caf::expected<Reply>> ask_or_undo(bridge& through, connection& link, Handle to, int64_t timeout_ms,
                                       std::function<void(Reply&)> undo, Message message) {
  if (!to)
    co_return caf::expected<Reply>(refuse(errc::not_ready, "The node is still starting."));
  auto answer = std::make_shared<asked<Reply>>();
  answer->home = link.home();
  link.wake_after(timeout_ms, [answer, undo] {
    if (answer->reply)
      return;
    answer->too_late = undo;
    answer->reply.emplace(refuse(errc::timeout, "The node took too long to begin."));
    answer->wait.wake();
  });
  through.submit(std::make_shared<request_call<Reply, Handle, Message>>(
      answer, std::move(to), caf::duration(caf::infinite), std::move(message)));
  while (!answer->reply)
    co_await until_woken{answer->wait};
  co_return std::move(*answer->reply);
}

template <class Handle, class Message>
class tell_call final : public bridge_call {
public:
  tell_call(Handle to, Message message) : to_(std::move(to)), message_(std::move(message)) {}
  void run(caf::event_based_actor* self) override { self->send(to_, std::move(message_)); }

private:
  Handle to_;
  Message message_;
};

template <class Handle, class Message>
void bridge::tell(const Handle& to, Message message) {
  if (to)
    submit(std::make_shared<tell_call<Handle, Message>>(to, std::move(message)));
}

} // namespace neuroshard::http
