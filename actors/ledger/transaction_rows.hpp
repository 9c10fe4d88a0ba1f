#pragma once

#include "actors/ledger/records.hpp"
#include "actors/ledger/sqlite.hpp"

#include <string>
#include <vector>

namespace neuroshard {

/// Addresses of the accounts by their id; unknown ids give an empty text.
class account_names {
public:
  explicit account_names(sqlite::connection& db);
  const std::string& of(int64_t id) const;

private:
  std::vector<std::string> names_;
};

/// Columns for read_transaction, to be selected from `transactions` (alias t).
inline constexpr const char* transaction_columns =
    "t.seq, t.tx_id, t.kind, t.from_id, t.to_id, t.amount, t.fee, t.burned, t.nonce, t.timestamp_us, t.memo, "
    "t.refs, "
    "t.public_key, t.signature, t.hash";
/// Reads one row but for `from` and `to`, whose account ids are given. False when it is malformed (which an
/// edit of the file can make it).
bool read_transaction(const sqlite::cursor& row, transaction& out, int64_t& from_id, int64_t& to_id);

} // namespace neuroshard
