#include "actors/ledger/reader_queries.hpp"
#include "actors/ledger/sqlite_receipt_store.hpp"

namespace neuroshard::queries {

using sqlite::connection;
using sqlite::statement;

receipt_page receipts(connection& db, uint32_t limit, uint64_t offset) {
  receipt_page page;
  statement count(db, "SELECT count(*) FROM receipts");
  if (auto row = count.query(); row.next())
    page.total = static_cast<uint64_t>(row.integer(0));
  statement rows(db,
                 "SELECT receipt_id, worker_blob, worker_wallet, driver_wallet, own, confirmed, received_us, "
                 "proof_id FROM receipts ORDER BY received_us DESC, receipt_id LIMIT ? OFFSET ?");
  for (auto row = rows.query(limit, offset); row.next();) {
    auto what = kept_receipt(row.bytes(1));
    if (!what)
      continue; // The file was edited; `neuroshard ledger verify` says so.
    receipt_item item;
    item.id = row.digest(0);
    item.what = std::move(*what);
    item.worker_wallet = row.text(2);
    item.driver_wallet = row.text(3);
    item.own = row.integer(4) != 0;
    item.confirmed = row.integer(5) != 0;
    item.received_us = row.integer(6);
    if (!row.is_null(7))
      item.proof_id = row.digest(7);
    page.items.push_back(std::move(item));
  }
  return page;
}

std::vector<digest> unproven_receipts(connection& db, int64_t from_us, int64_t to_us, size_t limit) {
  std::vector<digest> ids;
  statement rows(db,
                 "SELECT receipt_id FROM receipts WHERE own = 1 AND confirmed = 1 AND proof_id IS NULL AND "
                 "received_us >= ? AND received_us < ? AND driver_wallet <> worker_wallet ORDER BY "
                 "received_us, receipt_id LIMIT ?");
  for (auto row = rows.query(from_us, to_us, static_cast<uint64_t>(limit)); row.next();)
    ids.push_back(row.digest(0));
  return ids;
}

} // namespace neuroshard::queries
