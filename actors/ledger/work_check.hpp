#pragma once

#include "actors/ledger/book_walk.hpp"
#include "actors/ledger/economics_params.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// What a check of the epochs and proofs of a book counted.
struct work_findings {
  std::vector<std::string> faults; ///< at most faults_max
  uint64_t epochs = 0;
  uint64_t proofs = 0;
  uint64_t commitments = 0;
  uint64_t rewards = 0;    ///< that were minted
  uint64_t voids = 0;      ///< rewards that were voided because their proof is refuted
  uint64_t signatures = 0; ///< of proofs, verified
};

/// Checks what a book says of work: the chain of epochs against everything they sum up (each is made again
/// from the rows), the proofs against their ids, columns, rewards and receipts, the rewards against their
/// transactions, caps and ranges of steps, the commitments against their preimages. Signatures of epochs are
/// always verified, those of proofs with `signatures`. `params` with the time from which they are in force,
/// ascending. The connection is in a read transaction.
work_findings check_work(sqlite::connection& db, const book_beginning& beginning,
                         const std::vector<std::pair<int64_t, economics_params>>& params, bool signatures);

} // namespace neuroshard
