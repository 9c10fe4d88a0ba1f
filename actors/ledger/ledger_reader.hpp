#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/error.hpp"
#include "actors/ledger/economics_params.hpp"
#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/receipt.hpp"
#include "actors/ledger/work_proof.hpp"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// GET /wallet/balance. total = available + staked + pending.
struct balance_report {
  std::string address;
  neuro_amount available;
  neuro_amount staked;
  neuro_amount pending;
  neuro_amount total;
  std::optional<stake_state> staking; ///< nothing without a stake
};

/// GET /stake/info.
struct stake_report {
  std::optional<stake_state> stake;
  neuro_amount pending_unstake;
  std::optional<int32_t> pending_available_day; ///< of the earliest cooling unstake
  uint32_t days_remaining = 0;
};

/// What a wallet sees of a transaction; the `type` of GET /wallet/transactions.
enum class history_type : uint8_t { send = 1, receive, reward, stake, unstake, inference, slash };
const char* to_string(history_type type) noexcept;
std::optional<history_type> parse_history_type(std::string_view word) noexcept;

enum class history_status : uint8_t { pending, confirmed, failed };
const char* to_string(history_status status) noexcept;

struct history_query {
  uint32_t limit = 10; ///< 1 - 100
  uint64_t offset = 0;
  std::optional<history_type> type;
  std::optional<int32_t> first_day; ///< UTC days, inclusive
  std::optional<int32_t> last_day;
  /// Nothing: the newest. Otherwise only transactions up to this seq are seen, so that pages do not shift.
  std::optional<uint64_t> up_to_seq;
};
struct history_item {
  std::string id; ///< transaction id, 64 hex
  uint64_t seq = 0;
  history_type type{};
  std::string from; ///< empty when not applicable
  std::string to;
  bool negative = false; ///< the wallet loses `amount`
  neuro_amount amount;
  neuro_amount fee;
  history_status status{};
  int64_t timestamp_us = 0;
  std::string memo;
  std::vector<std::pair<std::string, std::string>>
      details; ///< request_id, proof_id, reward `type`, unlock_date, ...
};
struct history_page {
  std::vector<history_item> items; ///< newest first
  uint64_t total = 0;              ///< matches before paging
  uint64_t last_seq = 0;           ///< for up_to_seq of the following pages
};

/// Types of what a wallet earns: keys of `by_type`.
enum class reward_type : uint8_t { uptime = 1, inference, training, data, validation };
const char* to_string(reward_type type) noexcept;

struct reward_day {
  int32_t day = 0;
  neuro_amount amount;
  uint64_t proofs = 0;
};
/// GET /wallet/rewards.
struct rewards_report {
  neuro_amount total;
  std::vector<reward_day> by_day; ///< ascending, zero days included
  std::map<reward_type, neuro_amount> by_type;
};
/// `rewards` of GET /metrics.
struct earnings_report {
  neuro_amount earned_today;
  neuro_amount earned_total;
  neuro_amount pending; ///< unmatured rewards
};
/// GET /wallet/reward-rate. `role_ppm` is of the roles asked about.
struct reward_rate_report {
  neuro_amount base_rate; ///< mean base per rewarded proof, last 24 h
  uint64_t role_ppm = 0;
  uint64_t stake_ppm = 0;
  uint64_t reputation_ppm = 0;
  neuro_amount effective_rate;
  neuro_amount estimated_hourly;
  neuro_amount estimated_daily;
};
struct supply_report {
  neuro_amount minted;
  neuro_amount burned;
  neuro_amount staked;
  neuro_amount circulating; ///< minted - burned
  uint64_t transactions = 0;
  std::string chain_id;
};

/// A proof of this node as GET /proofs shows it.
struct proof_item {
  std::string id; ///< 64 hex
  proof_type type{};
  std::optional<uint64_t> first_layer;
  int64_t timestamp_us = 0;
  bool verified = false; ///< accepted, and not refuted since
  std::string reason;    ///< why it was refused or refuted
  neuro_amount reward;
};
struct proof_page {
  std::vector<proof_item> items; ///< newest first
  uint64_t total = 0;            ///< matches before paging
};
/// `stats` of GET /proofs, of all proofs of this node.
struct proof_stats {
  uint64_t total_submitted = 0;
  uint64_t total_verified = 0;
  neuro_amount total_reward;
};
/// The newest minute that is closed.
struct closed_epoch {
  uint64_t id = 0;
  digest hash{};
  int64_t end_us = 0;
};

/// A proof of this node that is in the book, as the maker of the next one needs it.
struct recent_proof {
  digest id{};
  std::string nonce;
  int64_t timestamp_us = 0;
  bool accepted = false;
  uint64_t label_tokens = 0;
};

/// A receipt that is kept.
struct receipt_item {
  digest id{};
  receipt what;
  std::string worker_wallet;
  std::string driver_wallet; ///< empty while not confirmed
  bool own = false;          ///< this node did the work
  bool confirmed = false;    ///< counter-signed by the driver
  int64_t received_us = 0;   ///< when it came, or was confirmed
  std::optional<digest> proof_id;
};
struct receipt_page {
  std::vector<receipt_item> items; ///< newest first
  uint64_t total = 0;
};

/// Reads the book through read-only connections of its own; never waits for the writer. Each call sees one
/// committed state. Thread safe: callers may block each other for the time of one query, at most
/// `connections` run at once. Made after the ledger has been opened.
class ledger_reader {
public:
  struct options {
    std::string path;
    std::string wallet; ///< address of the node's own wallet
    time_source_ptr clock;
    economics_params params;
    unsigned connections = 2; ///< 1 - 16
  };
  static caf::expected<std::shared_ptr<ledger_reader>> open(options from);
  ~ledger_reader();

  /// Of the node's wallet, or of another address (zero when the book does not know it).
  caf::expected<balance_report> balance(const std::string& address = {}) const;
  caf::expected<stake_report> stake() const;
  caf::expected<history_page> history(const history_query& query) const;
  /// Days inclusive; at most 366, otherwise invalid_request.
  caf::expected<rewards_report> rewards(int32_t first_day, int32_t last_day) const;
  caf::expected<earnings_report> earnings() const;
  caf::expected<reward_rate_report> reward_rate(bool driver, bool validator, bool training) const;
  caf::expected<supply_report> supply() const;
  /// Of this node, not older, ascending by time; at most 1,000, the newest.
  caf::expected<std::vector<recent_proof>> recent_proofs(int64_t since_us) const;
  /// `limit` is 1 - 100.
  caf::expected<receipt_page> receipts(uint32_t limit, uint64_t offset) const;
  /// Receipts for this node's work, confirmed by another wallet within [from_us, to_us), that are in no proof
  /// yet: ascending by that time, the first `limit`.
  caf::expected<std::vector<digest>> unproven_receipts(int64_t from_us, int64_t to_us, size_t limit) const;
  /// `limit` is 1 - 100.
  caf::expected<proof_page> proofs(uint32_t limit, uint64_t offset, std::optional<proof_type> type) const;
  caf::expected<struct proof_stats> proof_stats() const;
  /// Nothing while no epoch is closed.
  caf::expected<std::optional<closed_epoch>> last_closed_epoch() const;
  /// The stake a validator needs when there are `validators` of them.
  neuro_amount required_stake(uint64_t validators) const;
  const std::string& wallet() const;
  /// The UTC day of the injected clock.
  int32_t today() const;

private:
  struct impl;
  explicit ledger_reader(std::unique_ptr<impl> made);
  std::unique_ptr<impl> impl_;
};

} // namespace neuroshard
