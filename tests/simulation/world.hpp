#pragma once

#include "actors/common/clock.hpp"
#include "tests/simulation/dice.hpp"
#include "tests/support/manual_clock.hpp"

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// One process, one thread, one seed: actors, time, network and faults of a simulated cluster. Which actor
/// runs next, how long a message takes, what breaks and when are all drawn from the seed, so that a seed that
/// fails fails again.
namespace neuroshard::simulation {

inline constexpr int64_t ms_us = 1'000;
inline constexpr int64_t second_us = 1'000'000;

/// What has happened, as a hash; as lines on standard output where asked for.
class trace {
public:
  explicit trace(bool printed) : printed_(printed) {}
  /// A number that makes this run what it is.
  void count(uint64_t value) noexcept {
    for (int i = 0; i < 8; ++i, value >>= 8)
      hash_ = (hash_ ^ (value & 0xff)) * 0x100000001b3ULL;
  }
  void say(int64_t now_us, std::string_view line);
  uint64_t hash() const noexcept { return hash_; }

private:
  bool printed_;
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

/// A node's own clock: its wall clock may be off.
class skewed_clock final : public time_source {
public:
  skewed_clock(std::shared_ptr<const test::manual_clock> of, int64_t unix_off_us)
      : of_(std::move(of)), off_us_(unix_off_us) {}
  int64_t unix_us() const override { return of_->unix_us() + off_us_; }
  int64_t steady_us() const override { return of_->steady_us(); }

private:
  std::shared_ptr<const test::manual_clock> of_;
  int64_t off_us_;
};

/// Actors and time. Everything runs on the thread that calls run().
class world {
public:
  world(uint64_t seed, bool trace_printed);
  ~world();
  world(const world&) = delete;
  world& operator=(const world&) = delete;

  caf::actor_system& system() noexcept { return system_; }
  dice& random() noexcept { return random_; }
  const std::shared_ptr<test::manual_clock>& clock() const noexcept { return clock_; }
  /// Since the world began.
  int64_t now_us() const noexcept { return now_us_; }
  uint64_t messages() const noexcept { return messages_; }

  template <class... Ts>
  void note(fmt::format_string<Ts...> format, Ts&&... args) {
    trace_.say(now_us_, fmt::format(format, std::forward<Ts>(args)...));
  }
  uint64_t trace_hash() const noexcept { return trace_.hash(); }

  /// Runs something outside of all actors, later.
  void after(int64_t us, std::function<void()> what);
  /// Lets time pass, message by message.
  void run(int64_t us) {
    run_until(us, [] { return false; });
  }
  /// The same until it is so, looking each second; whether it is.
  bool run_until(int64_t us, const std::function<bool()>& done);

  /// Actors spawned are handed through here; they end with the world.
  template <class Handle>
  Handle keep(Handle actor) {
    kept_.push_back(caf::actor_cast<caf::strong_actor_ptr>(actor));
    return actor;
  }
  /// Ends actors at once, whatever they have in their mailboxes, as a process that is killed does.
  void kill(const std::vector<caf::strong_actor_ptr>& actors);
  /// Most messages that have waited at one actor, so far.
  size_t waiting_most() const noexcept { return waiting_most_; }

  /// Asks an actor; `then` gets the answer, or nothing when it refused or has ended. caf::unit_t stands for
  /// an answer without content.
  template <class Reply, class Actor, class... Ts>
  void request(const Actor& whom, std::function<void(std::optional<Reply>)> then, Ts... message) {
    system_.spawn([=](caf::event_based_actor* self) {
      // What an actor has promised and does not live to answer is never answered.
      self->set_down_handler([self, then](const caf::down_msg&) {
        then(std::nullopt);
        self->quit();
      });
      self->monitor(whom);
      const auto refused = [then](const caf::error&) { then(std::nullopt); };
      if constexpr (std::is_same_v<Reply, caf::unit_t>)
        self->request(whom, caf::infinite, message...).then([then] { then(caf::unit); }, refused);
      else
        self->request(whom, caf::infinite, message...)
            .then([then](Reply& reply) { then(std::move(reply)); }, refused);
    });
  }
  /// The same of an actor that answers without time passing; nothing when it does not.
  template <class Reply, class Actor, class... Ts>
  std::optional<Reply> ask(const Actor& whom, Ts... message) {
    auto got = std::make_shared<std::optional<Reply>>();
    request<Reply>(
        whom, [got](std::optional<Reply> reply) { *got = std::move(reply); }, std::move(message)...);
    run_ready();
    return *got;
  }

private:
  struct config;
  void run_ready();
  int64_t next_event_us() const;

  dice random_;
  dice schedule_;
  trace trace_;
  std::shared_ptr<test::manual_clock> clock_ = std::make_shared<test::manual_clock>();
  std::unique_ptr<config> config_;
  caf::actor_system system_;
  caf::scheduler::test_coordinator& scheduler_;
  caf::actor_clock::time_point began_;
  int64_t now_us_ = 0;
  uint64_t messages_ = 0;
  size_t waiting_most_ = 0;
  std::multimap<int64_t, std::function<void()>> events_;
  std::vector<caf::strong_actor_ptr> kept_;
};

} // namespace neuroshard::simulation
