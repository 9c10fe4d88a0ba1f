#pragma once

#include "actors/ledger/economics_params.hpp"
#include "actors/ledger/epoch_record.hpp"
#include "actors/ledger/sqlite.hpp"

#include <cstdint>
#include <optional>

namespace neuroshard {

/// Where the chain of epochs stands: what the last closed one holds, or the beginning of the book.
struct epoch_link {
  kernels::digest epoch_hash{}; ///< the chain id while there is none
  int64_t end_us = 0;
  uint64_t last_seq = 0;
  kernels::digest last_row_hash{}; ///< the chain id while there is no transaction
};

/// What the rows of a book say of one minute.
struct epoch_content {
  std::optional<int64_t> first_us; ///< of the first transaction after the link
  uint64_t transactions = 0;
  uint64_t last_seq = 0;
  kernels::digest last_row_hash{};
  kernels::digest tx_root{};
  neuro_amount reward;
  uint64_t proofs = 0;
  kernels::digest proofs_root{};
  kernels::digest commitments_root{};
  uint64_t label_tokens = 0;
  std::optional<uint64_t> average_loss_e6; ///< by label tokens, rounded down
  std::optional<kernels::digest> model_hash_start;
  std::optional<kernels::digest> model_hash_end;
  uint64_t receipts = 0;
  kernels::digest receipts_root{};
};

/// Reads minutes from the rows: the book closes its epochs by it, and a check of the book makes them again.
class epoch_content_reader {
public:
  explicit epoch_content_reader(sqlite::connection& db);
  /// The earliest minute after the link that is not empty.
  std::optional<uint64_t> next_minute(const epoch_link& after);
  epoch_content read(uint64_t epoch_id, const epoch_link& after);

private:
  void read_transactions(epoch_content& to, int64_t end_us, const epoch_link& after);
  void read_proofs(epoch_content& to, int64_t start_us, int64_t end_us);
  void read_receipts(epoch_content& to, int64_t start_us, int64_t end_us);

  sqlite::statement next_transaction_, next_proof_, next_receipt_, transactions_, proofs_, receipts_;
};

/// The record of a minute. `params` are those in force at its start.
epoch_record epoch_of(uint64_t epoch_id, const epoch_content& content, const epoch_link& after,
                      const kernels::digest& chain_id, const economics_params& params);

} // namespace neuroshard
