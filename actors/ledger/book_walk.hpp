#pragma once

#include "actors/ledger/records.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/transaction_rows.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace neuroshard {

/// What the rows of a book are judged by.
struct book_beginning {
  kernels::digest chain_id{};
  std::string wallet;
  public_key node_key{}; ///< signs the epochs
};

/// What a stretch of postings did to one part of an account.
struct part_flow {
  __int128 net = 0;    ///< atto, at its end
  __int128 lowest = 0; ///< the least of it on the way, at most 0
};

/// Findings of one stretch of transactions, to be joined with those before it.
struct walked_stretch {
  uint64_t first_seq = 0;
  uint64_t last_seq = 0;
  std::vector<std::string> faults; ///< at most faults_max
  uint64_t transactions = 0;
  uint64_t signatures = 0;                  ///< verified
  uint64_t slashes = 0;                     ///< transactions of this kind
  uint64_t rewards = 0;                     ///< likewise
  uint64_t voids = 0;                       ///< likewise
  uint64_t first_nonce = 0, last_nonce = 0; ///< of its signed rows; 0: none
  int64_t first_us = 0, last_us = 0;
  /// available, staked, pending by account id; for `mint` what it made.
  std::unordered_map<int64_t, std::array<part_flow, 3>> flows;
  std::map<std::pair<int32_t, int64_t>, neuro_amount> minted; ///< by UTC day and time of the row
};

inline constexpr size_t faults_max = 20;

/// Checks stretches of a book: ids, hashes, the chain from the row before, postings, signatures. Stretches do
/// not depend on each other, since each row is checked against the stored hash before it: every core can walk
/// its own. One thread an instance; it reads through the connection it is given, rows that are never changed.
class book_walk {
public:
  book_walk(sqlite::connection& db, const book_beginning& beginning, const account_names& names);

  /// Transactions first_seq to last_seq, both included.
  walked_stretch walk(uint64_t first_seq, uint64_t last_seq, bool signatures);

private:
  void judge(walked_stretch& to, bool& complete);
  void fault(walked_stretch& to, std::string what) const;
  std::string name() const { return "transaction " + std::to_string(now_.seq); }

  const book_beginning& beginning_;
  const account_names& names_;
  sqlite::statement before_, transactions_, postings_;
  posting_hasher hasher_;
  transaction now_;
  std::string payload_;
  std::vector<posting_line> lines_;
  public_key known_key_{};
  std::string known_address_;
};

} // namespace neuroshard
