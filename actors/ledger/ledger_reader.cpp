#include "actors/ledger/ledger_reader.hpp"

#include "actors/ledger/ledger_store.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/reader_queries.hpp"
#include "actors/ledger/schema.hpp"
#include "actors/ledger/sqlite.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>

namespace neuroshard {

namespace {

constexpr uint32_t page_max = 100;
constexpr int32_t reward_days_max = 366;
constexpr unsigned connections_max = 16;
constexpr size_t unproven_max = 16'384;

caf::error refuse_query(std::string field, std::string message, int64_t min, int64_t max) {
  problem what;
  what.message = std::move(message);
  what.field = std::move(field);
  what.reason = "out_of_range";
  what.details = {{"min", min}, {"max", max}};
  return refuse(errc::invalid_request, std::move(what));
}

} // namespace

const char* to_string(history_type type) noexcept {
  switch (type) {
  case history_type::send:
    return "send";
  case history_type::receive:
    return "receive";
  case history_type::reward:
    return "reward";
  case history_type::stake:
    return "stake";
  case history_type::unstake:
    return "unstake";
  case history_type::inference:
    return "inference";
  case history_type::slash:
    return "slash";
  }
  return "";
}

std::optional<history_type> parse_history_type(std::string_view word) noexcept {
  for (int i = 1; i <= static_cast<int>(history_type::slash); ++i)
    if (word == to_string(static_cast<history_type>(i)))
      return static_cast<history_type>(i);
  return std::nullopt;
}

const char* to_string(history_status status) noexcept {
  switch (status) {
  case history_status::pending:
    return "pending";
  case history_status::confirmed:
    return "confirmed";
  case history_status::failed:
    return "failed";
  }
  return "";
}

const char* to_string(reward_type type) noexcept {
  switch (type) {
  case reward_type::uptime:
    return "uptime";
  case reward_type::inference:
    return "inference";
  case reward_type::training:
    return "training";
  case reward_type::data:
    return "data";
  case reward_type::validation:
    return "validation";
  }
  return "";
}

struct ledger_reader::impl {
  struct line {
    std::mutex busy;
    sqlite::connection db;
  };
  options from;
  std::vector<std::unique_ptr<line>> lines;
  std::atomic<unsigned> next{0};

  /// Runs a query on a free connection (waiting only when all are busy), in one read transaction: one state
  /// of the book.
  template <class Result, class Query>
  caf::expected<Result> read(Query&& query) {
    std::unique_lock<std::mutex> lock;
    line* taken = nullptr;
    for (auto& each : lines) {
      lock = std::unique_lock(each->busy, std::try_to_lock);
      if (lock.owns_lock()) {
        taken = each.get();
        break;
      }
    }
    if (taken == nullptr) {
      taken = lines[next++ % lines.size()].get();
      lock = std::unique_lock(taken->busy);
    }
    taken->db.execute("BEGIN");
    caf::expected<Result> result = query(taken->db);
    if (taken->db.faulty())
      result = taken->db.fault();
    taken->db.clear_fault();
    taken->db.execute("COMMIT");
    taken->db.clear_fault();
    return result;
  }
  int64_t now_us() const { return from.clock->unix_us(); }
};

ledger_reader::ledger_reader(std::unique_ptr<impl> made) : impl_(std::move(made)) {}
ledger_reader::~ledger_reader() = default;

caf::expected<std::shared_ptr<ledger_reader>> ledger_reader::open(options from) {
  auto made = std::make_unique<impl>();
  made->from = std::move(from);
  for (unsigned i = 0; i < std::clamp(made->from.connections, 1U, connections_max); ++i) {
    auto line = std::make_unique<impl::line>();
    if (auto failed = line->db.open(made->from.path, sqlite::connection::mode::read_only))
      return failed;
    if (auto failed = check_schema(line->db))
      return failed;
    made->lines.push_back(std::move(line));
  }
  return std::shared_ptr<ledger_reader>(new ledger_reader(std::move(made)));
}

caf::expected<balance_report> ledger_reader::balance(const std::string& address) const {
  const std::string& of = address.empty() ? impl_->from.wallet : address;
  return impl_->read<balance_report>([&](sqlite::connection& db) -> caf::expected<balance_report> {
    const auto row = queries::account(db, of);
    balance_report report;
    report.address = of;
    report.available = row.available;
    report.staked = row.staked;
    report.pending = row.pending;
    report.total = {row.available.atto + row.staked.atto +
                    row.pending.atto}; // Below what was minted: it fits.
    report.staking = queries::stake(db, row, impl_->from.params);
    return report;
  });
}

caf::expected<stake_report> ledger_reader::stake() const {
  return impl_->read<stake_report>([&](sqlite::connection& db) -> caf::expected<stake_report> {
    const auto row = queries::account(db, impl_->from.wallet);
    stake_report report;
    report.stake = queries::stake(db, row, impl_->from.params);
    if (report.stake)
      report.days_remaining = static_cast<uint32_t>(std::max(report.stake->unlock_day - today(), 0));
    sqlite::statement cooling(db,
                              "SELECT amount, release_day, slashed FROM unstakes WHERE account_id = ? AND "
                              "ended_seq IS NULL ORDER BY release_day");
    for (auto each = cooling.query(row.id); each.next();) {
      report.pending_unstake.atto += each.amount(0).atto - each.amount(2).atto;
      if (!report.pending_available_day)
        report.pending_available_day = static_cast<int32_t>(each.integer(1));
    }
    return report;
  });
}

caf::expected<history_page> ledger_reader::history(const history_query& query) const {
  if (query.limit < 1 || query.limit > page_max)
    return refuse_query("limit", "limit is out of its range.", 1, page_max);
  if (query.offset > static_cast<uint64_t>(INT64_MAX))
    return refuse_query("offset", "offset is out of its range.", 0, INT64_MAX);
  return impl_->read<history_page>([&](sqlite::connection& db) -> caf::expected<history_page> {
    return queries::history(db, queries::account(db, impl_->from.wallet), query);
  });
}

caf::expected<rewards_report> ledger_reader::rewards(int32_t first_day, int32_t last_day) const {
  if (first_day > last_day)
    return refuse_query("start_date", "start_date is after end_date.", 0, last_day);
  if (static_cast<int64_t>(last_day) - first_day >= reward_days_max)
    return refuse_query("start_date", "At most 366 days can be asked for.", 1, reward_days_max);
  return impl_->read<rewards_report>([&](sqlite::connection& db) -> caf::expected<rewards_report> {
    rewards_report report;
    for (int32_t day = first_day; day <= last_day; ++day)
      report.by_day.push_back({day, {}, 0});
    for (const auto type : {reward_type::uptime, reward_type::inference, reward_type::training,
                            reward_type::data, reward_type::validation})
      report.by_type[type] = {};
    sqlite::statement sums(db, "SELECT day, type, amount, proofs FROM reward_days WHERE day BETWEEN ? AND ?");
    for (auto row = sums.query(first_day, last_day); row.next();) {
      const neuro_amount amount = row.amount(2);
      auto& day = report.by_day[static_cast<size_t>(row.integer(0) - first_day)];
      day.amount.atto += amount.atto;
      day.proofs += static_cast<uint64_t>(row.integer(3));
      report.by_type[static_cast<reward_type>(row.integer(1))].atto += amount.atto;
      report.total.atto += amount.atto;
    }
    return report;
  });
}

caf::expected<earnings_report> ledger_reader::earnings() const {
  return impl_->read<earnings_report>([&](sqlite::connection& db) -> caf::expected<earnings_report> {
    earnings_report report;
    sqlite::statement sums(db, "SELECT day, amount FROM reward_days");
    for (auto row = sums.query(); row.next();) {
      report.earned_total.atto += row.amount(1).atto;
      if (row.integer(0) == today())
        report.earned_today.atto += row.amount(1).atto;
    }
    sqlite::statement open(db, "SELECT amount, slashed FROM rewards WHERE state = 0");
    for (auto row = open.query(); row.next();)
      report.pending.atto += row.amount(0).atto - row.amount(1).atto;
    return report;
  });
}

caf::expected<reward_rate_report> ledger_reader::reward_rate(bool driver, bool validator,
                                                             bool training) const {
  return impl_->read<reward_rate_report>([&](sqlite::connection& db) -> caf::expected<reward_rate_report> {
    return queries::reward_rate(db, queries::account(db, impl_->from.wallet), impl_->from.params,
                                impl_->now_us(), driver, validator, training);
  });
}

caf::expected<std::vector<recent_proof>> ledger_reader::recent_proofs(int64_t since_us) const {
  return impl_->read<std::vector<recent_proof>>(
      [&](sqlite::connection& db) -> caf::expected<std::vector<recent_proof>> {
        return queries::recent_proofs(db, since_us);
      });
}

caf::expected<proof_page> ledger_reader::proofs(uint32_t limit, uint64_t offset,
                                                std::optional<proof_type> type) const {
  if (limit < 1 || limit > page_max)
    return refuse_query("limit", "limit is out of its range.", 1, page_max);
  if (offset > static_cast<uint64_t>(INT64_MAX))
    return refuse_query("offset", "offset is out of its range.", 0, INT64_MAX);
  return impl_->read<proof_page>([&](sqlite::connection& db) -> caf::expected<proof_page> {
    return queries::proofs(db, limit, offset, type);
  });
}

caf::expected<proof_stats> ledger_reader::proof_stats() const {
  return impl_->read<struct proof_stats>([&](sqlite::connection & db) -> caf::expected<struct proof_stats> {
    return queries::stats_of_proofs(db);
  });
}

caf::expected<std::optional<closed_epoch>> ledger_reader::last_closed_epoch() const {
  using found = std::optional<closed_epoch>;
  return impl_->read<found>(
      [&](sqlite::connection& db) -> caf::expected<found> { return queries::last_closed_epoch(db); });
}

caf::expected<supply_report> ledger_reader::supply() const {
  return impl_->read<supply_report>([&](sqlite::connection& db) -> caf::expected<supply_report> {
    supply_report report;
    sqlite::statement totals(db, "SELECT minted, burned, staked FROM totals");
    if (auto row = totals.query(); row.next()) {
      report.minted = row.amount(0);
      report.burned = row.amount(1);
      report.staked = row.amount(2);
      report.circulating = checked_sub(report.minted, report.burned).value_or(neuro_amount{});
    }
    sqlite::statement last(db, "SELECT max(seq) FROM transactions");
    if (auto row = last.query(); row.next())
      report.transactions = static_cast<uint64_t>(row.integer(0));
    sqlite::statement chain(db, "SELECT chain_id FROM genesis");
    if (auto row = chain.query(); row.next())
      report.chain_id = kernels::to_hex(row.digest(0));
    return report;
  });
}

caf::expected<receipt_page> ledger_reader::receipts(uint32_t limit, uint64_t offset) const {
  if (limit < 1 || limit > page_max)
    return refuse_query("limit", "limit is out of its range.", 1, page_max);
  if (offset > static_cast<uint64_t>(INT64_MAX))
    return refuse_query("offset", "offset is out of its range.", 0, INT64_MAX);
  return impl_->read<receipt_page>([&](sqlite::connection& db) -> caf::expected<receipt_page> {
    return queries::receipts(db, limit, offset);
  });
}

caf::expected<std::vector<digest>> ledger_reader::unproven_receipts(int64_t from_us, int64_t to_us,
                                                                    size_t limit) const {
  return impl_->read<std::vector<digest>>([&](sqlite::connection& db) -> caf::expected<std::vector<digest>> {
    return queries::unproven_receipts(db, from_us, to_us, std::min(limit, unproven_max));
  });
}

neuro_amount ledger_reader::required_stake(uint64_t validators) const {
  return rules::required_stake(impl_->from.params, validators);
}

const std::string& ledger_reader::wallet() const {
  return impl_->from.wallet;
}
int32_t ledger_reader::today() const {
  return day_of(impl_->now_us());
}

} // namespace neuroshard
