// Proofs of this node and epochs, as they are shown.
#include "actors/ledger/reader_queries.hpp"

namespace neuroshard::queries {

using sqlite::connection;
using sqlite::statement;

proof_page proofs(connection& db, uint32_t limit, uint64_t offset, std::optional<proof_type> type) {
  proof_page page;
  {
    statement counts(db, "SELECT type, submitted FROM proof_counts");
    for (auto row = counts.query(); row.next();)
      if (!type || row.integer(0) == static_cast<int64_t>(*type))
        page.total += static_cast<uint64_t>(row.integer(1));
  }
  const std::string sql = std::string("SELECT proof_id, type, first_layer, timestamp_us, accepted AND "
                                      "refuted = '', reason || refuted, reward "
                                      "FROM proofs "
                                      "WHERE own = 1") +
                          (type ? " AND type = " + std::to_string(static_cast<int>(*type)) : std::string()) +
                          " ORDER BY timestamp_us DESC, proof_id DESC LIMIT ? OFFSET ?";
  statement rows(db, sql.c_str());
  for (auto row = rows.query(limit, offset); row.next();) {
    auto& item = page.items.emplace_back();
    item.id = kernels::to_hex(row.digest(0));
    item.type = static_cast<proof_type>(row.integer(1));
    if (!row.is_null(2))
      item.first_layer = static_cast<uint64_t>(row.integer(2));
    item.timestamp_us = row.integer(3);
    item.verified = row.integer(4) != 0;
    item.reason = row.text(5);
    item.reward = row.amount(6);
  }
  return page;
}

proof_stats stats_of_proofs(connection& db) {
  proof_stats stats;
  statement counts(db, "SELECT submitted, verified, reward FROM proof_counts");
  for (auto row = counts.query(); row.next();) {
    stats.total_submitted += static_cast<uint64_t>(row.integer(0));
    stats.total_verified += static_cast<uint64_t>(row.integer(1));
    stats.total_reward.atto += row.amount(2).atto; // Below what was minted: it fits.
  }
  return stats;
}

std::optional<closed_epoch> last_closed_epoch(connection& db) {
  statement read(db, "SELECT epoch_id, epoch_hash, end_us FROM epochs ORDER BY epoch_id DESC LIMIT 1");
  auto row = read.query();
  if (!row.next())
    return std::nullopt;
  return closed_epoch{static_cast<uint64_t>(row.integer(0)), row.digest(1), row.integer(2)};
}

} // namespace neuroshard::queries
