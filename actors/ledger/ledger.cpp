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

namespace neuroshard {

namespace {

constexpr std::chrono::seconds tick_every{5};

/// Applies operations to the book and holds their answers back until the group they belong to is on disk.
struct ledger_state {
  static inline const char* name = "ledger";

  std::unique_ptr<account_book> book;
  uint32_t group_operations_max = 0;
  /// Answers of the open group: called with the outcome of its commit.
  std::vector<std::function<void(const caf::error&)>> waiting;
  uint64_t transactions_committed = 0;
  uint64_t groups_committed = 0;
  uint64_t committed_seq = 0;
  caf::error last_failure;

  void commit();
};

using ledger_pointer = ledger_actor::stateful_pointer<ledger_state>;

void ledger_state::commit() {
  if (!book->in_group() && waiting.empty())
    return;
  const caf::error failed = book->commit();
  last_failure = failed;
  if (!failed) {
    ++groups_committed;
    transactions_committed += book->head().seq - committed_seq;
    committed_seq = book->head().seq;
  }
  auto answers = std::move(waiting);
  waiting.clear();
  for (const auto& answer : answers)
    answer(failed);
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
  else if (first)
    self->send(self, commit_group{});
  return promise;
}

ledger_actor::behavior_type ledger(ledger_pointer self, std::shared_ptr<std::unique_ptr<account_book>> book,
                                   uint32_t group_operations_max) {
  auto& state = self->state;
  state.book = std::move(*book);
  state.group_operations_max = std::max<uint32_t>(group_operations_max, 1);
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
          state.commit();
      },
      [self](const commit_group&) { self->state.commit(); },
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
    return system.spawn<caf::detached>(ledger, std::move(box), options.group_operations_max);
  return system.spawn(ledger, std::move(box), options.group_operations_max);
}

} // namespace neuroshard
