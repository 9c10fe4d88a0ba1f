#include "actors/ledger/ledger.hpp"

#include "actors/common/log.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/sqlite_store.hpp"

#include <caf/actor_system.hpp>
#include <caf/response_promise.hpp>
#include <caf/send.hpp>
#include <caf/spawn_options.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <utility>

namespace neuroshard {

namespace {

constexpr std::chrono::seconds tick_every{5};

/// Called with the outcome of the commit that an answer waited for.
using answer_list = std::vector<std::function<void(const caf::error&)>>;

/// Applies operations to the book and holds their answers back until the group they belong to is on disk.
struct ledger_state {
  static inline const char* name = "ledger";

  std::unique_ptr<account_book> book;
  uint32_t group_operations_max = 0;
  /// Applies the next group while one is being committed; otherwise all is done on the actor's own thread.
  bool overlaps = false;
  answer_list waiting;   ///< of the open group
  answer_list under_way; ///< of the group that is being committed
  uint64_t seq_under_way = 0;
  uint64_t transactions_committed = 0;
  uint64_t groups_committed = 0;
  uint64_t committed_seq = 0;
  caf::error last_failure;

  /// Ends the open group, and the one under way before it; answers.
  void commit();
  /// Has the open group committed by the book's own thread, which calls `written`.
  void start(std::function<void()> written);
  /// Waits for the group under way. Answers nobody: that has time until the next group is on its way.
  caf::error end(answer_list& to_answer);
  void count(uint64_t seq);
};

using ledger_pointer = ledger_actor::stateful_pointer<ledger_state>;

void answer(answer_list& those, const caf::error& failed) {
  for (const auto& each : those)
    each(failed);
  those.clear();
}

void ledger_state::count(uint64_t seq) {
  ++groups_committed;
  transactions_committed += seq - committed_seq;
  committed_seq = seq;
}

void ledger_state::commit() {
  answer_list answers;
  if (const caf::error failed = end(answers))
    return answer(answers, failed);
  answer(answers, {});
  if (!book->in_group() && waiting.empty())
    return;
  last_failure = book->commit();
  if (!last_failure)
    count(book->head().seq);
  answers = std::exchange(waiting, {});
  answer(answers, last_failure);
}

void ledger_state::start(std::function<void()> written) {
  if (!book->in_group()) // Refusals alone: there is nothing to wait for.
    return commit();
  seq_under_way = book->head().seq;
  last_failure = book->start_commit(std::move(written));
  under_way = std::exchange(waiting, {});
  if (last_failure) {
    answer_list answers = std::exchange(under_way, {});
    answer(answers, last_failure);
  }
}

caf::error ledger_state::end(answer_list& to_answer) {
  if (!book->under_way())
    return {};
  last_failure = book->end_commit();
  to_answer = std::exchange(under_way, {});
  if (!last_failure) {
    count(seq_under_way);
  } else {
    // The open group was built on it and is undone as well.
    std::move(waiting.begin(), waiting.end(), std::back_inserter(to_answer));
    waiting.clear();
  }
  return last_failure;
}

/// One operation: applied now, answered when its group is on disk. The first of a group sends the message
/// that ends it; what is in the mailbox before that message joins the group, and what arrives during the
/// fsync makes up the next.
template <class Result, class Operation>
caf::result<Result> take(ledger_pointer self, const Operation& operation) {
  auto& state = self->state;
  auto promise = self->make_response_promise<Result>();
  auto result = state.book->apply(operation);
  if (!result && !state.book->in_group()) {
    promise.deliver(std::move(result.error()));
    return promise;
  }
  const bool first = state.waiting.empty();
  state.waiting.push_back([promise, result = std::move(result)](const caf::error& failed) mutable {
    if (failed)
      promise.deliver(failed);
    else if (result)
      promise.deliver(std::move(*result));
    else
      promise.deliver(std::move(result.error()));
  });
  if (state.waiting.size() >= state.group_operations_max)
    state.commit();
  else if (first && !state.book->under_way())
    self->send(self, commit_group{});
  return promise;
}

/// Ends the open group, unless one is under way: then that one's end does it.
void end_group(ledger_pointer self) {
  auto& state = self->state;
  if (!state.overlaps)
    return state.commit();
  if (!state.book->under_way() && (state.book->in_group() || !state.waiting.empty()))
    state.start([me = caf::actor_cast<caf::strong_actor_ptr>(self)] {
      // Ahead of the operations in the mailbox: the disk is not to wait for them.
      caf::anon_send<caf::message_priority::high>(caf::actor_cast<ledger_actor>(me), group_written{});
    });
}

/// The group under way is on disk: the next one, applied and signed meanwhile, goes first, then the answers.
void group_ended(ledger_pointer self) {
  answer_list answers;
  const caf::error failed = self->state.end(answers);
  if (!failed)
    end_group(self);
  answer(answers, failed);
}

ledger_actor::behavior_type ledger(ledger_pointer self, std::shared_ptr<std::unique_ptr<account_book>> book,
                                   uint32_t group_operations_max, bool overlaps) {
  auto& state = self->state;
  state.book = std::move(*book);
  state.group_operations_max = std::max<uint32_t>(group_operations_max, 1);
  state.overlaps = overlaps;
  state.committed_seq = state.book->head().seq;
  self->delayed_send(self, tick_every, tick_atom_v);
  return {
      [self](const send_neuro& what) { return take<send_result>(self, what); },
      [self](const stake_neuro& what) { return take<stake_result>(self, what); },
      [self](const add_stake& what) { return take<stake_result>(self, what); },
      [self](const extend_stake& what) { return take<stake_result>(self, what); },
      [self](const unstake_neuro& what) { return take<unstake_result>(self, what); },
      [self](const reserve_inference& what) { return take<reserve_result>(self, what); },
      [self](const settle_inference& what) { return take<settle_result>(self, what); },
      [self](const refund_inference& what) { return take<refund_result>(self, what); },
      [self](const note_checkpoint& what) { return take<checkpoint_noted>(self, what); },
      [self](const keep_commitment& what) { return take<commitment_kept>(self, what); },
      [self](const record_proof& what) { return take<proof_result>(self, what); },
      [self](const record_receipt& what) { return take<receipt_recorded>(self, what); },
      [self](const record_offence& what) { return take<offence_result>(self, what); },
      [self](const find_response& what) { return take<found_response>(self, what); },
      [self](const keep_response& what) { return take<found_response>(self, what); },
      [self](const mark_delivered& what) { self->state.book->mark_delivered(what.row); },
      [self](const get_ledger_status&) -> ledger_status {
        const auto& state = self->state;
        ledger_status status;
        status.fault = !state.book->fault().empty() ? state.book->fault()
                       : state.last_failure         ? problem_of(state.last_failure).message
                                                    : std::string();
        status.writable = status.fault.empty();
        status.chain_id = kernels::to_hex(state.book->chain_id());
        status.last_seq = state.book->head().seq;
        status.transactions_committed = state.transactions_committed;
        status.groups_committed = state.groups_committed;
        status.open_reservations = state.book->open_reservations();
        return status;
      },
      [self](status_atom) -> actor_status {
        const auto& state = self->state;
        actor_status status;
        status.name = ledger_state::name;
        if (!state.book->fault().empty() || state.last_failure) {
          status.state = actor_status::health::error;
          status.message =
              state.book->fault().empty() ? problem_of(state.last_failure).message : state.book->fault();
        }
        status.values = {{"last_seq", std::to_string(state.book->head().seq)},
                         {"groups", std::to_string(state.groups_committed)},
                         {"open_reservations", std::to_string(state.book->open_reservations())}};
        return status;
      },
      [self](drain_atom) -> caf::result<void> {
        self->state.commit();
        if (auto failed = self->state.book->close())
          return failed;
        return caf::unit;
      },
      [self](tick_atom) {
        auto& state = self->state;
        self->delayed_send(self, tick_every, tick_atom_v);
        const auto open = state.book->run_due();
        if (!open && code_of(open.error()) != errc::draining)
          log::error("ledger", "due-failed reason=\"{}\"", problem_of(open.error()).message);
        if (state.waiting.empty())
          end_group(self);
      },
      [self](const commit_group&) { end_group(self); },
      [self](const group_written&) { group_ended(self); },
  };
}

} // namespace

caf::expected<std::unique_ptr<account_book>> open_book(const ledger_options& options) {
  auto store = open_sqlite_store(options.path);
  if (!store)
    return store.error();
  auto book = std::make_unique<account_book>(std::move(*store), options);
  if (auto failed = book->open())
    return failed;
  log::info("ledger", "opened chain={} seq={}", kernels::to_hex(book->chain_id()).substr(0, 16),
            book->head().seq);
  return book;
}

ledger_actor spawn_ledger(caf::actor_system& system, std::unique_ptr<account_book> book,
                          const ledger_options& options, bool detached) {
  // CAF copies the arguments of a spawn; the book moves through a shared box.
  auto box = std::make_shared<std::unique_ptr<account_book>>(std::move(book));
  if (detached)
    return system.spawn<caf::detached>(ledger, std::move(box), options.group_operations_max, true);
  return system.spawn(ledger, std::move(box), options.group_operations_max, false);
}

} // namespace neuroshard
