#include "tests/simulation/world.hpp"

#include "actors/gradient_exchanger/exchange_link_actor.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/peer_manager/peer_store.hpp"
#include "actors/relay/work_link_actor.hpp"
#include "tests/simulation/network.hpp"

#include <cstdio>
#include <stdexcept>

namespace neuroshard::simulation {

namespace {
/// Of messages without time passing: actors that keep each other busy for ever.
constexpr uint64_t messages_at_once_max = 1'000'000;
} // namespace

void trace::say(int64_t now_us, std::string_view line) {
  count(static_cast<uint64_t>(now_us));
  for (const char c : line)
    hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  if (printed_)
    std::printf("%11.6f  %.*s\n", static_cast<double>(now_us) / 1e6, static_cast<int>(line.size()),
                line.data());
}

struct world::config : caf::actor_system_config {
  config() {
    add_message_types<caf::id_block::neuroshard_common>();
    add_message_types<caf::id_block::neuroshard_status>();
    add_message_types<caf::id_block::neuroshard_ledger>();
    add_message_types<caf::id_block::neuroshard_layer_worker>();
    add_message_types<caf::id_block::neuroshard_peer_manager>();
    add_message_types<caf::id_block::neuroshard_peer_store>();
    add_message_types<caf::id_block::neuroshard_peer_link>();
    add_message_types<caf::id_block::neuroshard_relay>();
    add_message_types<caf::id_block::neuroshard_work_link>();
    add_message_types<caf::id_block::neuroshard_gradient_exchanger>();
    add_message_types<caf::id_block::neuroshard_exchange_link>();
    add_message_types<caf::id_block::neuroshard_inference_scheduler>();
    add_message_types<caf::id_block::neuroshard_simulation>();
    set("scheduler.policy", caf::atom("testing"));
  }
};

world::world(uint64_t seed, bool trace_printed)
    : random_(seed), schedule_(random_.fork()), trace_(trace_printed), config_(std::make_unique<config>()),
      system_(*config_), scheduler_(dynamic_cast<caf::scheduler::test_coordinator&>(system_.scheduler())),
      began_(scheduler_.clock().now()) {}

world::~world() {
  events_.clear();
  kill(std::exchange(kept_, {}));
  scheduler_.run();
}

void world::after(int64_t us, std::function<void()> what) {
  events_.emplace(now_us_ + std::max<int64_t>(us, 0), std::move(what));
}

/// Any of those that have a message may be next.
void world::run_ready() {
  for (uint64_t ran = 0; !scheduler_.jobs.empty(); ++ran) {
    if (ran == messages_at_once_max)
      throw std::runtime_error("actors keep each other busy without time passing");
    auto& jobs = scheduler_.jobs;
    const auto pick = static_cast<ptrdiff_t>(schedule_.below(jobs.size()));
    std::iter_swap(jobs.begin(), jobs.begin() + pick);
    if (auto* actor = dynamic_cast<caf::scheduled_actor*>(jobs.front())) {
      trace_.count(actor->id());
      // Looks into the mailbox, which wakes nobody: its actor is awake.
      waiting_most_ = std::max(waiting_most_, actor->mailbox().size());
    }
    scheduler_.run_once();
    ++messages_;
  }
}

int64_t world::next_event_us() const {
  int64_t next = events_.empty() ? std::numeric_limits<int64_t>::max() : events_.begin()->first;
  const auto& timers = scheduler_.clock().schedule();
  if (!timers.empty()) {
    const auto due = std::chrono::ceil<std::chrono::microseconds>(timers.begin()->first - began_).count();
    next = std::min(next, std::max<int64_t>(due, now_us_));
  }
  return next;
}

bool world::run_until(int64_t us, const std::function<bool()>& done) {
  const int64_t end_us = now_us_ + us;
  int64_t look_us = now_us_ + second_us;
  run_ready();
  while (true) {
    const int64_t next = std::min({next_event_us(), end_us, look_us});
    const int64_t passed = next - now_us_;
    now_us_ = next;
    clock_->advance_us(passed);
    while (!events_.empty() && events_.begin()->first <= now_us_) {
      const auto due = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      due();
    }
    scheduler_.advance_time(std::chrono::microseconds(passed));
    run_ready();
    if (now_us_ >= look_us || now_us_ >= end_us) {
      look_us = now_us_ + second_us;
      if (done())
        return true;
    }
    if (now_us_ >= end_us)
      return false;
  }
}

void world::kill(const std::vector<caf::strong_actor_ptr>& actors) {
  for (const auto& one : actors)
    caf::anon_send_exit(one, caf::exit_reason::kill);
  // The exit is urgent: it goes before whatever else waits.
  for (const auto& one : actors) {
    if (scheduler_.prioritize(one))
      scheduler_.run_once();
    std::erase(kept_, one);
  }
}

} // namespace neuroshard::simulation
