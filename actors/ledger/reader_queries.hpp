#pragma once

#include "actors/ledger/ledger_reader.hpp"
#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/sqlite.hpp"

/// The queries behind ledger_reader, each within one read transaction of the connection. Failures are noted
/// at the connection.
namespace neuroshard::queries {

/// A row of zeros with id 0 when the book does not know the address.
account_row account(sqlite::connection& db, const std::string& address);
std::optional<stake_state> stake(sqlite::connection& db, const account_row& of,
                                 const economics_params& params);
history_page history(sqlite::connection& db, const account_row& of, const history_query& query);
reward_rate_report reward_rate(sqlite::connection& db, const account_row& of, const economics_params& params,
                               int64_t now_us, bool driver, bool validator, bool training);
std::vector<recent_proof> recent_proofs(sqlite::connection& db, int64_t since_us);
proof_page proofs(sqlite::connection& db, uint32_t limit, uint64_t offset, std::optional<proof_type> type);
proof_stats stats_of_proofs(sqlite::connection& db);
std::optional<closed_epoch> last_closed_epoch(sqlite::connection& db);
receipt_page receipts(sqlite::connection& db, uint32_t limit, uint64_t offset);
std::vector<digest> unproven_receipts(sqlite::connection& db, int64_t from_us, int64_t to_us, size_t limit);

} // namespace neuroshard::queries
