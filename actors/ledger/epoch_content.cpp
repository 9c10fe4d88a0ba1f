#include "actors/ledger/epoch_content.hpp"

#include "actors/ledger/merkle.hpp"
#include "actors/ledger/records.hpp"

#include <algorithm>
#include <vector>

namespace neuroshard {

namespace {

using u128 = unsigned __int128;

int64_t start_of_epoch(uint64_t id) {
  return static_cast<int64_t>(id) * epoch_us;
}

} // namespace

epoch_content_reader::epoch_content_reader(sqlite::connection& db)
    : next_transaction_(db, "SELECT timestamp_us FROM transactions WHERE seq = ?"),
      next_proof_(db, "SELECT timestamp_us FROM proofs WHERE own = 1 AND accepted = 1 AND timestamp_us >= ? "
                      "ORDER BY timestamp_us LIMIT 1"),
      // Only confirmed ones count, from the time of their confirmation on; they do not change any more.
      next_receipt_(db, "SELECT received_us FROM receipts WHERE received_us >= ? AND confirmed = 1 ORDER BY "
                        "received_us LIMIT 1"),
      transactions_(
          db,
          "SELECT seq, tx_id, kind, amount, timestamp_us, hash FROM transactions WHERE seq > ? ORDER BY seq"),
      proofs_(db, "SELECT proof_id, payload FROM proofs WHERE own = 1 AND accepted = 1 AND timestamp_us >= ? "
                  "AND timestamp_us < ? ORDER BY timestamp_us, proof_id"),
      receipts_(db, "SELECT receipt_id FROM receipts WHERE received_us >= ? AND received_us < ? AND "
                    "confirmed = 1") {}

std::optional<uint64_t> epoch_content_reader::next_minute(const epoch_link& after) {
  std::optional<int64_t> first;
  const auto look = [&](sqlite::cursor row) {
    if (row.next())
      first = std::min(first.value_or(INT64_MAX), row.integer(0));
  };
  look(next_transaction_.query(after.last_seq + 1));
  look(next_proof_.query(after.end_us));
  look(next_receipt_.query(after.end_us));
  if (!first)
    return std::nullopt;
  // Rows that an edit of the file dated back belong to no open minute.
  return static_cast<uint64_t>(std::max(*first, after.end_us) / epoch_us);
}

epoch_content epoch_content_reader::read(uint64_t epoch_id, const epoch_link& after) {
  const int64_t start_us = start_of_epoch(epoch_id), end_us = start_us + epoch_us;
  epoch_content made;
  read_transactions(made, end_us, after);
  read_proofs(made, start_us, end_us);
  read_receipts(made, start_us, end_us);
  return made;
}

void epoch_content_reader::read_transactions(epoch_content& to, int64_t end_us, const epoch_link& after) {
  to.last_seq = after.last_seq;
  to.last_row_hash = after.last_row_hash;
  std::vector<kernels::digest> ids;
  for (auto row = transactions_.query(after.last_seq); row.next();) {
    const int64_t at_us = row.integer(4);
    if (!to.first_us)
      to.first_us = at_us;
    if (at_us >= end_us)
      break; // Times never fall with seq.
    ids.push_back(row.digest(1));
    to.last_seq = static_cast<uint64_t>(row.integer(0));
    to.last_row_hash = row.digest(5);
    if (row.integer(2) == static_cast<int64_t>(transaction_kind::reward))
      to.reward = checked_add(to.reward, row.amount(3)).value_or(to.reward);
  }
  to.transactions = ids.size();
  to.tx_root = merkle_root(std::move(ids));
}

void epoch_content_reader::read_proofs(epoch_content& to, int64_t start_us, int64_t end_us) {
  std::vector<kernels::digest> ids, commitments;
  u128 loss = 0, weight = 0;
  for (auto row = proofs_.query(start_us, end_us); row.next();) {
    ids.push_back(row.digest(0));
    const auto payload = row.bytes(1);
    const auto proof = read_proof({reinterpret_cast<const char*>(payload.data()), payload.size()});
    if (!proof)
      continue; // Only an edit of the file makes one that cannot be read.
    if (proof->gradient_commitment)
      commitments.push_back(*proof->gradient_commitment);
    if (proof->label_tokens == 0)
      continue;
    to.label_tokens += proof->label_tokens;
    if (!to.model_hash_start)
      to.model_hash_start = proof->model_hash_start;
    to.model_hash_end = proof->model_hash_end;
    if (proof->loss_e6) {
      loss += u128{*proof->loss_e6} * proof->label_tokens;
      weight += proof->label_tokens;
    }
  }
  if (weight > 0)
    to.average_loss_e6 = static_cast<uint64_t>(loss / weight);
  to.proofs = ids.size();
  to.proofs_root = merkle_root(std::move(ids));
  to.commitments_root = merkle_root(std::move(commitments));
}

void epoch_content_reader::read_receipts(epoch_content& to, int64_t start_us, int64_t end_us) {
  std::vector<kernels::digest> ids;
  for (auto row = receipts_.query(start_us, end_us); row.next();)
    ids.push_back(row.digest(0));
  to.receipts = ids.size();
  to.receipts_root = merkle_root(std::move(ids));
}

epoch_record epoch_of(uint64_t epoch_id, const epoch_content& content, const epoch_link& after,
                      const kernels::digest& chain_id, const economics_params& params) {
  epoch_record made;
  made.chain_id = chain_id;
  made.epoch_id = epoch_id;
  made.prev_epoch_hash = after.epoch_hash;
  made.start_us = start_of_epoch(epoch_id);
  made.end_us = made.start_us + epoch_us;
  made.params_hash = params_hash(params);
  made.model_hash_start = content.model_hash_start;
  made.model_hash_end = content.model_hash_end;
  made.proofs_root = content.proofs_root;
  made.proof_count = content.proofs;
  made.receipts_root = content.receipts_root;
  made.total_reward = to_atto_text(content.reward);
  made.total_batches = content.label_tokens / std::max<uint64_t>(params.batch_tokens, 1);
  made.average_loss_e6 = content.average_loss_e6;
  made.commitments_root = content.commitments_root;
  made.tx_root = content.tx_root;
  made.last_seq = content.last_seq;
  made.last_row_hash = content.last_row_hash;
  return made;
}

} // namespace neuroshard
