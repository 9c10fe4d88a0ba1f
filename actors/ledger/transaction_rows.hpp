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

/// A posting as the table `postings` keeps it: all of a transaction are one row, one line of 25 bytes after
/// the other, in their order; none where there are none: account id (8, big-endian), part (1, its highest bit
/// set where it takes), amount (16, big-endian). A row each would cost the writer a third more, and a check
/// twice the time to read.
struct posting_line {
  int64_t account_id = 0;
  account_part part{};
  bool negative = false;
  neuro_amount amount;
};
void append_line(std::vector<uint8_t>& to, const posting_line& line);
/// False when these are no such lines (which an edit of the file can make them).
bool read_lines(sqlite::blob from, std::vector<posting_line>& out);

} // namespace neuroshard
