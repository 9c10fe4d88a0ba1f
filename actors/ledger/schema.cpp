#include "actors/ledger/schema.hpp"

#include "actors/ledger/transaction_rows.hpp"

#include <array>
#include <string>
#include <vector>

namespace neuroshard {

namespace {

// Amounts are 16-byte big-endian BLOBs, digests 32-byte BLOBs, times unix microseconds, days UTC days. Rows
// of transactions and postings are never changed. WITHOUT ROWID where the key is the order of reading.
constexpr const char* version_1 = R"sql(
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE genesis (
  id INTEGER PRIMARY KEY CHECK (id = 1), network TEXT NOT NULL, params_hash BLOB NOT NULL, node_key BLOB NOT NULL,
  created_us INTEGER NOT NULL, wallet TEXT NOT NULL, chain_id BLOB NOT NULL);
CREATE TABLE params (from_us INTEGER PRIMARY KEY, hash BLOB NOT NULL, text TEXT NOT NULL);
CREATE TABLE accounts (
  id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE, available BLOB NOT NULL, staked BLOB NOT NULL,
  pending BLOB NOT NULL, nonce INTEGER NOT NULL);
CREATE TABLE totals (
  id INTEGER PRIMARY KEY CHECK (id = 1), minted BLOB NOT NULL, burned BLOB NOT NULL, available BLOB NOT NULL,
  staked BLOB NOT NULL, pending BLOB NOT NULL);
CREATE TABLE transactions (
  seq INTEGER PRIMARY KEY, tx_id BLOB NOT NULL, kind INTEGER NOT NULL, from_id INTEGER REFERENCES accounts,
  to_id INTEGER REFERENCES accounts, amount BLOB NOT NULL, fee BLOB NOT NULL, burned BLOB NOT NULL,
  nonce INTEGER NOT NULL, timestamp_us INTEGER NOT NULL, memo TEXT NOT NULL, refs TEXT NOT NULL, public_key BLOB,
  signature BLOB, hash BLOB NOT NULL);
CREATE TABLE postings (
  seq INTEGER NOT NULL REFERENCES transactions, n INTEGER NOT NULL, account_id INTEGER NOT NULL REFERENCES accounts,
  part INTEGER NOT NULL, negative INTEGER NOT NULL, amount BLOB NOT NULL, PRIMARY KEY (seq, n)) WITHOUT ROWID;
CREATE TABLE history (
  account_id INTEGER NOT NULL REFERENCES accounts, type INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (account_id, type, seq)) WITHOUT ROWID;
CREATE TABLE history_days (
  account_id INTEGER NOT NULL REFERENCES accounts, type INTEGER NOT NULL, day INTEGER NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (account_id, type, day)) WITHOUT ROWID;
CREATE TABLE stakes (
  account_id INTEGER PRIMARY KEY REFERENCES accounts, start_day INTEGER NOT NULL, unlock_day INTEGER NOT NULL);
CREATE TABLE unstakes (
  id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL REFERENCES accounts, seq INTEGER NOT NULL, amount BLOB NOT NULL,
  release_day INTEGER NOT NULL, tx_id TEXT NOT NULL, ended_seq INTEGER);
CREATE INDEX unstakes_seq ON unstakes (seq);
CREATE INDEX unstakes_open ON unstakes (release_day) WHERE ended_seq IS NULL;
CREATE TABLE reservations (
  request_id TEXT PRIMARY KEY, account_id INTEGER NOT NULL REFERENCES accounts, seq INTEGER NOT NULL,
  reserved BLOB NOT NULL, price BLOB NOT NULL, prompt_tokens INTEGER NOT NULL, max_tokens INTEGER NOT NULL,
  created_us INTEGER NOT NULL, expires_us INTEGER NOT NULL, state INTEGER NOT NULL, cost BLOB NOT NULL,
  burned BLOB NOT NULL, earned BLOB NOT NULL, end_tx_id TEXT NOT NULL, ended_seq INTEGER) WITHOUT ROWID;
CREATE INDEX reservations_open ON reservations (expires_us) WHERE state = 0;
CREATE TABLE shares (
  request_id TEXT NOT NULL REFERENCES reservations, n INTEGER NOT NULL, role TEXT NOT NULL, address TEXT NOT NULL,
  amount BLOB NOT NULL, receipt_id TEXT NOT NULL, PRIMARY KEY (request_id, n)) WITHOUT ROWID;
CREATE TABLE checkpoints (
  architecture_id TEXT NOT NULL, model_hash BLOB NOT NULL, step INTEGER NOT NULL, first_us INTEGER NOT NULL,
  PRIMARY KEY (architecture_id, model_hash)) WITHOUT ROWID;
CREATE TABLE rewards (
  id INTEGER PRIMARY KEY, account_id INTEGER NOT NULL REFERENCES accounts, seq INTEGER, type INTEGER NOT NULL,
  node_id TEXT NOT NULL, proof_id TEXT NOT NULL, architecture_id TEXT NOT NULL, model_hash BLOB NOT NULL,
  step_begin INTEGER NOT NULL, step_end INTEGER NOT NULL, label_tokens INTEGER NOT NULL, layers INTEGER NOT NULL,
  steps_rewarded INTEGER NOT NULL, capped INTEGER NOT NULL, base BLOB NOT NULL, amount BLOB NOT NULL,
  state INTEGER NOT NULL, created_us INTEGER NOT NULL, matures_us INTEGER NOT NULL, tx_id TEXT NOT NULL,
  ended_seq INTEGER);
CREATE INDEX rewards_seq ON rewards (seq);
CREATE INDEX rewards_pending ON rewards (matures_us) WHERE state = 0;
CREATE INDEX rewards_proof ON rewards (proof_id) WHERE proof_id <> '';
CREATE INDEX rewards_claim ON rewards (node_id, architecture_id, model_hash, step_begin, step_end) WHERE type = 3;
CREATE INDEX rewards_created ON rewards (created_us);
CREATE TABLE reward_ranges (
  node_id TEXT NOT NULL, architecture_id TEXT NOT NULL, model_hash BLOB NOT NULL, step_begin INTEGER NOT NULL,
  step_end INTEGER NOT NULL, reward_id INTEGER NOT NULL REFERENCES rewards,
  PRIMARY KEY (node_id, architecture_id, model_hash, step_begin)) WITHOUT ROWID;
CREATE TABLE reward_days (
  day INTEGER NOT NULL, type INTEGER NOT NULL, amount BLOB NOT NULL, proofs INTEGER NOT NULL,
  PRIMARY KEY (day, type)) WITHOUT ROWID;
CREATE TABLE proofs (
  proof_id BLOB PRIMARY KEY, node_id TEXT NOT NULL, wallet TEXT NOT NULL, own INTEGER NOT NULL, type INTEGER NOT NULL,
  first_layer INTEGER, timestamp_us INTEGER NOT NULL, nonce TEXT NOT NULL, epoch_id INTEGER NOT NULL,
  uptime_begin_us INTEGER NOT NULL, accepted INTEGER NOT NULL, reason TEXT NOT NULL, reward BLOB NOT NULL,
  payload BLOB NOT NULL, public_key BLOB NOT NULL, signature BLOB NOT NULL, delegation BLOB NOT NULL,
  UNIQUE (node_id, nonce)) WITHOUT ROWID;
CREATE INDEX proofs_time ON proofs (own, timestamp_us);
CREATE TABLE receipts (
  receipt_id BLOB PRIMARY KEY, worker_node_id TEXT NOT NULL, driver_node_id TEXT NOT NULL, kind INTEGER NOT NULL,
  work_id TEXT NOT NULL, own INTEGER NOT NULL, confirmed INTEGER NOT NULL, received_us INTEGER NOT NULL,
  worker_blob BLOB NOT NULL, driver_blob BLOB NOT NULL, proof_id BLOB REFERENCES proofs) WITHOUT ROWID;
CREATE INDEX receipts_work ON receipts (work_id);
CREATE INDEX receipts_time ON receipts (received_us);
CREATE TABLE offences (
  offence_id BLOB PRIMARY KEY, class INTEGER NOT NULL, node_id TEXT NOT NULL, wallet TEXT NOT NULL,
  recorded_us INTEGER NOT NULL, slashed BLOB NOT NULL, seq INTEGER REFERENCES transactions, evidence BLOB NOT NULL)
  WITHOUT ROWID;
CREATE INDEX offences_time ON offences (wallet, recorded_us);
CREATE TABLE epochs (
  epoch_id INTEGER PRIMARY KEY, previous_hash BLOB NOT NULL, epoch_hash BLOB NOT NULL, start_us INTEGER NOT NULL,
  end_us INTEGER NOT NULL, last_seq INTEGER NOT NULL, payload BLOB NOT NULL, public_key BLOB NOT NULL,
  signature BLOB NOT NULL);
CREATE TABLE commitments (
  commitment BLOB PRIMARY KEY, proof_id BLOB, created_us INTEGER NOT NULL, preimage BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX commitments_time ON commitments (created_us);
CREATE TABLE idempotency (
  id INTEGER PRIMARY KEY, token BLOB NOT NULL, path TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
  kind INTEGER NOT NULL, result BLOB NOT NULL, delivered INTEGER NOT NULL, created_us INTEGER NOT NULL);
CREATE INDEX idempotency_keyed ON idempotency (key, token, path, created_us) WHERE key <> '';
CREATE INDEX idempotency_plain ON idempotency (body, token, path, created_us) WHERE key = '' AND delivered = 0;
CREATE INDEX idempotency_time ON idempotency (created_us);
)sql";

// What a slash took from a row stays beside what the row was made for; a receipt has its wallets and its
// nonce beside its bytes, so that a second receipt for the same work is found. Version 1 wrote no receipts.
constexpr const char* version_2 = R"sql(
ALTER TABLE unstakes ADD COLUMN slashed BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
ALTER TABLE rewards ADD COLUMN slashed BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';
ALTER TABLE receipts ADD COLUMN worker_wallet TEXT NOT NULL DEFAULT '';
ALTER TABLE receipts ADD COLUMN driver_wallet TEXT NOT NULL DEFAULT '';
ALTER TABLE receipts ADD COLUMN nonce BLOB NOT NULL DEFAULT x'';
CREATE UNIQUE INDEX receipts_same ON receipts (worker_node_id, driver_node_id, work_id, nonce);
CREATE INDEX receipts_unproven ON receipts (received_us) WHERE own = 1 AND confirmed = 1 AND proof_id IS NULL;
UPDATE schema_version SET version = 2;
)sql";

// Proofs are shown by type, newest first, with sums that are kept while they are written. Earlier versions
// wrote no proofs.
constexpr const char* version_3 = R"sql(
CREATE TABLE proof_counts (
  type INTEGER PRIMARY KEY, submitted INTEGER NOT NULL, verified INTEGER NOT NULL, reward BLOB NOT NULL);
CREATE INDEX proofs_type ON proofs (own, type, timestamp_us);
UPDATE schema_version SET version = 3;
)sql";

// A proof that was accepted can be refuted by a spot check; what it is refuted by stays beside it. Claims are
// known by their ranges of steps alone.
constexpr const char* version_4 = R"sql(
ALTER TABLE proofs ADD COLUMN refuted TEXT NOT NULL DEFAULT '';
DROP INDEX rewards_claim;
UPDATE schema_version SET version = 4;
)sql";

// The postings of a transaction are one row (transaction_rows.hpp).
constexpr const char* version_5 = R"sql(
ALTER TABLE postings RENAME TO posting_rows;
CREATE TABLE postings (seq INTEGER PRIMARY KEY REFERENCES transactions, lines BLOB NOT NULL);
)sql";
constexpr const char* version_5_end = R"sql(
DROP TABLE posting_rows;
UPDATE schema_version SET version = 5;
)sql";

/// Brings version 4 to 5: writes the rows of each transaction into one.
void join_postings(sqlite::connection& db) {
  db.execute(version_5);
  {
    sqlite::statement rows(
        db, "SELECT seq, account_id, part, negative, amount FROM posting_rows ORDER BY seq, n");
    sqlite::statement write(db, "INSERT INTO postings VALUES (?, ?)");
    std::vector<uint8_t> lines;
    int64_t seq = 0;
    const auto end = [&] {
      if (!lines.empty())
        write.run(seq, sqlite::blob(lines));
      lines.clear();
    };
    for (auto row = rows.query(); row.next();) {
      if (row.integer(0) != seq)
        end();
      seq = row.integer(0);
      append_line(lines, {row.integer(1), static_cast<account_part>(row.integer(2)), row.integer(3) != 0,
                          row.amount(4)});
    }
    end();
  }
  db.execute(version_5_end);
}

/// step[v] brings version v to v + 1, as does join_postings the last; version 0 is the empty database.
constexpr std::array<const char*, ledger_schema_version - 1> steps = {version_1, version_2, version_3,
                                                                      version_4};

/// 0 for an empty database, -1 for one that is not ours.
int64_t version_of(sqlite::connection& db) {
  int64_t tables = 0;
  bool ours = false;
  {
    sqlite::statement names(db, "SELECT name FROM sqlite_master WHERE type = 'table'");
    for (auto row = names.query(); row.next(); ++tables)
      ours = ours || row.text(0) == "schema_version";
  }
  if (!ours)
    return tables == 0 ? 0 : -1;
  sqlite::statement read(db, "SELECT version FROM schema_version");
  auto row = read.query();
  return row.next() ? row.integer(0) : -1;
}

caf::error refuse_version(int64_t version) {
  if (version < 0)
    return refuse(errc::data_loss, "ledger.db is not a NeuroShard ledger.");
  if (version < ledger_schema_version) {
    problem what;
    what.message = "ledger.db was written by an older version of neuroshard; start the node once.";
    what.reason = "older_version";
    return refuse(errc::failed_precondition, std::move(what));
  }
  problem what;
  what.message = "ledger.db was written by a newer version of neuroshard (its version " +
                 std::to_string(version) + ", this program knows " + std::to_string(ledger_schema_version) +
                 ").";
  what.reason = "newer_version";
  return refuse(errc::failed_precondition, std::move(what));
}

} // namespace

caf::error migrate_schema(sqlite::connection& db) {
  if (!db.execute("BEGIN IMMEDIATE"))
    return db.fault();
  const int64_t from = version_of(db);
  if (!db.faulty() && (from < 0 || from > ledger_schema_version)) {
    db.execute("ROLLBACK");
    return refuse_version(from);
  }
  for (int64_t version = from; version < static_cast<int64_t>(steps.size()); ++version)
    db.execute(steps[static_cast<size_t>(version)]);
  if (from < ledger_schema_version)
    join_postings(db);
  const caf::error failed = db.execute("COMMIT") ? caf::error{} : db.fault();
  if (failed) {
    db.clear_fault();
    db.execute("ROLLBACK");
  }
  return failed;
}

caf::error check_schema(sqlite::connection& db) {
  const int64_t version = version_of(db);
  if (db.faulty())
    return db.fault();
  if (version == ledger_schema_version)
    return {};
  if (version == 0)
    return refuse(errc::not_found, "ledger.db holds no book yet; start the node once.");
  return refuse_version(version);
}

} // namespace neuroshard
