#include "actors/ledger/book_check.hpp"

#include "actors/identity/keys.hpp"
#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/transaction_rows.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <thread>
#include <unordered_map>

namespace neuroshard {

namespace {

using sqlite::connection;
using sqlite::cursor;
using sqlite::statement;

constexpr size_t faults_max = 20;
constexpr uint64_t recent_transactions = 10'000;
constexpr size_t signature_batch = 4'096;

/// Balances as added up from the postings: available, staked, pending by account id.
struct balances {
  std::array<neuro_amount, 3> parts{};
};

/// A signature to be verified.
struct signed_row {
  uint64_t seq = 0;
  public_key key{};
  signature sig{};
  kernels::digest digest{};
};

class checker {
public:
  explicit checker(connection& db) : db_(db) {}

  std::vector<std::string> faults;
  book_findings found;

  void add(std::string fault) {
    if (faults.size() < faults_max)
      faults.push_back(std::move(fault));
  }

  bool read_beginning() {
    statement read(db_, "SELECT network, params_hash, node_key, created_us, wallet, chain_id FROM genesis");
    auto row = read.query();
    if (!row.next()) {
      add("the genesis record is missing");
      return false;
    }
    genesis_record genesis;
    genesis.network = row.text(0);
    genesis.params_hash = row.digest(1);
    const auto key = row.bytes(2);
    std::copy_n(key.begin(), std::min(key.size(), genesis.node_key.size()), genesis.node_key.begin());
    genesis.created_us = row.integer(3);
    wallet_ = row.text(4);
    chain_id_ = chain_id_of(genesis);
    if (chain_id_ != row.digest(5))
      add("the genesis record does not hash to its chain id");
    return true;
  }

  /// Walks the transactions after `from_seq`; with from_seq 0 balances are added up and judged.
  void walk(uint64_t from_seq, bool whole, bool signatures) {
    const account_names names(db_);
    kernels::digest previous = chain_id_;
    uint64_t expected = 1;
    if (from_seq > 0) {
      statement before(db_, "SELECT hash FROM transactions WHERE seq = ?");
      auto row = before.query(from_seq);
      if (row.next())
        previous = row.digest(0);
      expected = from_seq + 1;
    }
    const std::string sql =
        std::string("SELECT ") + transaction_columns + " FROM transactions t WHERE t.seq > ? ORDER BY t.seq";
    statement transactions(db_, sql.c_str());
    statement postings(
        db_, "SELECT seq, account_id, part, negative, amount FROM postings WHERE seq > ? ORDER BY seq, n");
    auto row = transactions.query(from_seq);
    auto line = postings.query(from_seq);
    bool more = line.next();
    std::vector<posting> lines;
    std::vector<int64_t> ids;
    transaction now;
    int64_t last_us = 0;
    while (row.next() && faults.size() < faults_max) {
      const std::string name = "transaction " + std::to_string(row.integer(0));
      int64_t from_id = 0, to_id = 0;
      if (!read_transaction(row, now, from_id, to_id)) {
        add(name + " is malformed");
        return;
      }
      now.from = names.of(from_id);
      now.to = names.of(to_id);
      if (now.seq != expected) {
        add("transaction " + std::to_string(expected) + " is missing");
        return;
      }
      ++expected;
      lines.clear();
      ids.clear();
      for (; more && static_cast<uint64_t>(line.integer(0)) <= now.seq; more = line.next()) {
        if (static_cast<uint64_t>(line.integer(0)) != now.seq) {
          add("a posting of a transaction that does not exist stands before " + name);
          continue;
        }
        ids.push_back(line.integer(1));
        lines.push_back({names.of(line.integer(1)), static_cast<account_part>(line.integer(2)),
                         line.integer(3) != 0, line.amount(4)});
      }
      const std::string payload = canonical_payload(now, chain_id_);
      if (kernels::sha256::of(std::string_view(payload)) != now.id)
        add(name + " does not hash to its id: it was changed");
      const auto hash = row_hash(previous, now.seq, payload, now.sig, lines);
      if (hash != now.hash)
        add(name + " breaks the hash chain: it, its postings or its signature were changed");
      previous = now.hash;
      judge(now, lines, ids, name, whole);
      if (now.timestamp_us < last_us)
        add(name + " is dated before the one it follows");
      last_us = now.timestamp_us;
      if (is_signed(now.kind) != (now.key && now.sig))
        add(name + (is_signed(now.kind) ? " is not signed" : " must not be signed"));
      else if (signatures && now.key) {
        if (address_of_key(*now.key) != wallet_ || now.from != wallet_)
          add(name + " is signed by another wallet");
        pending_.push_back({now.seq, *now.key, *now.sig, signing_digest(transaction_tag, payload)});
        if (pending_.size() >= signature_batch)
          verify_signatures();
      }
      ++found.transactions;
    }
    verify_signatures();
    if (more)
      add("there are postings without a transaction");
  }

  /// Stored balances, totals and what is pending against what the walk added up.
  void compare() {
    uint64_t accounts = 0;
    {
      statement read(db_, "SELECT id, address, available, staked, pending FROM accounts");
      for (auto row = read.query(); row.next(); ++accounts) {
        const auto at = added_.find(row.integer(0));
        const balances sums = at == added_.end() ? balances{} : at->second;
        for (int part = 0; part < 3; ++part)
          if (row.amount(2 + part) != sums.parts[static_cast<size_t>(part)])
            add("the " + std::string(to_string(static_cast<account_part>(part + 1))) + " balance of " +
                std::string(row.text(1)) + " is " + to_decimal(row.amount(2 + part)) +
                " but its postings add up to " + to_decimal(sums.parts[static_cast<size_t>(part)]));
        if (row.text(1) == wallet_ && row.amount(4) != open_pending())
          add("the wallet's pending balance is not the sum of its open unstakes, reservations and rewards");
      }
    }
    found.accounts = accounts;
  }

  /// sum of all parts = minted - burned, and as the running totals say.
  void check_totals() {
    std::array<neuro_amount, 3> sums{};
    neuro_amount minted, burned;
    bool fits = true;
    const auto sum_up = [&](neuro_amount& to, neuro_amount part) {
      const auto sum = checked_add(to, part);
      fits = fits && sum;
      to = sum.value_or(to);
    };
    statement read(db_, "SELECT address, available, staked, pending FROM accounts");
    for (auto row = read.query(); row.next();) {
      if (row.text(0) == mint_account)
        minted = row.amount(1);
      else if (row.text(0) == burn_account)
        burned = row.amount(1);
      else
        for (int part = 0; part < 3; ++part)
          sum_up(sums[static_cast<size_t>(part)], row.amount(1 + part));
    }
    neuro_amount all;
    for (const auto& part : sums)
      sum_up(all, part);
    if (!fits || checked_sub(minted, burned) != all)
      add("the balances do not sum to what was minted less what was burned");
    statement stored(db_, "SELECT minted, burned, available, staked, pending FROM totals");
    auto row = stored.query();
    if (!row.next() || row.amount(0) != minted || row.amount(1) != burned || row.amount(2) != sums[0] ||
        row.amount(3) != sums[1] || row.amount(4) != sums[2])
      add("the running totals differ from the balances");
    found.minted = to_decimal(minted);
    found.burned = to_decimal(burned);
    found.chain_id = kernels::to_hex(chain_id_);
  }

  /// The pages of the file and its indexes, as SQLite sees them.
  void check_pages() {
    statement read(db_, "PRAGMA integrity_check(5)");
    for (auto row = read.query(); row.next();)
      if (row.text(0) != "ok")
        add("the database file is damaged: " + std::string(row.text(0)));
  }

  uint64_t last_seq() {
    statement read(db_, "SELECT max(seq) FROM transactions");
    auto row = read.query();
    return row.next() ? static_cast<uint64_t>(row.integer(0)) : 0;
  }

private:
  void judge(const transaction& now, const std::vector<posting>& lines, const std::vector<int64_t>& ids,
             const std::string& name, bool whole) {
    neuro_amount plus, minus;
    for (size_t i = 0; i < lines.size(); ++i) {
      const posting& line = lines[i];
      if (line.account.empty() || line.part < account_part::available || line.part > account_part::pending) {
        add(name + " has a malformed posting");
        return;
      }
      neuro_amount& side = line.negative ? minus : plus;
      side = checked_add(side, line.amount).value_or(side);
      const bool mint = line.account == mint_account;
      if (mint != (line.negative && mint))
        add(name + " takes back what was minted");
      if (line.account == burn_account && line.negative)
        add(name + " takes back what was burned");
      if (!whole)
        continue;
      auto& balance = added_[ids[i]].parts[static_cast<size_t>(line.part) - 1];
      const auto next =
          line.negative != mint ? checked_sub(balance, line.amount) : checked_add(balance, line.amount);
      if (!next)
        add(name + " takes the " + to_string(line.part) + " balance of " + line.account + " below zero");
      balance = next.value_or(neuro_amount{});
      if (mint)
        judge_mint(now, line.amount, name);
    }
    if (plus != minus)
      add(name + " does not sum to zero");
    if (now.nonce != 0) {
      if (now.nonce <= nonce_ && whole)
        add(name + " repeats a nonce");
      nonce_ = now.nonce;
    }
  }

  void judge_mint(const transaction& now, neuro_amount amount, const std::string& name) {
    if (now.to != wallet_)
      add(name + " mints to another wallet");
    const int32_t day = day_of(now.timestamp_us);
    if (day != minted_day_)
      minted_today_ = {};
    minted_day_ = day;
    minted_today_ = checked_add(minted_today_, amount).value_or(minted_today_);
    if (minted_today_ > day_cap(now.timestamp_us))
      add(name + " mints more than the wallet's cap of the day");
  }

  /// The cap under the parameters in force then; the largest of the day where they changed within it.
  neuro_amount day_cap(int64_t at_us) {
    if (caps_.empty()) {
      statement read(db_, "SELECT from_us, text FROM params");
      for (auto row = read.query(); row.next();) {
        economics_params params;
        if (read_canonical_params(row.text(1), params))
          caps_[row.integer(0)] = params.max_per_wallet_day;
        else
          add("a row of parameters is malformed");
      }
    }
    neuro_amount cap;
    for (const auto& [from_us, each] : caps_) {
      if (from_us <= start_of_day(day_of(at_us)))
        cap = each;
      else if (from_us <= at_us)
        cap = std::max(cap, each);
    }
    return cap;
  }

  neuro_amount open_pending() {
    neuro_amount sum;
    for (const char* sql : {"SELECT amount FROM unstakes WHERE ended_seq IS NULL",
                            "SELECT reserved FROM reservations WHERE state = 0",
                            "SELECT amount FROM rewards WHERE state = 0"}) {
      statement read(db_, sql);
      for (auto row = read.query(); row.next();)
        sum = checked_add(sum, row.amount(0)).value_or(sum);
    }
    return sum;
  }

  const std::string& address_of_key(const public_key& key) {
    if (key != known_key_ || known_address_.empty()) {
      known_key_ = key;
      known_address_ = address_of(key);
    }
    return known_address_;
  }

  void verify_signatures() {
    const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1U, 64U);
    std::atomic<size_t> next{0};
    std::vector<uint8_t> bad(pending_.size());
    const auto work = [&] {
      for (size_t i = next++; i < pending_.size(); i = next++)
        bad[i] = !verify_digest(pending_[i].key, pending_[i].sig, pending_[i].digest);
    };
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < threads && pending_.size() > 64; ++i)
      helpers.emplace_back(work);
    work();
    for (auto& helper : helpers)
      helper.join();
    for (size_t i = 0; i < pending_.size(); ++i)
      if (bad[i])
        add("the signature of transaction " + std::to_string(pending_[i].seq) + " is not valid");
    found.signatures += pending_.size();
    pending_.clear();
  }

  connection& db_;
  std::string wallet_;
  kernels::digest chain_id_{};
  std::unordered_map<int64_t, balances> added_;
  std::map<int64_t, neuro_amount> caps_;
  std::vector<signed_row> pending_;
  public_key known_key_{};
  std::string known_address_;
  neuro_amount minted_today_;
  int32_t minted_day_ = -1;
  uint64_t nonce_ = 0;
};

/// Opens the file and fixes one state of it for the whole check.
caf::error open_for_check(connection& db, const std::string& path) {
  if (auto failed = db.open(path, connection::mode::read_only))
    return failed;
  if (!db.execute("BEGIN"))
    return db.fault();
  return check_schema(db);
}

} // namespace

caf::expected<std::vector<std::string>> check_recent(const std::string& path) {
  connection db;
  if (auto failed = open_for_check(db, path))
    return failed;
  checker check(db);
  if (check.read_beginning()) {
    check.check_totals();
    const uint64_t last = check.last_seq();
    check.walk(last > recent_transactions ? last - recent_transactions : 0, false, false);
  }
  if (db.faulty())
    return db.fault();
  return std::move(check.faults);
}

caf::expected<book_findings> verify_book(const std::string& path, bool signatures) {
  connection db;
  if (auto failed = open_for_check(db, path))
    return failed;
  checker check(db);
  if (check.read_beginning()) {
    check.check_pages();
    check.walk(0, true, signatures);
    if (check.faults.empty())
      check.compare();
    check.check_totals();
  }
  if (db.faulty())
    check.add(problem_of(db.fault()).message);
  check.found.faults = std::move(check.faults);
  return std::move(check.found);
}

} // namespace neuroshard
