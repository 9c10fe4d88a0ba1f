#pragma once

#include "actors/common/clock.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/group_writer.hpp"
#include "actors/ledger/ledger.hpp"
#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/signing_crew.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace neuroshard {

/// Bytes of an answer kept for a repeated request.
inline constexpr size_t response_bytes_max = 1024 * 1024;
/// How long the preimage of a gradient commitment is kept.
inline constexpr int64_t commitments_kept_us = 24 * 3'600 * 1'000'000LL;

/// The rules of the book: who may do what, what it costs, what is posted. A function of (book, operation,
/// time): no thread, no CAF; time comes from the injected clock and never runs backwards; where the book is
/// kept is the store's business.
///
/// Operations form a group: the first one begins it, `commit` ends it with one fsync. An operation checks
/// everything before it changes anything, so a refusal leaves no trace. Nobody may be told of a success
/// before `commit` has answered without error; when it fails, the whole group is undone and all of its
/// callers are to be given that error.
class account_book {
public:
  account_book(std::unique_ptr<ledger_store> store, ledger_options options);
  ~account_book();

  /// Reads or makes the beginning, checks the book, refunds what was open, runs what is due.
  caf::error open();

  // -- operations (messages of ledger_types.hpp)
  // ------------------------------------------------------------------
  caf::expected<send_result> apply(const send_neuro& what);
  caf::expected<stake_result> apply(const stake_neuro& what);
  caf::expected<stake_result> apply(const add_stake& what);
  caf::expected<stake_result> apply(const extend_stake& what);
  caf::expected<unstake_result> apply(const unstake_neuro& what);
  caf::expected<reserve_result> apply(const reserve_inference& what);
  caf::expected<settle_result> apply(const settle_inference& what);
  caf::expected<refund_result> apply(const refund_inference& what);
  caf::expected<checkpoint_noted> apply(const note_checkpoint& what);
  caf::expected<commitment_kept> apply(const keep_commitment& what);
  caf::expected<proof_result> apply(const record_proof& what);
  caf::expected<void_result> apply(const void_reward& what);
  caf::expected<receipt_recorded> apply(const record_receipt& what);
  caf::expected<offence_result> apply(const record_offence& what);
  caf::expected<found_response> apply(const find_response& what);
  caf::expected<found_response> apply(const keep_response& what);

  /// Taken down at once, written with the next group: losing it costs one repeated answer.
  void mark_delivered(int64_t row);
  /// Refunds expired reservations and forgets old answers; at each new minute also releases unstakes and
  /// matures rewards; closes epochs. Answers whether a group is open now.
  caf::expected<bool> run_due();

  // -- groups
  // -----------------------------------------------------------------------------------------------------
  bool in_group() const noexcept { return in_group_; }
  /// Ends the group, after the one under way. On an error everything since its beginning is undone.
  caf::error commit();
  /// Lets a thread of the book's own end the open group, which must be there with none under way, and goes on
  /// with the next one meanwhile: what needs no more than memory is applied and signed during the COMMIT,
  /// what needs the store waits for it. `written` is called on that thread; then `end_commit` is due. An
  /// error: the group is undone already.
  caf::error start_commit(std::function<void()> written);
  bool under_way() const noexcept { return under_way_; }
  /// Waits for the group under way. On an error the open group, which was built on it, is undone as well.
  caf::error end_commit();
  /// Commits and closes the store; every later operation is refused with draining.
  caf::error close();

  // -- state
  // ------------------------------------------------------------------------------------------------------
  const digest& chain_id() const noexcept { return chain_id_; }
  const head_row& head() const noexcept { return head_; }
  const totals_row& totals() const noexcept { return totals_; }
  size_t open_reservations() const noexcept { return open_reservations_; }
  /// Empty while the book takes operations.
  const std::string& fault() const noexcept { return fault_; }
  /// Balances of the node's own wallet, the open group included.
  account_row own();

private:
  /// An account in memory; written at the end of the group.
  struct held_account {
    account_row row;
    bool changed = false;
  };
  /// Postings of one transaction, added up by account and part.
  class posting_set;
  /// What a transaction says beside its postings.
  struct draft {
    transaction_kind kind{};
    std::string from;
    std::string to;
    neuro_amount amount;
    neuro_amount fee;
    neuro_amount burned;
    std::string memo;
    reference_list refs;
    std::optional<history_type> seen_as; ///< in the history of the book's own wallet, the only one there is
  };

  /// What one kind of work earns before the caps. Steps are of training alone.
  struct earning {
    reward_type type{};
    std::string architecture_id;
    std::vector<step_segment> claimed;
    std::vector<step_segment> rewarded; ///< the parts of `claimed` that nothing was paid for
    uint64_t label_tokens = 0;
    uint32_t layers = 0;
    neuro_amount base;
    neuro_amount full; ///< base by all multipliers

    uint64_t steps_rewarded() const;
  };

  /// The store, which is the writer's while a group is under way: waits for it, and begins the transaction
  /// of the open group where that was put off.
  ledger_store& store();
  /// What is known to have failed so far, without waiting.
  caf::error store_fault() const;
  caf::error open_group();
  /// Closes the open group; what is left to be written of it.
  caf::expected<group_rest> take_rest();
  caf::error undo(const caf::error& failed);
  void write_delivered();
  /// Hands the unwritten transactions, signed and chained, to the store.
  void write_transactions();
  template <class Result, class Operation>
  caf::expected<Result> operate(Operation&& operation);
  template <class Result, class Operation>
  caf::expected<Result> once(const std::optional<request_mark>& mark, answer_kind kind,
                             Operation&& operation);
  caf::expected<std::optional<answer_row>> stored_answer(const request_mark& mark);

  held_account& account(const std::string& address);
  void note_changed(held_account& held);
  /// Changes the balances in memory; the transaction gets its signature and hash when the group ends.
  caf::expected<transaction> record(draft from, const posting_set& postings);
  caf::error check_beginning();
  caf::error check_balances();
  caf::error stop(std::string why);
  void reload();
  void advance_time();
  const economics_params& params() const;
  neuro_amount open_pending();

  rules::multipliers multipliers(bool driver, bool validator, bool training, uint64_t scarcity_ppm);
  /// Type, architecture, claimed segments (ascending), tokens and layers are given; the rest is filled in.
  caf::error weigh_training(earning& of, bool is_async, uint64_t age_s, const rules::multipliers& by);
  /// Mints what the caps leave of it, into pending; `row` of it is stored.
  caf::expected<reward_row> mint(const earning& of, const std::string& proof_id);
  caf::error check_signer(const record_proof& what, const work_proof& proof);
  caf::error check_work(const record_proof& what, const work_proof& proof);
  caf::expected<bool> check_receipts(const record_proof& what, const work_proof& proof);
  caf::expected<std::vector<earning>> weigh(const record_proof& what, const work_proof& proof,
                                            bool worked_for_others);
  caf::expected<stake_result> lock_more(neuro_amount amount, std::optional<lock_row> lock, const char* field);
  stake_state own_stake(const lock_row& lock);
  caf::expected<refund_result> give_back(reservation_row row);
  /// The receipt a share names, which must be for this payment; nothing when it names none or is unpaid.
  caf::expected<std::optional<receipt>> receipt_of_share(const std::string& request_id,
                                                         const std::string& address,
                                                         const std::string& receipt_id, const char* field);
  /// Addresses of driver, validator and workers; those that are not to be paid are emptied.
  caf::error check_shares(const settle_inference& what, std::vector<std::string>& addresses);
  /// Burns up to `most` of what the wallet has: staked, cooling, unmatured, available, in this order.
  caf::expected<transaction> slash(neuro_amount most, reference_list refs);
  caf::error release_due();
  /// The newest minute that may be closed now.
  int64_t last_closable() const;
  epoch_link link() const;
  /// Closes what is due, oldest first.
  caf::error close_epochs(size_t most);
  caf::error refund_expired(bool all);

  std::unique_ptr<ledger_store> store_;
  ledger_options options_;
  std::string wallet_;
  digest chain_id_{};
  head_row head_; ///< its hash is that of the last one known to be written
  std::deque<unwritten_transaction> unwritten_;
  signing_crew crew_;
  group_writer writer_;
  totals_row totals_;
  std::vector<params_row> params_;
  std::unordered_map<std::string, held_account> accounts_;
  std::vector<held_account*> changed_; ///< by the open group
  std::vector<int64_t> delivered_;     ///< answers to be marked with the next group
  int64_t now_us_ = 0;
  std::optional<epoch_link> last_epoch_;
  int64_t looked_at_epoch_ = -1; ///< whatever there was of the minutes up to this one is closed
  int64_t last_due_minute_ = -1;
  int64_t last_forget_us_ = 0;
  uint64_t checked_seq_ = 0;
  size_t open_reservations_ = 0;
  bool in_group_ = false;
  bool begun_ = false;     ///< the open group's transaction in the store
  bool under_way_ = false; ///< a group whose outcome was not asked for
  bool closed_ = false;
  std::string fault_;
};

} // namespace neuroshard
