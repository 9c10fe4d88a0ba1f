#include "actors/ledger/reader_queries.hpp"

#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/transaction_rows.hpp"
#include "actors/ledger/utc_date.hpp"
#include "actors/ledger/work_proof.hpp"

#include <algorithm>

namespace neuroshard::queries {

namespace {

using sqlite::connection;
using sqlite::statement;

/// The first seq whose transaction is not before a time: times never fall with seq, so that a search by
/// halves finds it.
uint64_t first_seq_from(connection& db, int64_t from_us, uint64_t last) {
  statement read(db, "SELECT timestamp_us FROM transactions WHERE seq = ?");
  uint64_t low = 1, high = last + 1;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    auto row = read.query(middle);
    if (row.next() && row.integer(0) < from_us)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

std::string address_of_id(connection& db, int64_t id) {
  if (id == 0)
    return {};
  statement read(db, "SELECT address FROM accounts WHERE id = ?");
  auto row = read.query(id);
  // The system accounts are nobody's address.
  if (!row.next() || row.text(0) == mint_account || row.text(0) == burn_account)
    return {};
  return std::string(row.text(0));
}

std::string reference(const transaction& of, std::string_view name) {
  for (const auto& [key, id] : of.refs)
    if (key == name)
      return id;
  return {};
}

/// A generation this wallet paid for: one item from reservation to its end.
void describe_payment(connection& db, history_item& item, const transaction& of) {
  const std::string request = reference(of, "request");
  statement read(
      db, "SELECT state, reserved, cost, prompt_tokens, max_tokens FROM reservations WHERE request_id = ?");
  auto row = read.query(request);
  if (!row.next())
    return;
  const auto state = static_cast<reservation_state>(row.integer(0));
  item.status = state == reservation_state::open      ? history_status::pending
                : state == reservation_state::settled ? history_status::confirmed
                                                      : history_status::failed;
  item.amount = state == reservation_state::open ? row.amount(1) : row.amount(2);
  item.negative = item.amount.atto != 0;
  item.details.emplace_back("request_id", request);
  item.details.emplace_back("reserved", to_decimal(row.amount(1)));
}

/// What this wallet earned from a generation.
void describe_earning(connection& db, history_item& item, const transaction& of, const std::string& address) {
  const std::string request = reference(of, "request");
  item.amount = {};
  std::string roles;
  statement read(db, "SELECT role, amount FROM shares WHERE request_id = ? AND address = ? ORDER BY n");
  for (auto row = read.query(request, address); row.next();) {
    item.amount.atto += row.amount(1).atto;
    roles.append(roles.empty() ? "" : ",").append(row.text(0));
  }
  item.details.emplace_back("request_id", request);
  item.details.emplace_back("role", roles);
}

void describe_reward(connection& db, history_item& item, const transaction& of) {
  statement read(db, "SELECT state, type, proof_id, matures_us, steps_rewarded FROM rewards WHERE seq = ?");
  auto row = read.query(of.seq);
  if (!row.next())
    return;
  const auto state = static_cast<reward_state>(row.integer(0));
  item.status = state == reward_state::pending   ? history_status::pending
                : state == reward_state::matured ? history_status::confirmed
                                                 : history_status::failed;
  item.details.emplace_back("type", to_string(static_cast<reward_type>(row.integer(1))));
  if (!row.text(2).empty())
    item.details.emplace_back("proof_id", row.text(2));
  if (state == reward_state::pending)
    item.details.emplace_back("matures_at", timestamp_text(row.integer(3)));
  if (const auto steps = reference(of, "steps"); !steps.empty())
    item.details.emplace_back("steps", steps);
}

history_item describe(connection& db, const transaction& of, history_type type, const std::string& address) {
  history_item item;
  item.id = kernels::to_hex(of.id);
  item.seq = of.seq;
  item.type = type;
  item.from = of.from;
  item.to = of.to;
  item.amount = of.amount;
  item.status = history_status::confirmed;
  item.timestamp_us = of.timestamp_us;
  item.memo = of.memo;
  switch (type) {
  case history_type::send:
    item.negative = true;
    item.fee = of.fee;
    break;
  case history_type::receive:
    break;
  case history_type::reward:
    describe_reward(db, item, of);
    break;
  case history_type::stake:
    item.negative = of.amount.atto != 0;
    item.details.emplace_back("start_date", reference(of, "start"));
    item.details.emplace_back("unlock_date", reference(of, "unlock"));
    break;
  case history_type::unstake: {
    statement read(db, "SELECT ended_seq IS NOT NULL FROM unstakes WHERE seq = ?");
    if (auto row = read.query(of.seq); row.next() && row.integer(0) == 0)
      item.status = history_status::pending;
    item.details.emplace_back("available_date", reference(of, "release"));
    break;
  }
  case history_type::inference:
    if (of.kind == transaction_kind::infer_reserve)
      describe_payment(db, item, of);
    else
      describe_earning(db, item, of, address);
    break;
  case history_type::slash:
    item.negative = true;
    item.details.emplace_back("offence_id", reference(of, "offence"));
    item.details.emplace_back("class", reference(of, "class"));
    break;
  }
  return item;
}

uint64_t count_matches(connection& db, int64_t account_id, const std::vector<int>& types,
                       const history_query& query, uint64_t low, uint64_t high) {
  uint64_t total = 0;
  // The counters are of whole days and of everything written; a bound by seq has to be counted.
  statement by_day(
      db, "SELECT count FROM history_days WHERE account_id = ? AND type = ? AND day BETWEEN ? AND ?");
  statement by_seq(db,
                   "SELECT count(*) FROM history WHERE account_id = ? AND type = ? AND seq BETWEEN ? AND ?");
  for (const int type : types) {
    if (query.up_to_seq) {
      if (auto row = by_seq.query(account_id, type, low, high); row.next())
        total += static_cast<uint64_t>(row.integer(0));
      continue;
    }
    auto row = by_day.query(account_id, type, query.first_day.value_or(INT32_MIN),
                            query.last_day.value_or(INT32_MAX));
    while (row.next())
      total += static_cast<uint64_t>(row.integer(0));
  }
  return total;
}

} // namespace

account_row account(connection& db, const std::string& address) {
  account_row made;
  made.address = address;
  statement read(db, "SELECT id, available, staked, pending, nonce FROM accounts WHERE address = ?");
  auto row = read.query(address);
  if (!row.next())
    return made;
  made.id = row.integer(0);
  made.available = row.amount(1);
  made.staked = row.amount(2);
  made.pending = row.amount(3);
  made.nonce = static_cast<uint64_t>(row.integer(4));
  return made;
}

std::optional<stake_state> stake(connection& db, const account_row& of, const economics_params& params) {
  statement read(db, "SELECT start_day, unlock_day FROM stakes WHERE account_id = ?");
  auto row = read.query(of.id);
  if (!row.next())
    return std::nullopt;
  return stake_state{of.staked, static_cast<int32_t>(row.integer(0)), static_cast<int32_t>(row.integer(1)),
                     rules::stake_multiplier_ppm(params, of.staked)};
}

history_page history(connection& db, const account_row& of, const history_query& query) {
  history_page page;
  uint64_t last = 0;
  statement newest(db, "SELECT max(seq) FROM transactions");
  if (auto row = newest.query(); row.next())
    last = static_cast<uint64_t>(row.integer(0));
  page.last_seq = std::min(query.up_to_seq.value_or(last), last);
  const uint64_t low = query.first_day ? first_seq_from(db, start_of_day(*query.first_day), last) : 1;
  uint64_t high = page.last_seq;
  if (query.last_day)
    high = std::min(high, first_seq_from(db, start_of_day(*query.last_day + 1), last) - 1);

  std::vector<int> types;
  for (int type = 1; type <= static_cast<int>(history_type::slash); ++type)
    if (!query.type || static_cast<int>(*query.type) == type)
      types.push_back(type);
  page.total = count_matches(db, of.id, types, query, low, high);

  // Rows lie in order of seq within a type: the types are merged from their newest on, and nothing is sorted.
  std::string sql;
  for (const int type : types)
    sql += (sql.empty() ? "" : " UNION ALL ") +
           ("SELECT seq, type FROM history WHERE account_id = ?1 AND type = " + std::to_string(type) +
            " AND seq BETWEEN ?2 AND ?3");
  sql += " ORDER BY seq DESC LIMIT ?4 OFFSET ?5";
  statement rows(db, sql.c_str());
  const std::string one =
      std::string("SELECT ") + transaction_columns + " FROM transactions t WHERE t.seq = ?";
  statement read(db, one.c_str());
  auto found = rows.query(of.id, low, high, query.limit, query.offset);
  while (found.next()) {
    auto row = read.query(static_cast<uint64_t>(found.integer(0)));
    transaction now;
    int64_t from_id = 0, to_id = 0;
    if (!row.next() || !read_transaction(row, now, from_id, to_id))
      continue;
    now.from = address_of_id(db, from_id);
    now.to = address_of_id(db, to_id);
    page.items.push_back(describe(db, now, static_cast<history_type>(found.integer(1)), of.address));
  }
  return page;
}

reward_rate_report reward_rate(connection& db, const account_row& of, const economics_params& params,
                               int64_t now_us, bool driver, bool validator, bool training) {
  reward_rate_report report;
  neuro_amount sum;
  uint64_t count = 0;
  int64_t first_us = now_us;
  {
    // The parts of a proof are rewards made at one time, one after the other.
    statement read(db,
                   "SELECT base, created_us, proof_id FROM rewards WHERE created_us >= ? AND seq IS NOT NULL "
                   "ORDER BY created_us, id");
    std::string proof;
    for (auto row = read.query(now_us - us_per_day); row.next();) {
      count += row.text(2).empty() || row.text(2) != proof ? 1 : 0;
      proof = row.text(2);
      sum.atto += row.amount(0).atto;
      first_us = std::min(first_us, row.integer(1));
    }
  }
  proof_counts proofs;
  {
    statement read(
        db, "SELECT accepted AND refuted = '', count(*) FROM proofs WHERE own = 1 AND timestamp_us >= ? "
            "GROUP BY 1");
    const int64_t since = now_us - static_cast<int64_t>(params.reputation_days) * us_per_day;
    for (auto row = read.query(since); row.next();)
      (row.integer(0) != 0 ? proofs.accepted : proofs.rejected) = static_cast<uint64_t>(row.integer(1));
    statement slashes(db, "SELECT count(*) FROM offences WHERE seq IS NOT NULL AND recorded_us >= ?");
    if (auto row = slashes.query(since); row.next())
      proofs.slashes = static_cast<uint64_t>(row.integer(0));
  }
  report.role_ppm = rules::role_ppm(params, driver, validator, training);
  report.stake_ppm = rules::stake_multiplier_ppm(params, of.staked);
  report.reputation_ppm = rules::reputation_ppm(params, proofs.accepted, proofs.rejected, proofs.slashes);
  if (count == 0)
    return report;
  report.base_rate = {sum.atto / count};
  report.effective_rate = rules::multiplied(report.base_rate, {report.stake_ppm, report.role_ppm,
                                                               report.reputation_ppm, rules::one_ppm})
                              .value_or(neuro_amount{});
  // As many proofs an hour as in the last day, or since the first of them where that is less; at least an
  // hour is looked at.
  constexpr int64_t us_per_hour = 3'600 * us_per_second;
  const auto seconds = static_cast<uint64_t>(std::max(now_us - first_us, us_per_hour) / us_per_second);
  const auto all = checked_mul(report.effective_rate, count);
  report.estimated_hourly = all ? mul_ratio(*all, 3'600, seconds).value_or(neuro_amount{}) : neuro_amount{};
  report.estimated_daily = checked_mul(report.estimated_hourly, 24).value_or(neuro_amount{});
  return report;
}

std::vector<recent_proof> recent_proofs(connection& db, int64_t since_us) {
  std::vector<recent_proof> found;
  statement read(db, "SELECT proof_id, nonce, timestamp_us, accepted, payload FROM proofs WHERE own = 1 AND "
                     "timestamp_us >= ? ORDER BY timestamp_us DESC LIMIT 1000");
  for (auto row = read.query(since_us); row.next();) {
    auto& made = found.emplace_back();
    made.id = row.digest(0);
    made.nonce = row.text(1);
    made.timestamp_us = row.integer(2);
    made.accepted = row.integer(3) != 0;
    const auto payload = row.bytes(4);
    if (const auto proof = read_proof({reinterpret_cast<const char*>(payload.data()), payload.size()}))
      made.label_tokens = proof->label_tokens;
  }
  std::reverse(found.begin(), found.end());
  return found;
}

} // namespace neuroshard::queries
