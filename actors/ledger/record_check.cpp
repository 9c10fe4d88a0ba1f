#include "actors/ledger/record_check.hpp"

#include "actors/ledger/ledger_types.hpp"
#include "actors/ledger/receipt.hpp"
#include "actors/ledger/records.hpp"

namespace neuroshard {

namespace {

std::string_view stored_words(sqlite::blob bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string checked_receipt(const sqlite::cursor& row, bool signatures) {
  const auto worker_blob = stored_words(row.bytes(1)), driver_blob = stored_words(row.bytes(2));
  const auto blob = decode_signed_blob(worker_blob);
  const auto what = blob ? decode_receipt(blob->payload) : blob.error();
  if (!what)
    return "is malformed";
  if (receipt_id_of(blob->payload) != row.digest(0))
    return "does not hash to its id: it was changed";
  if (what->worker_node_id != row.text(3) || what->driver_node_id != row.text(4) ||
      what->work_id != row.text(5) || static_cast<int64_t>(what->kind) != row.integer(6) ||
      stored_words(row.bytes(7)) != std::string_view(reinterpret_cast<const char*>(what->nonce.data()), 16))
    return "is not what is written beside it";
  if ((row.integer(8) != 0) == driver_blob.empty())
    return "is confirmed without a counter-signature, or the reverse";
  if (!signatures)
    return {};
  const auto read = read_receipt(worker_blob, driver_blob, row.integer(9) / 1'000);
  if (!read)
    return "has a signature that is not valid";
  if (read->worker.address != row.text(10) || (read->driver ? read->driver->address : "") != row.text(11))
    return "is of other wallets than are written beside it";
  return {};
}

} // namespace

uint64_t check_receipts_and_offences(sqlite::connection& db, bool signatures,
                                     const std::function<void(std::string)>& add) {
  sqlite::statement receipts(
      db,
      "SELECT receipt_id, worker_blob, driver_blob, worker_node_id, driver_node_id, work_id, kind, nonce, "
      "confirmed, received_us, worker_wallet, driver_wallet FROM receipts");
  for (auto row = receipts.query(); row.next();)
    if (const auto fault = checked_receipt(row, signatures); !fault.empty())
      add("receipt " + kernels::to_hex(row.bytes(0)) + " " + fault);
  sqlite::statement offences(
      db, "SELECT o.offence_id, o.evidence, o.slashed, o.seq, t.kind, t.amount, t.refs FROM "
          "offences o LEFT JOIN transactions t ON t.seq = o.seq");
  uint64_t slashes = 0;
  for (auto row = offences.query(); row.next();) {
    const std::string name = kernels::to_hex(row.bytes(0));
    if (kernels::sha256::of(stored_words(row.bytes(1))) != row.digest(0))
      add("the evidence of offence " + name + " does not hash to its id");
    if (row.is_null(3))
      continue;
    ++slashes;
    const bool is_slash = !row.is_null(4) && row.integer(4) == static_cast<int64_t>(transaction_kind::slash);
    if (!is_slash || row.amount(5) != row.amount(2) ||
        row.text(6).find("offence:" + name) == std::string_view::npos)
      add("offence " + name + " is not what its slash says");
  }
  return slashes;
}

} // namespace neuroshard
