#include "actors/ledger/sqlite_store.hpp"

#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/sqlite_proof_store.hpp"
#include "actors/ledger/sqlite_receipt_store.hpp"
#include "actors/ledger/transaction_rows.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace neuroshard {

namespace {

using sqlite::blob;
using sqlite::connection;
using sqlite::cursor;
using sqlite::statement;

/// Every statement of the writer, prepared once.
struct statements {
  explicit statements(connection& db)
      : head(db, "SELECT seq, hash, timestamp_us FROM transactions ORDER BY seq DESC LIMIT 1"),
        totals(db, "SELECT minted, burned, available, staked, pending FROM totals"),
        save_totals(db, "INSERT OR REPLACE INTO totals VALUES (1, ?, ?, ?, ?, ?)"),
        account(db, "SELECT id, available, staked, pending, nonce FROM accounts WHERE address = ?"),
        insert_account(
            db, "INSERT INTO accounts (address, available, staked, pending, nonce) VALUES (?, ?, ?, ?, ?)"),
        update_account(db,
                       "UPDATE accounts SET available = ?, staked = ?, pending = ?, nonce = ? WHERE id = ?"),
        insert_transaction(db,
                           "INSERT INTO transactions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        insert_posting(db, "INSERT INTO postings VALUES (?, ?)"),
        insert_history(db, "INSERT INTO history VALUES (?, ?, ?)"),
        count_history(db, "INSERT INTO history_days VALUES (?, ?, ?, ?) ON CONFLICT (account_id, type, day) "
                          "DO UPDATE SET count = count + excluded.count"),
        lock(db, "SELECT start_day, unlock_day FROM stakes WHERE account_id = ?"),
        save_lock(db, "INSERT OR REPLACE INTO stakes VALUES (?, ?, ?)"),
        drop_lock(db, "DELETE FROM stakes WHERE account_id = ?"),
        open_unstakes(db, "SELECT id, amount, release_day, tx_id, slashed FROM unstakes WHERE ended_seq IS "
                          "NULL ORDER BY id"),
        insert_unstake(
            db, "INSERT INTO unstakes (account_id, seq, amount, release_day, tx_id) VALUES (?, ?, ?, ?, ?)"),
        end_unstake(db, "UPDATE unstakes SET ended_seq = ? WHERE id = ?"),
        reservation(db, reservation_columns("WHERE request_id = ?").c_str()),
        open_reservations(db, reservation_columns("WHERE state = 0 ORDER BY expires_us, request_id").c_str()),
        insert_reservation(
            db, "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, '', NULL)"),
        end_reservation(db,
                        "UPDATE reservations SET state = ?, cost = ?, burned = ?, earned = ?, end_tx_id = ?, "
                        "ended_seq = ? WHERE request_id = ?"),
        insert_share(db, "INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?)"),
        note_checkpoint(db, "INSERT OR IGNORE INTO checkpoints VALUES (?, ?, ?, ?)"),
        checkpoint(db, "SELECT 1 FROM checkpoints WHERE architecture_id = ? AND model_hash = ?"),
        // Ranges of one key never overlap, so the last one that begins before the claim is the only earlier
        // one to reach into it.
        overlapping(
            db,
            "SELECT step_begin, step_end FROM reward_ranges WHERE node_id = ?1 AND architecture_id = ?2 AND "
            "model_hash = ?3 AND step_begin < ?5 AND step_begin >= coalesce((SELECT max(step_begin) FROM "
            "reward_ranges WHERE node_id = ?1 AND architecture_id = ?2 AND model_hash = ?3 AND "
            "step_begin <= ?4), 0) AND step_end > ?4 ORDER BY step_begin"),
        proof_rewards(db, reward_columns("WHERE proof_id = ? AND proof_id <> '' ORDER BY id").c_str()),
        insert_reward(
            db, "INSERT INTO rewards (account_id, seq, type, node_id, proof_id, architecture_id, model_hash, "
                "step_begin, step_end, label_tokens, layers, steps_rewarded, capped, base, amount, state, "
                "created_us, matures_us, tx_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
                "?, ?)"),
        insert_range(db, "INSERT INTO reward_ranges VALUES (?, ?, ?, ?, ?, ?)"),
        pending_rewards(db, reward_columns("WHERE state = 0 ORDER BY matures_us, id").c_str()),
        end_reward(db, "UPDATE rewards SET state = ?, ended_seq = ? WHERE id = ?"),
        reward_day(db, "SELECT amount, proofs FROM reward_days WHERE day = ? AND type = ?"),
        save_reward_day(db, "INSERT OR REPLACE INTO reward_days VALUES (?, ?, ?, ?)"),
        count_proofs(
            db, "SELECT accepted AND refuted = '', count(*) FROM proofs WHERE own = 1 AND timestamp_us >= ? "
                "GROUP BY 1"),
        count_slashes(db, "SELECT count(*) FROM offences WHERE seq IS NOT NULL AND recorded_us >= ?"),
        keyed_answer(
            db,
            "SELECT id, kind, body, result FROM idempotency WHERE key = ? AND key <> '' AND token = ? AND "
            "path = ? AND created_us > ? ORDER BY created_us DESC, id DESC LIMIT 1"),
        plain_answer(
            db,
            "SELECT id, kind, body, result FROM idempotency WHERE key = '' AND delivered = 0 AND body = ? "
            "AND token = ? AND path = ? AND created_us > ? ORDER BY created_us DESC, id DESC LIMIT 1"),
        insert_answer(db, "INSERT INTO idempotency VALUES (NULL, ?, ?, ?, ?, ?, ?, 0, ?)"),
        deliver(db, "UPDATE idempotency SET delivered = 1 WHERE id = ?"),
        // The newest stays, so that its number is never given again: a response delivered late may name it.
        forget(db, "DELETE FROM idempotency WHERE ((created_us <= ?1 AND key = '') OR created_us <= ?2) AND "
                   "id < (SELECT max(id) FROM idempotency)") {}

  static std::string reservation_columns(const char* where) {
    return std::string("SELECT request_id, reserved, price, prompt_tokens, max_tokens, created_us, "
                       "expires_us, state, "
                       "cost, burned, earned, end_tx_id FROM reservations ") +
           where;
  }
  static std::string reward_columns(const char* where) {
    return std::string(
               "SELECT id, type, node_id, proof_id, architecture_id, model_hash, step_begin, step_end, "
               "label_tokens, layers, steps_rewarded, capped, base, amount, state, created_us, matures_us, "
               "tx_id, slashed FROM rewards ") +
           where;
  }

  statement head, totals, save_totals, account, insert_account, update_account, insert_transaction,
      insert_posting, insert_history, count_history, lock, save_lock, drop_lock, open_unstakes,
      insert_unstake, end_unstake, reservation, open_reservations, insert_reservation, end_reservation,
      insert_share, note_checkpoint, checkpoint, overlapping, proof_rewards, insert_reward, insert_range,
      pending_rewards, end_reward, reward_day, save_reward_day, count_proofs, count_slashes, keyed_answer,
      plain_answer, insert_answer, deliver, forget;
};

reservation_row reservation_of(const cursor& row) {
  reservation_row made;
  made.request_id = row.text(0);
  made.reserved = row.amount(1);
  made.price = row.amount(2);
  made.prompt_tokens = static_cast<uint64_t>(row.integer(3));
  made.max_tokens = static_cast<uint64_t>(row.integer(4));
  made.created_us = row.integer(5);
  made.expires_us = row.integer(6);
  made.state = static_cast<reservation_state>(row.integer(7));
  made.cost = row.amount(8);
  made.burned = row.amount(9);
  made.earned = row.amount(10);
  made.end_transaction_id = row.text(11);
  return made;
}

reward_row reward_of(const cursor& row) {
  reward_row made;
  made.id = row.integer(0);
  made.type = static_cast<reward_type>(row.integer(1));
  made.node_id = row.text(2);
  made.proof_id = row.text(3);
  made.architecture_id = row.text(4);
  made.model_hash = row.digest(5);
  made.step_begin = static_cast<uint64_t>(row.integer(6));
  made.step_end = static_cast<uint64_t>(row.integer(7));
  made.label_tokens = static_cast<uint64_t>(row.integer(8));
  made.layers = static_cast<uint32_t>(row.integer(9));
  made.steps_rewarded = static_cast<uint64_t>(row.integer(10));
  made.capped = row.integer(11) != 0;
  made.base = row.amount(12);
  made.amount = row.amount(13);
  made.state = static_cast<reward_state>(row.integer(14));
  made.created_us = row.integer(15);
  made.matures_us = row.integer(16);
  made.transaction_id = row.text(17);
  made.slashed = row.amount(18);
  return made;
}

std::optional<int64_t> id_or_none(int64_t id) {
  return id == 0 ? std::nullopt : std::optional<int64_t>(id);
}

class sqlite_store final : public ledger_store {
public:
  caf::error open(const std::string& path) {
    if (auto failed = db_.open(path, connection::mode::read_write))
      return failed;
    db_.execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -32768; PRAGMA trusted_schema = OFF;"
        // 32 MB of log: copying it into the file delays one group in some hundreds, not in some twenty.
        "PRAGMA wal_autocheckpoint = 8192;");
    if (db_.faulty())
      return db_.fault();
    if (auto failed = migrate_schema(db_))
      return failed;
    sql_ = std::make_unique<statements>(db_);
    proofs_ = make_sqlite_proof_store(db_);
    receipts_ = make_sqlite_receipt_store(db_);
    return db_.fault();
  }

  bool begin() override { return db_.execute("BEGIN IMMEDIATE"); }

  bool commit() override {
    for (const auto& [key, count] : history_counts_)
      sql_->count_history.run(std::get<0>(key), std::get<1>(key), std::get<2>(key), count);
    history_counts_.clear();
    return db_.execute("COMMIT");
  }

  void rollback() override {
    history_counts_.clear();
    db_.clear_fault();
    // SQLite may have rolled back by itself (a full disk); then there is nothing to do and this fails.
    db_.execute("ROLLBACK");
    db_.clear_fault();
  }

  caf::error fault() const override { return db_.fault(); }

  void close() override {
    sql_.reset();
    proofs_.reset();
    receipts_.reset();
    // Operators copy ledger.db alone. SQLite empties the log into it when the last connection closes, but
    // here a reader, which may not write, is often the last. A reader in the middle of a page stops this,
    // which is then no loss: the log stays.
    db_.execute("PRAGMA wal_checkpoint(TRUNCATE)");
    db_.close();
  }

  // -- beginnings
  // ------------------------------------------------------------------------------------------------

  std::optional<genesis_record> genesis() override {
    statement read(db_, "SELECT network, params_hash, node_key, created_us, wallet, chain_id FROM genesis");
    auto row = read.query();
    if (!row.next())
      return std::nullopt;
    genesis_record made;
    made.network = row.text(0);
    made.params_hash = row.digest(1);
    const blob key = row.bytes(2);
    std::copy_n(key.begin(), std::min(key.size(), made.node_key.size()), made.node_key.begin());
    made.created_us = row.integer(3);
    made.wallet = row.text(4);
    return made;
  }

  void insert_genesis(const genesis_record& genesis, const digest& chain_id) override {
    statement insert(db_, "INSERT INTO genesis VALUES (1, ?, ?, ?, ?, ?, ?)");
    insert.run(genesis.network, genesis.params_hash, blob(genesis.node_key), genesis.created_us,
               genesis.wallet, chain_id);
  }

  std::vector<params_row> params() override {
    statement read(db_, "SELECT from_us, text FROM params ORDER BY from_us");
    std::vector<params_row> rows;
    for (auto row = read.query(); row.next();) {
      params_row made;
      made.from_us = row.integer(0);
      if (read_canonical_params(row.text(1), made.params))
        rows.push_back(std::move(made));
    }
    return rows;
  }

  void insert_params(const params_row& row) override {
    statement drop(db_, "DELETE FROM params WHERE from_us >= ?");
    drop.run(row.from_us);
    statement insert(db_, "INSERT INTO params VALUES (?, ?, ?)");
    insert.run(row.from_us, params_hash(row.params), canonical_params(row.params));
  }

  std::optional<head_row> head() override {
    auto row = sql_->head.query();
    if (!row.next())
      return std::nullopt;
    return head_row{static_cast<uint64_t>(row.integer(0)), row.digest(1), row.integer(2)};
  }

  totals_row totals() override {
    auto row = sql_->totals.query();
    if (!row.next())
      return {};
    return {row.amount(0), row.amount(1), row.amount(2), row.amount(3), row.amount(4)};
  }

  void save_totals(const totals_row& totals) override {
    sql_->save_totals.run(totals.minted, totals.burned, totals.available, totals.staked, totals.pending);
  }

  // -- accounts and transactions
  // ---------------------------------------------------------------------------------

  std::optional<account_row> account(const std::string& address) override {
    auto row = sql_->account.query(address);
    if (!row.next())
      return std::nullopt;
    return account_row{row.integer(0), address,       row.amount(1),
                       row.amount(2),  row.amount(3), static_cast<uint64_t>(row.integer(4))};
  }

  void save_account(account_row& row) override {
    if (row.id != 0) {
      sql_->update_account.run(row.available, row.staked, row.pending, row.nonce, row.id);
    } else if (sql_->insert_account.run(row.address, row.available, row.staked, row.pending, row.nonce)) {
      row.id = db_.last_row_id();
    }
  }

  void append(const transaction& row, int64_t from_id, int64_t to_id, const std::vector<posting>& postings,
              const std::vector<int64_t>& account_ids) override {
    std::optional<blob> key, sig;
    if (row.key)
      key = blob(*row.key);
    if (row.sig)
      sig = blob(*row.sig);
    sql_->insert_transaction.run(row.seq, row.id, static_cast<int>(row.kind), id_or_none(from_id),
                                 id_or_none(to_id), row.amount, row.fee, row.burned, row.nonce,
                                 row.timestamp_us, row.memo, reference_text(row.refs), key, sig, row.hash);
    lines_.clear();
    for (size_t n = 0; n < postings.size(); ++n)
      append_line(lines_, {account_ids[n], postings[n].part, postings[n].negative, postings[n].amount});
    if (!lines_.empty())
      sql_->insert_posting.run(row.seq, blob(lines_));
  }

  void add_history(int64_t account_id, history_type type, uint64_t seq, int32_t day) override {
    sql_->insert_history.run(account_id, static_cast<int>(type), seq);
    // Counted in memory until the commit: a group of transactions changes few counters.
    ++history_counts_[{account_id, static_cast<int>(type), day}];
  }

  // -- stake
  // -----------------------------------------------------------------------------------------------------

  std::optional<lock_row> lock(int64_t account_id) override {
    auto row = sql_->lock.query(account_id);
    if (!row.next())
      return std::nullopt;
    return lock_row{static_cast<int32_t>(row.integer(0)), static_cast<int32_t>(row.integer(1))};
  }

  void save_lock(int64_t account_id, const std::optional<lock_row>& row) override {
    if (row)
      sql_->save_lock.run(account_id, row->start_day, row->unlock_day);
    else
      sql_->drop_lock.run(account_id);
  }

  std::vector<unstake_row> open_unstakes() override {
    std::vector<unstake_row> rows;
    for (auto row = sql_->open_unstakes.query(); row.next();)
      rows.push_back({row.integer(0), row.amount(1), static_cast<int32_t>(row.integer(2)),
                      std::string(row.text(3)), row.amount(4)});
    return rows;
  }

  void insert_unstake(int64_t account_id, const unstake_row& row, uint64_t seq) override {
    sql_->insert_unstake.run(account_id, seq, row.amount, row.release_day, row.transaction_id);
  }

  void end_unstake(int64_t id, uint64_t seq) override { sql_->end_unstake.run(seq, id); }

  // -- inference
  // -------------------------------------------------------------------------------------------------

  std::optional<reservation_row> reservation(const std::string& request_id) override {
    auto row = sql_->reservation.query(request_id);
    return row.next() ? std::optional(reservation_of(row)) : std::nullopt;
  }

  std::vector<reservation_row> open_reservations() override {
    std::vector<reservation_row> rows;
    for (auto row = sql_->open_reservations.query(); row.next();)
      rows.push_back(reservation_of(row));
    return rows;
  }

  void insert_reservation(int64_t account_id, const reservation_row& row, uint64_t seq) override {
    sql_->insert_reservation.run(row.request_id, account_id, seq, row.reserved, row.price, row.prompt_tokens,
                                 row.max_tokens, row.created_us, row.expires_us, row.cost, row.burned,
                                 row.earned);
  }

  void end_reservation(const reservation_row& row, uint64_t seq,
                       const std::vector<share_row>& shares) override {
    sql_->end_reservation.run(static_cast<int>(row.state), row.cost, row.burned, row.earned,
                              row.end_transaction_id, seq, row.request_id);
    for (size_t n = 0; n < shares.size(); ++n)
      sql_->insert_share.run(row.request_id, static_cast<uint64_t>(n), shares[n].role, shares[n].address,
                             shares[n].amount, shares[n].receipt_id);
  }

  // -- rewards
  // ---------------------------------------------------------------------------------------------------

  bool note_checkpoint(const std::string& architecture_id, const digest& model_hash, uint64_t step,
                       int64_t now_us) override {
    return sql_->note_checkpoint.run(architecture_id, model_hash, step, now_us) && db_.changes() == 0;
  }

  bool knows_checkpoint(const std::string& architecture_id, const digest& model_hash) override {
    return sql_->checkpoint.query(architecture_id, model_hash).next();
  }

  std::vector<step_range> overlapping(const std::string& node_id, const std::string& architecture_id,
                                      const step_segment& segment) override {
    std::vector<step_range> ranges;
    auto row = sql_->overlapping.query(node_id, architecture_id, segment.model_hash, segment.step_begin,
                                       segment.step_end);
    while (row.next())
      ranges.push_back({static_cast<uint64_t>(row.integer(0)), static_cast<uint64_t>(row.integer(1))});
    return ranges;
  }

  std::vector<reward_row> rewards_of_proof(const std::string& proof_id) override {
    std::vector<reward_row> rows;
    for (auto row = sql_->proof_rewards.query(proof_id); row.next();)
      rows.push_back(reward_of(row));
    return rows;
  }

  void insert_reward(reward_row& row, int64_t account_id, uint64_t seq,
                     const std::vector<step_segment>& ranges) override {
    if (!sql_->insert_reward.run(
            account_id, id_or_none(static_cast<int64_t>(seq)), static_cast<int>(row.type), row.node_id,
            row.proof_id, row.architecture_id, row.model_hash, row.step_begin, row.step_end, row.label_tokens,
            row.layers, row.steps_rewarded, row.capped, row.base, row.amount, static_cast<int>(row.state),
            row.created_us, row.matures_us, row.transaction_id))
      return;
    row.id = db_.last_row_id();
    for (const auto& range : ranges)
      sql_->insert_range.run(row.node_id, row.architecture_id, range.model_hash, range.step_begin,
                             range.step_end, row.id);
  }

  std::vector<reward_row> pending_rewards() override {
    std::vector<reward_row> rows;
    for (auto row = sql_->pending_rewards.query(); row.next();)
      rows.push_back(reward_of(row));
    return rows;
  }

  void end_reward(int64_t id, reward_state state, uint64_t seq) override {
    sql_->end_reward.run(static_cast<int>(state), seq, id);
  }

  reward_day_row reward_day(int32_t day, reward_type type) override {
    auto row = sql_->reward_day.query(day, static_cast<int>(type));
    if (!row.next())
      return {};
    return {row.amount(0), static_cast<uint64_t>(row.integer(1))};
  }

  void save_reward_day(int32_t day, reward_type type, const reward_day_row& row) override {
    sql_->save_reward_day.run(day, static_cast<int>(type), row.amount, row.proofs);
  }

  proof_counts count_proofs(int64_t since_us) override {
    proof_counts counts;
    for (auto row = sql_->count_proofs.query(since_us); row.next();)
      (row.integer(0) != 0 ? counts.accepted : counts.rejected) = static_cast<uint64_t>(row.integer(1));
    if (auto row = sql_->count_slashes.query(since_us); row.next())
      counts.slashes = static_cast<uint64_t>(row.integer(0));
    return counts;
  }

  proof_store& proofs() override { return *proofs_; }
  receipt_store& receipts() override { return *receipts_; }

  // -- duplicate suppression
  // -------------------------------------------------------------------------------------

  std::optional<answer_row> answer_by_key(const request_mark& mark, int64_t since_us) override {
    return answer_of(sql_->keyed_answer.query(mark.key, mark.token, mark.path, since_us));
  }

  std::optional<answer_row> undelivered_answer(const request_mark& mark, int64_t since_us) override {
    return answer_of(sql_->plain_answer.query(mark.body, mark.token, mark.path, since_us));
  }

  int64_t insert_answer(const request_mark& mark, answer_kind kind, std::string_view result,
                        int64_t now_us) override {
    const blob bytes(reinterpret_cast<const uint8_t*>(result.data()), result.size());
    if (!sql_->insert_answer.run(mark.token, mark.path, mark.key, mark.body, static_cast<int>(kind), bytes,
                                 now_us))
      return 0;
    return db_.last_row_id();
  }

  void mark_delivered(int64_t id) override { sql_->deliver.run(id); }

  void forget_answers(int64_t plain_before_us, int64_t keyed_before_us) override {
    sql_->forget.run(plain_before_us, keyed_before_us);
  }

private:
  static std::optional<answer_row> answer_of(cursor row) {
    if (!row.next())
      return std::nullopt;
    answer_row made;
    made.id = row.integer(0);
    made.kind = static_cast<answer_kind>(row.integer(1));
    made.body = row.digest(2);
    const blob result = row.bytes(3);
    made.result.assign(result.begin(), result.end());
    return made;
  }

  connection db_;
  std::unique_ptr<statements> sql_;
  std::unique_ptr<proof_store> proofs_;
  std::unique_ptr<receipt_store> receipts_;
  std::map<std::tuple<int64_t, int, int32_t>, int64_t> history_counts_;
  std::vector<uint8_t> lines_; ///< of the transaction that is being written
};

} // namespace

caf::expected<std::unique_ptr<ledger_store>> open_sqlite_store(const std::string& path) {
  auto store = std::make_unique<sqlite_store>();
  if (auto failed = store->open(path))
    return failed;
  return std::unique_ptr<ledger_store>(std::move(store));
}

} // namespace neuroshard
