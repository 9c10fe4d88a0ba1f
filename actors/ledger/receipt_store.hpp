#pragma once

#include "actors/common/money.hpp"
#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/receipt.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace neuroshard {

/// A receipt as it is kept: both sides' bytes, and beside them what it is looked up by.
struct receipt_row {
  receipt what;
  digest id{};
  bool own = false;        ///< this node did the work
  bool confirmed = false;  ///< counter-signed by the driver
  int64_t received_us = 0; ///< when it came as it is now: unconfirmed, or confirmed
  std::string worker_blob;
  std::string driver_blob; ///< empty while not confirmed
  std::string worker_wallet;
  std::string driver_wallet; ///< empty while not confirmed
};
struct offence_row {
  digest id{};
  offence_class what{};
  std::string node_id;
  std::string wallet;
  int64_t recorded_us = 0;
  neuro_amount slashed;
  uint64_t seq = 0; ///< of the slash; 0: only recorded
  std::string evidence;
};
/// What was answered when an offence was recorded.
struct offence_answer {
  std::string transaction_id;
  neuro_amount slashed;
};

/// Receipts, offences and what slashes took from single rows: a part of ledger_store, under its rules.
class receipt_store {
public:
  virtual ~receipt_store() = default;

  virtual std::optional<receipt_row> receipt_of(const digest& id) = 0;
  /// Another receipt of the same worker with the same driver, work id and nonce.
  virtual std::optional<digest> same_work(const receipt& of) = 0;
  virtual void insert(const receipt_row& row) = 0;
  /// The bytes, wallets, time and confirmation of a receipt that is kept.
  virtual void confirm(const receipt_row& row) = 0;

  /// The transaction of an offence must be stored.
  virtual void insert(const offence_row& row) = 0;
  virtual std::optional<offence_answer> offence(const digest& id) = 0;
  /// When the wallet was last slashed for this class of offence.
  virtual std::optional<int64_t> last_slash_us(const std::string& wallet, offence_class what) = 0;

  /// What slashes took from it altogether.
  virtual void slash_unstake(int64_t id, neuro_amount slashed) = 0;
  virtual void slash_reward(int64_t id, neuro_amount slashed) = 0;
};

} // namespace neuroshard
