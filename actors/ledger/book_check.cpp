#include "actors/ledger/book_check.hpp"

#include "actors/ledger/book_walk.hpp"
#include "actors/ledger/economics_params.hpp"
#include "actors/ledger/record_check.hpp"
#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/transaction_rows.hpp"
#include "actors/ledger/utc_date.hpp"
#include "actors/ledger/work_check.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>

namespace neuroshard {

namespace {

using sqlite::connection;
using sqlite::statement;

constexpr uint64_t recent_transactions = 10'000;
constexpr uint64_t stretch_rows = 16'384;
constexpr unsigned threads_max = 64;
/// A check reads the whole file once: through the memory map there is no copy and no call for each page.
/// SQLite maps at most its first two gigabytes.
constexpr const char* map_file = "PRAGMA mmap_size = 2147418112";
constexpr uint64_t stretches_ahead = 4; ///< for each thread, of the first one that is not joined yet

/// Balances as added up from the postings: available, staked, pending.
using balances = std::array<neuro_amount, 3>;

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
    beginning.wallet = row.text(4);
    beginning.node_key = genesis.node_key;
    beginning.chain_id = chain_id_of(genesis);
    if (beginning.chain_id != row.digest(5))
      add("the genesis record does not hash to its chain id");
    return true;
  }

  /// The newest transactions against their hashes.
  void walk_recent() {
    const uint64_t last = last_seq();
    if (last == 0)
      return;
    const account_names names(db_);
    book_walk walk(db_, beginning, names);
    auto walked = walk.walk(last > recent_transactions ? last - recent_transactions + 1 : 1, last, false);
    for (auto& fault : walked.faults)
      add(std::move(fault));
  }

  /// Every transaction, on every core; joins the stretches in their order and adds up the balances.
  void walk_all(const std::string& path, bool signatures) {
    const uint64_t last = last_seq();
    const account_names names(db_);
    const uint64_t stretches = (last + stretch_rows - 1) / stretch_rows;
    std::mutex mutex;
    std::condition_variable moved;
    std::map<uint64_t, walked_stretch> waiting;
    uint64_t next = 0, joined = 0;
    caf::error failed;
    const unsigned threads = static_cast<unsigned>(std::min<uint64_t>(
        std::clamp(std::thread::hardware_concurrency(), 1U, threads_max), std::max<uint64_t>(stretches, 1)));

    const auto work = [&] {
      connection db; // A snapshot of its own; rows up to `last` are in every one and never change.
      auto unopened = db.open(path, connection::mode::read_only);
      if (!unopened)
        db.execute(map_file);
      std::unique_lock lock(mutex);
      if (unopened) {
        failed = unopened;
        return;
      }
      lock.unlock();
      book_walk walk(db, beginning, names);
      lock.lock();
      while (next < stretches && !failed && faults.size() < faults_max) {
        const uint64_t mine = next++;
        moved.wait(lock, [&] { return mine < joined + stretches_ahead * threads || failed; });
        lock.unlock();
        auto walked =
            walk.walk(mine * stretch_rows + 1, std::min((mine + 1) * stretch_rows, last), signatures);
        lock.lock();
        if (db.faulty())
          failed = db.fault();
        waiting.emplace(mine, std::move(walked));
        for (auto at = waiting.find(joined); at != waiting.end(); at = waiting.find(++joined)) {
          join(std::move(at->second), names);
          waiting.erase(at);
        }
        moved.notify_all();
      }
    };
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < threads; ++i)
      helpers.emplace_back(work);
    work();
    for (auto& helper : helpers)
      helper.join();
    if (failed)
      add(problem_of(failed).message);
    statement beyond(db_, "SELECT 1 FROM postings WHERE seq > ? OR seq < 1 LIMIT 1");
    if (beyond.query(last).next())
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
          if (row.amount(2 + part) != sums[static_cast<size_t>(part)])
            add("the " + std::string(to_string(static_cast<account_part>(part + 1))) + " balance of " +
                std::string(row.text(1)) + " is " + to_decimal(row.amount(2 + part)) +
                " but its postings add up to " + to_decimal(sums[static_cast<size_t>(part)]));
        if (row.text(1) == beginning.wallet && row.amount(4) != open_pending())
          add("the wallet's pending balance is not the sum of its open unstakes, reservations and rewards");
      }
    }
    found.accounts = accounts;
  }

  /// Receipts and offences; after walk_all.
  void check_records(bool signatures) {
    const uint64_t slashed =
        check_receipts_and_offences(db_, signatures, [this](std::string fault) { add(std::move(fault)); });
    if (slashed != slashes_)
      add("there are slashes without their offence");
  }

  /// What a check of epochs and proofs found; after walk_all.
  void join_work(work_findings work) {
    for (auto& fault : work.faults)
      add(std::move(fault));
    found.epochs = work.epochs;
    found.proofs = work.proofs;
    found.signatures += work.signatures;
    if (work.faults.empty() && work.rewards != rewards_)
      add("there are rewards that only the transactions know");
    if (work.faults.empty() && work.voids != voids_)
      add("there are voided rewards that only the transactions know");
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
    found.chain_id = kernels::to_hex(beginning.chain_id);
  }

  uint64_t last_seq() {
    statement read(db_, "SELECT max(seq) FROM transactions");
    auto row = read.query();
    return row.next() ? static_cast<uint64_t>(row.integer(0)) : 0;
  }

  book_beginning beginning;

private:
  /// Adds what a stretch found to what those before it did.
  void join(walked_stretch walked, const account_names& names) {
    for (auto& fault : walked.faults)
      add(std::move(fault));
    found.transactions += walked.transactions;
    found.signatures += walked.signatures;
    slashes_ += walked.slashes;
    rewards_ += walked.rewards;
    voids_ += walked.voids;
    const std::string where = "between transactions " + std::to_string(walked.first_seq) + " and " +
                              std::to_string(walked.last_seq);
    if (walked.transactions > 0 && walked.first_us < last_us_)
      add("transaction " + std::to_string(walked.first_seq) + " is dated before the one it follows");
    last_us_ = std::max(last_us_, walked.last_us);
    if (walked.first_nonce != 0 && walked.first_nonce <= nonce_)
      add("a nonce is repeated " + where);
    nonce_ = std::max(nonce_, walked.last_nonce);
    for (const auto& [id, flows] : walked.flows) {
      auto& sums = added_[id];
      for (size_t part = 0; part < sums.size(); ++part) {
        const auto least = moved(sums[part], flows[part].lowest);
        if (!least)
          add("the " + std::string(to_string(static_cast<account_part>(part + 1))) + " balance of " +
              names.of(id) + " falls below zero " + where);
        sums[part] = moved(sums[part], flows[part].net).value_or(neuro_amount{});
      }
    }
    for (const auto& [when, amount] : walked.minted) {
      const auto [day, at_us] = when;
      if (day != minted_day_)
        minted_today_ = {};
      minted_day_ = day;
      minted_today_ = checked_add(minted_today_, amount).value_or(minted_today_);
      if (minted_today_ > day_cap(at_us))
        add("more than the wallet's cap of a day is minted " + where);
    }
  }

  static std::optional<neuro_amount> moved(neuro_amount from, __int128 by) {
    return by < 0 ? checked_sub(from, {static_cast<unsigned __int128>(-by)})
                  : checked_add(from, {static_cast<unsigned __int128>(by)});
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
    for (const char* sql : {"SELECT amount, slashed FROM unstakes WHERE ended_seq IS NULL",
                            "SELECT reserved, zeroblob(16) FROM reservations WHERE state = 0",
                            "SELECT amount, slashed FROM rewards WHERE state = 0"}) {
      statement read(db_, sql);
      for (auto row = read.query(); row.next();) {
        const auto left = checked_sub(row.amount(0), row.amount(1));
        if (!left)
          add("more was slashed of an unstake or a reward than it was made for");
        sum = checked_add(sum, left.value_or(neuro_amount{})).value_or(sum);
      }
    }
    return sum;
  }

  connection& db_;
  std::unordered_map<int64_t, balances> added_;
  std::map<int64_t, neuro_amount> caps_;
  neuro_amount minted_today_;
  int32_t minted_day_ = -1;
  uint64_t slashes_ = 0;
  uint64_t rewards_ = 0;
  uint64_t voids_ = 0;
  int64_t last_us_ = 0;
  uint64_t nonce_ = 0;
};

/// Opens the file and fixes one state of it for the whole check.
caf::error open_for_check(connection& db, const std::string& path) {
  if (auto failed = db.open(path, connection::mode::read_only))
    return failed;
  if (!db.execute(map_file) || !db.execute("BEGIN"))
    return db.fault();
  return check_schema(db);
}

/// The pages of the file and its indexes, as SQLite sees them.
std::vector<std::string> check_pages_of(const std::string& path) {
  connection db;
  if (auto failed = open_for_check(db, path))
    return {problem_of(failed).message};
  std::vector<std::string> faults;
  {
    statement read(db, "PRAGMA integrity_check(5)");
    for (auto row = read.query(); row.next();)
      if (row.text(0) != "ok")
        faults.push_back("the database file is damaged: " + std::string(row.text(0)));
  }
  if (db.faulty())
    faults.push_back(problem_of(db.fault()).message);
  return faults;
}

work_findings check_work_of(const std::string& path, const book_beginning& beginning, bool signatures) {
  connection db;
  work_findings found;
  if (auto failed = open_for_check(db, path)) {
    found.faults.push_back(problem_of(failed).message);
    return found;
  }
  std::vector<std::pair<int64_t, economics_params>> params;
  {
    statement read(db, "SELECT from_us, text FROM params ORDER BY from_us");
    for (auto row = read.query(); row.next();) {
      economics_params each;
      if (read_canonical_params(row.text(1), each))
        params.emplace_back(row.integer(0), std::move(each));
    }
  }
  if (params.empty())
    found.faults.push_back("the book has lost its parameters");
  else
    found = check_work(db, beginning, params, signatures);
  if (db.faulty())
    found.faults.push_back(problem_of(db.fault()).message);
  return found;
}

} // namespace

caf::expected<std::vector<std::string>> check_recent(const std::string& path) {
  connection db;
  if (auto failed = open_for_check(db, path))
    return failed;
  checker check(db);
  if (check.read_beginning()) {
    check.check_totals();
    check.walk_recent();
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
    // Pages and work beside the transactions, through connections of their own: SQLite goes through the pages
    // on one core, which would leave the others without work meanwhile.
    std::vector<std::string> damage;
    work_findings work;
    std::thread pages([&] { damage = check_pages_of(path); });
    std::thread worker([&] { work = check_work_of(path, check.beginning, signatures); });
    check.walk_all(path, signatures);
    worker.join();
    pages.join();
    for (auto& fault : damage)
      check.add(std::move(fault));
    check.join_work(std::move(work));
    if (check.faults.empty())
      check.compare();
    if (check.faults.empty())
      check.check_records(signatures);
    check.check_totals();
  }
  if (db.faulty())
    check.add(problem_of(db.fault()).message);
  check.found.faults = std::move(check.faults);
  return std::move(check.found);
}

} // namespace neuroshard
