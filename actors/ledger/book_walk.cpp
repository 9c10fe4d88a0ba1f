#include "actors/ledger/book_walk.hpp"

#include "actors/identity/keys.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

/// Sums of 128-bit amounts stay within a signed 128-bit integer below this; a book is far from it.
constexpr unsigned __int128 amount_max = static_cast<unsigned __int128>(1) << 126;

std::string transactions_between() {
  return std::string("SELECT ") + transaction_columns +
         " FROM transactions t WHERE t.seq BETWEEN ? AND ? ORDER BY t.seq";
}

} // namespace

book_walk::book_walk(sqlite::connection& db, const book_beginning& beginning, const account_names& names)
    : beginning_(beginning), names_(names), before_(db, "SELECT hash FROM transactions WHERE seq = ?"),
      transactions_(db, transactions_between().c_str()),
      postings_(db, "SELECT seq, lines FROM postings WHERE seq BETWEEN ? AND ? ORDER BY seq") {}

void book_walk::fault(walked_stretch& to, std::string what) const {
  if (to.faults.size() < faults_max)
    to.faults.push_back(std::move(what));
}

walked_stretch book_walk::walk(uint64_t first_seq, uint64_t last_seq, bool signatures) {
  walked_stretch made;
  made.first_seq = first_seq;
  made.last_seq = last_seq;
  kernels::digest previous = beginning_.chain_id;
  if (first_seq > 1) {
    auto row = before_.query(first_seq - 1);
    if (row.next())
      previous = row.digest(0);
  }
  auto row = transactions_.query(first_seq, last_seq);
  auto next_line = postings_.query(first_seq, last_seq);
  bool more = next_line.next();
  uint64_t expected = first_seq;
  while (row.next() && made.faults.size() < faults_max) {
    int64_t from_id = 0, to_id = 0;
    const bool well_formed = read_transaction(row, now_, from_id, to_id);
    if (now_.seq != expected) {
      fault(made, "transaction " + std::to_string(expected) + " is missing");
      return made;
    }
    ++expected;
    if (!well_formed) {
      fault(made, name() + " is malformed");
      return made;
    }
    now_.from = names_.of(from_id);
    now_.to = names_.of(to_id);
    lines_.clear();
    for (; more && static_cast<uint64_t>(next_line.integer(0)) <= now_.seq; more = next_line.next()) {
      if (static_cast<uint64_t>(next_line.integer(0)) != now_.seq)
        fault(made, "a posting of a transaction that does not exist stands before " + name());
      else if (!read_lines(next_line.bytes(1), lines_))
        fault(made, name() + " has malformed postings");
    }

    canonical_payload(now_, beginning_.chain_id, payload_);
    if (kernels::sha256::of(std::string_view(payload_)) != now_.id)
      fault(made, name() + " does not hash to its id: it was changed");
    for (const auto& each : lines_)
      hasher_.add(names_.of(each.account_id), each.part, each.negative, each.amount);
    if (row_hash(previous, now_.seq, payload_, now_.sig, hasher_.finish()) != now_.hash)
      fault(made, name() + " breaks the hash chain: it, its postings or its signature were changed");
    previous = now_.hash;

    bool complete = true;
    judge(made, complete);
    if (!complete)
      return made;
    if (made.transactions > 0 && now_.timestamp_us < made.last_us)
      fault(made, name() + " is dated before the one it follows");
    if (made.transactions == 0)
      made.first_us = now_.timestamp_us;
    made.last_us = now_.timestamp_us;

    if (is_signed(now_.kind) != (now_.key && now_.sig)) {
      fault(made, name() + (is_signed(now_.kind) ? " is not signed" : " must not be signed"));
    } else if (now_.key) {
      if (*now_.key != known_key_ || known_address_.empty()) {
        known_key_ = *now_.key;
        known_address_ = address_of(known_key_);
      }
      if (known_address_ != beginning_.wallet || now_.from != beginning_.wallet)
        fault(made, name() + " is signed by another wallet");
      if (signatures) {
        ++made.signatures;
        if (!verify_digest(*now_.key, *now_.sig, signing_digest(transaction_tag, payload_)))
          fault(made, "the signature of " + name() + " is not valid");
      }
    }
    made.slashes += now_.kind == transaction_kind::slash ? 1 : 0;
    made.rewards += now_.kind == transaction_kind::reward ? 1 : 0;
    made.voids += now_.kind == transaction_kind::reward_void ? 1 : 0;
    ++made.transactions;
  }
  if (made.faults.size() < faults_max && expected != last_seq + 1)
    fault(made, "transaction " + std::to_string(expected) + " is missing");
  if (more && made.faults.empty())
    fault(made, "there are postings without a transaction");
  return made;
}

void book_walk::judge(walked_stretch& to, bool& complete) {
  __int128 sum = 0;
  for (const auto& each : lines_) {
    const std::string& account = names_.of(each.account_id);
    if (account.empty() || each.part < account_part::available || each.part > account_part::pending ||
        each.amount.atto >= amount_max) {
      fault(to, name() + " has a malformed posting");
      complete = false;
      return;
    }
    const bool mint = account == mint_account;
    if (mint && !each.negative)
      fault(to, name() + " takes back what was minted");
    if (each.negative && account == burn_account)
      fault(to, name() + " takes back what was burned");
    const __int128 delta =
        each.negative ? -static_cast<__int128>(each.amount.atto) : static_cast<__int128>(each.amount.atto);
    // `mint` counts what it made: it grows where its posting takes.
    auto& flow = to.flows[each.account_id][static_cast<size_t>(each.part) - 1];
    if (__builtin_add_overflow(sum, delta, &sum) ||
        __builtin_add_overflow(flow.net, mint ? -delta : delta, &flow.net)) {
      fault(to, name() + " moves more than there can be");
      complete = false;
      return;
    }
    flow.lowest = std::min(flow.lowest, flow.net);
    if (mint) {
      if (now_.to != beginning_.wallet)
        fault(to, name() + " mints to another wallet");
      auto& minted = to.minted[{day_of(now_.timestamp_us), now_.timestamp_us}];
      minted = checked_add(minted, each.amount).value_or(minted);
    }
  }
  if (sum != 0)
    fault(to, name() + " does not sum to zero");
  if (now_.nonce != 0) {
    if (now_.nonce <= to.last_nonce)
      fault(to, name() + " repeats a nonce");
    if (to.first_nonce == 0)
      to.first_nonce = now_.nonce;
    to.last_nonce = now_.nonce;
  }
}

} // namespace neuroshard
