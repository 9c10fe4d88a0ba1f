#include "gateway/grpc/own_thread.hpp"

#include "tests/gateway/grpc/two_nodes_fixture.hpp"

#include <caf/actor_cast.hpp>
#include <caf/event_based_actor.hpp>

#include <atomic>
#include <thread>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

void say(const caf::actor& to, int32_t what) {
  rpc::send_and_run(caf::actor_cast<caf::strong_actor_ptr>(to), nullptr, caf::make_message_id(),
                    caf::make_message(what));
}

/// Where an actor ran last.
using place = std::atomic<std::thread::id>;

struct own_threads {
  caf::actor_system_config cfg;
  caf::actor_system sys{cfg};
  place first{}, second{};
  std::atomic<int> heard{0};
  std::atomic<bool> enough{false};

  /// Hands what it hears on to `next`, if any.
  caf::actor passer(place& ran, caf::actor next) {
    return sys.spawn([this, &ran, next](caf::event_based_actor* self) -> caf::behavior {
      return {[this, &ran, next, self](int32_t what) {
        ran = std::this_thread::get_id();
        ++heard;
        if (next)
          self->send(next, what);
      }};
    });
  }
};

} // namespace

TEST_CASE_FIXTURE(own_threads, "actors that wait run on the thread that wakes them, one after the other") {
  const auto last = passer(second, {});
  const auto one = passer(first, last);
  // Either may still be on its way to waiting on a thread of CAF's.
  CHECK(wait_for([&] {
    const int before = heard;
    say(one, 1);
    const auto here = std::this_thread::get_id();
    const bool ran_here = first.load() == here && second.load() == here;
    return wait_for([&] { return heard == before + 2; }) && ran_here;
  }));
}

TEST_CASE_FIXTURE(own_threads, "an actor that has no end of messages goes on elsewhere") {
  const auto restless = sys.spawn([this](caf::event_based_actor* self) -> caf::behavior {
    return {[this, self](int32_t what) {
      ++heard;
      if (!enough)
        self->send(self, what);
    }};
  });
  say(restless, 1); // returns
  const int before = heard;
  CHECK(wait_for([&] { return heard > before + 1'000; }));
  enough = true;
}

TEST_CASE_FIXTURE(own_threads, "actors that wake each other without end go on elsewhere") {
  const auto answers = sys.spawn([this](caf::event_based_actor* self) -> caf::behavior {
    return {[this, self](int32_t what) {
      ++heard;
      if (!enough && self->current_sender())
        self->send(caf::actor_cast<caf::actor>(self->current_sender()), what);
    }};
  });
  const auto asks = sys.spawn([this, answers](caf::event_based_actor* self) -> caf::behavior {
    return {[this, answers, self](int32_t what) {
      if (!enough)
        self->send(answers, what);
    }};
  });
  say(asks, 1);
  const int before = heard;
  CHECK(wait_for([&] { return heard > before + 1'000; }));
  enough = true;
}

TEST_CASE_FIXTURE(own_threads,
                  "an actor that ends while it runs here is gone, and what is sent to it answered") {
  const auto mortal = sys.spawn([this](caf::event_based_actor* self) -> caf::behavior {
    return {[this, self](int32_t) {
      ++heard;
      self->quit();
    }};
  });
  say(mortal, 1);
  CHECK(wait_for([&] { return heard == 1; }));
  caf::scoped_actor self{sys};
  self->wait_for(mortal);
  bool refused = false;
  self->request(mortal, caf::infinite, int32_t{2}).receive([] {}, [&](const caf::error&) { refused = true; });
  CHECK(refused);
  say(mortal, 3);
  CHECK(heard == 1);
}
