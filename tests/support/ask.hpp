#pragma once

#include "actors/common/error.hpp"
#include "tests/support/test.hpp"

#include <caf/all.hpp>

#include <optional>
#include <type_traits>
#include <utility>

namespace neuroshard::test {

/// The answer to a request: a value, or the error it was refused with.
template <class Reply>
struct answer {
  std::optional<Reply> value;
  caf::error refused;

  explicit operator bool() const { return value.has_value(); }
  Reply& operator*() { return *value; }
  Reply* operator->() { return &*value; }
  const Reply& operator*() const { return *value; }
  const Reply* operator->() const { return &*value; }
  errc code() const { return code_of(refused); }
  std::string reason() const { return problem_of(refused).reason; }
};

/// A request that was sent and is not yet answered, so that a test can do something before it is.
template <class Reply, class Handle>
class asked {
public:
  explicit asked(Handle response) : response_(std::move(response)) {}
  /// Precondition: the answer has come.
  answer<Reply> receive() {
    answer<Reply> got;
    const auto refused = [&](caf::error& e) { got.refused = std::move(e); };
    if constexpr (std::is_same_v<Reply, caf::unit_t>)
      response_.receive([&] { got.value = caf::unit; }, refused);
    else
      response_.receive([&](Reply& r) { got.value = std::move(r); }, refused);
    return got;
  }

private:
  Handle response_;
};

template <class Reply, class Fixture, class Actor, class... Ts>
auto ask_later(Fixture& f, const Actor& whom, Ts&&... message) {
  auto response = f.self->request(whom, caf::infinite, std::forward<Ts>(message)...);
  return asked<Reply, decltype(response)>(std::move(response));
}

/// Sends a request and runs the system until nothing is left to do. caf::unit_t stands for an answer without
/// content.
template <class Reply, class Fixture, class Actor, class... Ts>
answer<Reply> ask(Fixture& f, const Actor& whom, Ts&&... message) {
  auto pending = ask_later<Reply>(f, whom, std::forward<Ts>(message)...);
  f.sched.run();
  return pending.receive();
}

} // namespace neuroshard::test
