#pragma once

#include "actors/common/error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard {

/// What a check of the book counted.
struct book_findings {
  std::vector<std::string> faults; ///< empty: all in order; at most 20 are listed
  uint64_t transactions = 0;
  uint64_t accounts = 0;
  uint64_t epochs = 0;
  uint64_t proofs = 0;
  uint64_t signatures = 0; ///< of transactions and proofs, verified
  std::string chain_id;
  std::string minted;
  std::string burned;
};

/// Start-up: sums of all balances against the totals, and the newest 10,000 transactions against their
/// hashes. Reads through a connection of its own. Answers the faults found; an error when the file cannot be
/// read.
caf::expected<std::vector<std::string>> check_recent(const std::string& path);

/// Replays the whole book: every balance from the postings, the hash chain, every invariant of
/// spec/economics.md section 11; with `signatures` every signature too, on all cores.
caf::expected<book_findings> verify_book(const std::string& path, bool signatures);

} // namespace neuroshard
