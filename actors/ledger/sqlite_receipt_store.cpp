#include "actors/ledger/sqlite_receipt_store.hpp"

namespace neuroshard {

namespace {

using sqlite::connection;
using sqlite::statement;

sqlite::blob stored_bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string_view stored_text(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class sqlite_receipt_store final : public receipt_store {
public:
  explicit sqlite_receipt_store(connection& db)
      : receipt_(db, "SELECT own, confirmed, received_us, worker_blob, driver_blob, worker_wallet, "
                     "driver_wallet FROM receipts WHERE receipt_id = ?"),
        same_work_(db, "SELECT receipt_id FROM receipts WHERE worker_node_id = ? AND driver_node_id = ? AND "
                       "work_id = ? AND nonce = ?"),
        insert_receipt_(db,
                        "INSERT INTO receipts (receipt_id, worker_node_id, driver_node_id, kind, work_id, "
                        "nonce, own, confirmed, received_us, worker_blob, driver_blob, worker_wallet, "
                        "driver_wallet) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
        confirm_(db, "UPDATE receipts SET confirmed = ?, received_us = ?, worker_blob = ?, driver_blob = ?, "
                     "worker_wallet = ?, driver_wallet = ? WHERE receipt_id = ?"),
        insert_offence_(db, "INSERT INTO offences VALUES (?, ?, ?, ?, ?, ?, ?, ?)"),
        offence_(db,
                 "SELECT o.slashed, t.tx_id FROM offences o LEFT JOIN transactions t ON t.seq = o.seq WHERE "
                 "o.offence_id = ?"),
        last_slash_(db, "SELECT max(recorded_us) FROM offences WHERE wallet = ? AND class = ? AND seq IS NOT "
                        "NULL"),
        slash_unstake_(db, "UPDATE unstakes SET slashed = ? WHERE id = ?"),
        slash_reward_(db, "UPDATE rewards SET slashed = ? WHERE id = ?") {}

  std::optional<receipt_row> receipt_of(const digest& id) override {
    auto row = receipt_.query(id);
    if (!row.next())
      return std::nullopt;
    auto what = kept_receipt(row.bytes(3));
    if (!what)
      return std::nullopt;
    return receipt_row{std::move(*what),
                       id,
                       row.integer(0) != 0,
                       row.integer(1) != 0,
                       row.integer(2),
                       std::string(stored_text(row.bytes(3))),
                       std::string(stored_text(row.bytes(4))),
                       std::string(row.text(5)),
                       std::string(row.text(6))};
  }

  std::optional<digest> same_work(const receipt& of) override {
    auto row = same_work_.query(of.worker_node_id, of.driver_node_id, of.work_id, sqlite::blob(of.nonce));
    return row.next() ? std::optional(row.digest(0)) : std::nullopt;
  }

  void insert(const receipt_row& row) override {
    insert_receipt_.run(row.id, row.what.worker_node_id, row.what.driver_node_id,
                        static_cast<int>(row.what.kind), row.what.work_id, sqlite::blob(row.what.nonce),
                        row.own, row.confirmed, row.received_us, stored_bytes(row.worker_blob),
                        stored_bytes(row.driver_blob), row.worker_wallet, row.driver_wallet);
  }

  void confirm(const receipt_row& row) override {
    confirm_.run(row.confirmed, row.received_us, stored_bytes(row.worker_blob), stored_bytes(row.driver_blob),
                 row.worker_wallet, row.driver_wallet, row.id);
  }

  void insert(const offence_row& row) override {
    const auto seq = row.seq == 0 ? std::nullopt : std::optional(row.seq);
    insert_offence_.run(row.id, static_cast<int>(row.what), row.node_id, row.wallet, row.recorded_us,
                        row.slashed, seq, stored_bytes(row.evidence));
  }

  std::optional<offence_answer> offence(const digest& id) override {
    auto row = offence_.query(id);
    if (!row.next())
      return std::nullopt;
    return offence_answer{row.is_null(1) ? std::string() : kernels::to_hex(row.digest(1)), row.amount(0)};
  }

  std::optional<int64_t> last_slash_us(const std::string& wallet, offence_class what) override {
    auto row = last_slash_.query(wallet, static_cast<int>(what));
    if (!row.next() || row.is_null(0))
      return std::nullopt;
    return row.integer(0);
  }

  void slash_unstake(int64_t id, neuro_amount slashed) override { slash_unstake_.run(slashed, id); }
  void slash_reward(int64_t id, neuro_amount slashed) override { slash_reward_.run(slashed, id); }

private:
  statement receipt_, same_work_, insert_receipt_, confirm_, insert_offence_, offence_, last_slash_,
      slash_unstake_, slash_reward_;
};

} // namespace

std::unique_ptr<receipt_store> make_sqlite_receipt_store(connection& db) {
  return std::make_unique<sqlite_receipt_store>(db);
}

std::optional<receipt> kept_receipt(sqlite::blob worker_blob) {
  const auto blob = decode_signed_blob(stored_text(worker_blob));
  if (!blob)
    return std::nullopt;
  auto what = decode_receipt(blob->payload);
  return what ? std::optional(std::move(*what)) : std::nullopt;
}

} // namespace neuroshard
