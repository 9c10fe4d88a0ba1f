#include "actors/ledger/sqlite_proof_store.hpp"

#include "actors/ledger/utc_date.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

using sqlite::blob;
using sqlite::connection;
using sqlite::statement;

blob bytes_of(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class sqlite_proof_store final : public proof_store {
public:
  explicit sqlite_proof_store(connection& db)
      : answer_(db, "SELECT 1 FROM proofs WHERE proof_id = ? AND own = 1"),
        rewarded_(db,
                  "SELECT amount, steps_rewarded, capped FROM rewards WHERE proof_id = ? AND proof_id <> ''"),
        standing_(db, "SELECT type, accepted, refuted, reward FROM proofs WHERE proof_id = ? AND own = 1"),
        refute_(db, "UPDATE proofs SET refuted = ?, reward = ? WHERE proof_id = ?"),
        nonce_(db, "SELECT 1 FROM proofs WHERE node_id = ? AND nonce = ?"),
        insert_(db, "INSERT INTO proofs VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')"),
        counts_(db, "SELECT submitted, verified, reward FROM proof_counts WHERE type = ?"),
        save_counts_(db, "INSERT OR REPLACE INTO proof_counts VALUES (?, ?, ?, ?)"),
        receipt_(db, "SELECT own, confirmed, proof_id IS NOT NULL, driver_wallet FROM receipts WHERE "
                     "receipt_id = ?"),
        put_receipt_(db, "UPDATE receipts SET proof_id = ? WHERE receipt_id = ?"),
        count_commitments_(db, "SELECT count(*) FROM commitments"),
        keep_commitment_(db, "INSERT INTO commitments VALUES (?, NULL, ?, ?) ON CONFLICT (commitment) DO "
                             "UPDATE SET created_us = excluded.created_us"),
        put_commitment_(db, "UPDATE commitments SET proof_id = ? WHERE commitment = ? AND proof_id IS NULL"),
        forget_commitments_(
            db, "DELETE FROM commitments WHERE created_us <= ? OR (proof_id IS NULL AND created_us <= ?)"),
        last_epoch_(
            db, "SELECT epoch_hash, end_us, last_seq, payload FROM epochs ORDER BY epoch_id DESC LIMIT 1"),
        insert_epoch_(db, "INSERT INTO epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"), minutes_(db) {}

  std::optional<proof_answer> answer(const kernels::digest& proof_id) override {
    auto row = answer_.query(proof_id);
    if (!row.next())
      return std::nullopt;
    proof_answer made;
    const std::string name = kernels::to_hex(proof_id);
    for (auto part = rewarded_.query(name); part.next();) {
      made.reward.atto += part.amount(0).atto; // At most the cap of a proof.
      made.steps_rewarded += static_cast<uint64_t>(part.integer(1));
      made.capped = made.capped || part.integer(2) != 0;
    }
    return made;
  }

  bool knows_nonce(const std::string& node_id, const std::string& nonce) override {
    return nonce_.query(node_id, nonce).next();
  }

  void insert(const proof_row& row) override {
    insert_.run(row.id, row.node_id, row.wallet, static_cast<int>(row.type), row.first_layer,
                row.timestamp_us, row.nonce, row.epoch_id, row.uptime_begin_us, row.accepted, row.reason,
                row.reward, bytes_of(row.proof.payload), blob(row.proof.key), blob(row.proof.sig),
                bytes_of(row.proof.delegation));
    uint64_t submitted = 1, verified = row.accepted ? 1 : 0;
    neuro_amount reward = row.reward;
    if (auto sums = counts_.query(static_cast<int>(row.type)); sums.next()) {
      submitted += static_cast<uint64_t>(sums.integer(0));
      verified += static_cast<uint64_t>(sums.integer(1));
      reward.atto += sums.amount(2).atto; // Below what was minted: it fits.
    }
    save_counts_.run(static_cast<int>(row.type), submitted, verified, reward);
  }

  std::optional<proof_standing> standing(const kernels::digest& proof_id) override {
    auto row = standing_.query(proof_id);
    if (!row.next())
      return std::nullopt;
    return proof_standing{static_cast<proof_type>(row.integer(0)), row.integer(1) != 0,
                          std::string(row.text(2)), row.amount(3)};
  }

  void refute(const kernels::digest& proof_id, const proof_standing& as_it_stands, const std::string& reason,
              neuro_amount left) override {
    refute_.run(reason, left, proof_id);
    const int type = static_cast<int>(as_it_stands.type);
    auto sums = counts_.query(type);
    if (!sums.next())
      return; // Verify tells of a proof that is not counted.
    const auto submitted = static_cast<uint64_t>(sums.integer(0)),
               verified = static_cast<uint64_t>(sums.integer(1));
    const auto reward = checked_sub(sums.amount(2), {as_it_stands.reward.atto - left.atto});
    save_counts_.run(type, submitted, std::max<uint64_t>(verified, 1) - 1, reward.value_or(neuro_amount{}));
  }

  std::optional<held_receipt> receipt(const kernels::digest& receipt_id) override {
    auto row = receipt_.query(receipt_id);
    if (!row.next())
      return std::nullopt;
    return held_receipt{row.integer(0) != 0, row.integer(1) != 0, row.integer(2) != 0,
                        std::string(row.text(3))};
  }

  void put_receipt(const kernels::digest& receipt_id, const kernels::digest& proof_id) override {
    put_receipt_.run(proof_id, receipt_id);
  }

  uint64_t count_commitments() override {
    auto row = count_commitments_.query();
    return row.next() ? static_cast<uint64_t>(row.integer(0)) : 0;
  }

  void keep_commitment(const kernels::digest& commitment, const std::string& preimage,
                       int64_t now_us) override {
    keep_commitment_.run(commitment, now_us, bytes_of(preimage));
  }

  void put_commitment(const kernels::digest& commitment, const kernels::digest& proof_id) override {
    put_commitment_.run(proof_id, commitment);
  }

  void forget_commitments(int64_t before_us) override {
    constexpr int64_t unused_us = 22 * 3'600 * us_per_second; // two hours instead of a day
    forget_commitments_.run(before_us, before_us + unused_us);
  }

  std::optional<epoch_link> last_epoch() override {
    auto row = last_epoch_.query();
    if (!row.next())
      return std::nullopt;
    epoch_link made{row.digest(0), row.integer(1), static_cast<uint64_t>(row.integer(2)), {}};
    const blob payload = row.bytes(3);
    if (const auto epoch = read_epoch({reinterpret_cast<const char*>(payload.data()), payload.size()}))
      made.last_row_hash = epoch->last_row_hash;
    return made;
  }

  std::optional<uint64_t> next_minute(const epoch_link& after) override {
    return minutes_.next_minute(after);
  }

  epoch_content content(uint64_t epoch_id, const epoch_link& after) override {
    return minutes_.read(epoch_id, after);
  }

  void insert_epoch(const epoch_row& row) override {
    insert_epoch_.run(row.id, row.previous_hash, row.hash, row.start_us, row.end_us, row.last_seq,
                      bytes_of(row.signed_record.payload), blob(row.signed_record.key),
                      blob(row.signed_record.sig));
  }

private:
  statement answer_, rewarded_, standing_, refute_, nonce_, insert_, counts_, save_counts_, receipt_,
      put_receipt_, count_commitments_, keep_commitment_, put_commitment_, forget_commitments_, last_epoch_,
      insert_epoch_;
  epoch_content_reader minutes_;
};

} // namespace

std::unique_ptr<proof_store> make_sqlite_proof_store(connection& db) {
  return std::make_unique<sqlite_proof_store>(db);
}

} // namespace neuroshard
