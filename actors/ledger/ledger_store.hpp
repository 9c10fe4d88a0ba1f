#pragma once

#include "actors/common/error.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/proof_store.hpp"
#include "actors/ledger/receipt_store.hpp"
#include "actors/ledger/records.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Rows of the book as the rules see them. Days and times as in ledger_types.hpp.
struct account_row {
  int64_t id = 0; ///< 0: not stored yet
  std::string address;
  neuro_amount available; ///< of `mint`: all minted; of `burn`: all burned
  neuro_amount staked;
  neuro_amount pending;
  uint64_t nonce = 0; ///< last one used
};
struct head_row {
  uint64_t seq = 0;
  digest hash{}; ///< of the last row; the chain id while there is none
  int64_t timestamp_us = 0;
};
struct totals_row {
  neuro_amount minted;
  neuro_amount burned;
  neuro_amount available;
  neuro_amount staked;
  neuro_amount pending;
};
struct params_row {
  int64_t from_us = 0;
  economics_params params;
};
struct lock_row {
  int32_t start_day = 0;
  int32_t unlock_day = 0;
};
struct unstake_row {
  int64_t id = 0;
  neuro_amount amount;
  int32_t release_day = 0;
  std::string transaction_id;
  neuro_amount slashed; ///< of the amount

  neuro_amount left() const { return checked_sub(amount, slashed).value_or(neuro_amount{}); }
};
enum class reservation_state : uint8_t { open, settled, refunded };
struct reservation_row {
  std::string request_id;
  neuro_amount reserved;
  neuro_amount price;
  uint64_t prompt_tokens = 0;
  uint64_t max_tokens = 0;
  int64_t created_us = 0;
  int64_t expires_us = 0;
  reservation_state state{};
  neuro_amount cost;
  neuro_amount burned;
  neuro_amount earned;
  std::string end_transaction_id;
};
struct share_row {
  std::string role; ///< driver, worker, validator
  std::string address;
  neuro_amount amount;
  std::string receipt_id;
};
enum class reward_state : uint8_t { pending, matured, voided };
struct reward_row {
  int64_t id = 0;
  reward_type type{};
  std::string node_id;
  std::string proof_id;
  std::string architecture_id;
  digest model_hash{};
  uint64_t step_begin = 0;
  uint64_t step_end = 0;
  uint64_t label_tokens = 0;
  uint32_t layers = 0;
  uint64_t steps_rewarded = 0;
  bool capped = false;
  neuro_amount base;
  neuro_amount amount;
  reward_state state{};
  int64_t created_us = 0;
  int64_t matures_us = 0;
  std::string transaction_id;
  neuro_amount slashed; ///< of the amount, before it matured

  neuro_amount left() const { return checked_sub(amount, slashed).value_or(neuro_amount{}); }
};
struct step_range {
  uint64_t begin = 0;
  uint64_t end = 0;
};
struct reward_day_row {
  neuro_amount amount;
  uint64_t proofs = 0;
};
struct proof_counts {
  uint64_t accepted = 0;
  uint64_t rejected = 0;
  uint64_t slashes = 0;
};
/// What a stored answer is of.
enum class answer_kind : uint8_t { send = 1, stake, unstake, response, settle };
struct answer_row {
  int64_t id = 0;
  answer_kind kind{};
  digest body{};
  std::string result;
};

/// Where the book is kept. The rules (account_book) call it inside begin() ... commit(); after a failure
/// (`fault`) every call does nothing until rollback(). One thread.
class ledger_store {
public:
  virtual ~ledger_store() = default;

  virtual bool begin() = 0;
  /// Everything since begin() is on disk when this answers true.
  virtual bool commit() = 0;
  /// Gives up what was done since begin() and clears the fault.
  virtual void rollback() = 0;
  virtual caf::error fault() const = 0;
  virtual void close() = 0;

  virtual std::optional<genesis_record> genesis() = 0;
  virtual void insert_genesis(const genesis_record& genesis, const digest& chain_id) = 0;
  virtual std::vector<params_row> params() = 0;
  /// In place of rows from then on or later.
  virtual void insert_params(const params_row& row) = 0;
  virtual std::optional<head_row> head() = 0;
  virtual totals_row totals() = 0;
  virtual void save_totals(const totals_row& totals) = 0;

  virtual std::optional<account_row> account(const std::string& address) = 0;
  /// Inserts (and sets the id) or updates.
  virtual void save_account(account_row& row) = 0;
  /// A posting's account must be stored; `account_ids` are those of the postings, in order. from_id, to_id 0:
  /// none.
  virtual void append(const transaction& row, int64_t from_id, int64_t to_id,
                      const std::vector<posting>& postings, const std::vector<int64_t>& account_ids) = 0;
  virtual void add_history(int64_t account_id, history_type type, uint64_t seq, int32_t day) = 0;

  virtual std::optional<lock_row> lock(int64_t account_id) = 0;
  virtual void save_lock(int64_t account_id, const std::optional<lock_row>& row) = 0;
  virtual std::vector<unstake_row> open_unstakes() = 0;
  virtual void insert_unstake(int64_t account_id, const unstake_row& row, uint64_t seq) = 0;
  virtual void end_unstake(int64_t id, uint64_t seq) = 0;

  virtual std::optional<reservation_row> reservation(const std::string& request_id) = 0;
  virtual std::vector<reservation_row> open_reservations() = 0;
  virtual void insert_reservation(int64_t account_id, const reservation_row& row, uint64_t seq) = 0;
  virtual void end_reservation(const reservation_row& row, uint64_t seq,
                               const std::vector<share_row>& shares) = 0;

  virtual bool note_checkpoint(const std::string& architecture_id, const digest& model_hash, uint64_t step,
                               int64_t now_us) = 0;
  virtual bool knows_checkpoint(const std::string& architecture_id, const digest& model_hash) = 0;
  /// Rewarded ranges of a segment's key that overlap it, ascending.
  virtual std::vector<step_range> overlapping(const std::string& node_id, const std::string& architecture_id,
                                              const step_segment& segment) = 0;
  virtual std::vector<reward_row> rewards_of_proof(const std::string& proof_id) = 0;
  virtual void insert_reward(reward_row& row, int64_t account_id, uint64_t seq,
                             const std::vector<step_segment>& ranges) = 0;
  virtual std::vector<reward_row> pending_rewards() = 0;
  virtual void end_reward(int64_t id, reward_state state, uint64_t seq) = 0;
  virtual reward_day_row reward_day(int32_t day, reward_type type) = 0;
  virtual void save_reward_day(int32_t day, reward_type type, const reward_day_row& row) = 0;
  /// Of this book's records since then.
  virtual proof_counts count_proofs(int64_t since_us) = 0;
  virtual proof_store& proofs() = 0;
  virtual receipt_store& receipts() = 0;

  virtual std::optional<answer_row> answer_by_key(const request_mark& mark, int64_t since_us) = 0;
  virtual std::optional<answer_row> undelivered_answer(const request_mark& mark, int64_t since_us) = 0;
  virtual int64_t insert_answer(const request_mark& mark, answer_kind kind, std::string_view result,
                                int64_t now_us) = 0;
  virtual void mark_delivered(int64_t id) = 0;
  virtual void forget_answers(int64_t plain_before_us, int64_t keyed_before_us) = 0;
};

} // namespace neuroshard
