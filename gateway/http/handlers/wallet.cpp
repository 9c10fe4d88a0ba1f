#include "actors/ledger/ledger_reader.hpp"
#include "actors/ledger/utc_date.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/handlers/read_book.hpp"
#include "gateway/http/handlers/wallet_json.hpp"
#include "gateway/http/query.hpp"
#include "gateway/http/snapshot_pages.hpp"

#include <algorithm>

namespace neuroshard::http {

namespace {

constexpr int32_t reward_days_max = 366;
constexpr uint64_t validator_memory_mb_min = 2000;

bool holds(const node_snapshot& s, node_role r) {
  return std::find(s.roles.begin(), s.roles.end(), r) != s.roles.end();
}

void write_transaction(json_writer& out, const history_item& t) {
  out.begin()
      .put("id", t.id)
      .put("type", to_string(t.type))
      .put("from", t.from)
      .put("to", t.to)
      .key("amount");
  if (t.negative)
    out.negative(t.amount);
  else
    out.value(t.amount);
  out.put("fee", t.fee).put("status", to_string(t.status)).put("timestamp", timestamp_text(t.timestamp_us));
  out.key("memo");
  if (t.memo.empty())
    out.null();
  else
    out.value(t.memo);
  out.key("details").begin();
  for (const auto& [name, value] : t.details)
    out.put(name, value);
  out.end().end();
}

} // namespace

double multiplier(uint64_t ppm) {
  return static_cast<double>(ppm) / 1e6;
}

void write_stake_state(json_writer& out, const stake_state& s) {
  out.begin().put("amount", s.amount).put("duration_days", s.duration_days());
  out.put("start_date", date_text(s.start_day)).put("unlock_date", date_text(s.unlock_day));
  out.put("multiplier", multiplier(s.multiplier_ppm)).end();
}

task<response> get_balance(gateway& g, exchange& x) {
  const auto report =
      co_await read_book<balance_report>(g, x, [](const ledger_reader& book) { return book.balance(); });
  if (!report)
    co_return error_response(report.error(), x.request_id);
  json_writer out;
  out.begin().put("address", report->address).key("balances").begin();
  out.put("available", report->available).put("staked", report->staked);
  out.put("pending", report->pending).put("total", report->total).end().key("staking");
  if (report->staking)
    write_stake_state(out, *report->staking);
  else
    out.null();
  out.end();
  co_return json_response(out);
}

task<response> get_transactions(gateway& g, exchange& x) {
  query_reader query(x.in.query);
  history_query wanted;
  wanted.limit = static_cast<uint32_t>(query.integer("limit", 10, 1, 100));
  wanted.offset = static_cast<uint64_t>(query.integer("offset", 0, 0, INT64_MAX));
  if (const auto type = query.text("type")) {
    wanted.type = parse_history_type(*type);
    if (!wanted.type)
      query.complain("type", "unknown_value",
                     "type must be send, receive, reward, stake, unstake, inference or slash.");
  }
  wanted.first_day = query.date("start_date");
  wanted.last_day = query.date("end_date");
  if (wanted.first_day && wanted.last_day && *wanted.first_day > *wanted.last_day)
    query.complain("end_date", "out_of_range", "end_date is before start_date.");
  if (query.failed())
    co_return error_response(query.complaint(), x.request_id);
  const auto found = co_await read_book<history_page>(
      g, x, [wanted](const ledger_reader& book) { return book.history(wanted); });
  if (!found)
    co_return error_response(found.error(), x.request_id);
  json_writer out;
  out.begin().key("transactions").begin_list();
  for (const history_item& t : found->items)
    write_transaction(out, t);
  out.end_list().put("total", found->total).put("limit", wanted.limit).put("offset", wanted.offset).end();
  co_return json_response(out);
}

task<response> get_stake_info(gateway& g, exchange& x) {
  const auto report =
      co_await read_book<stake_report>(g, x, [](const ledger_reader& book) { return book.stake(); });
  if (!report)
    co_return error_response(report.error(), x.request_id);
  const stake_state none{};
  const bool staked = report->stake.has_value();
  const stake_state& s = staked ? *report->stake : none;
  const node_snapshot_ptr now = g.node.board->read();
  uint64_t validators = holds(*now, node_role::validator);
  for (const peer_info& p : *now->peers)
    validators += p.state == peer_state::online && std::find(p.node.roles.begin(), p.node.roles.end(),
                                                             node_role::validator) != p.node.roles.end();
  const neuro_amount required = g.node.book->required_stake(validators);
  const uint64_t free_mb = (now->ram_total - std::min(now->ram_used, now->ram_total)) / (1024 * 1024);
  const auto date_or_null = [](json_writer& out, const char* name, bool there, int32_t day) {
    out.key(name);
    if (there)
      out.value(date_text(day));
    else
      out.null();
  };
  json_writer out;
  out.begin().put("stake", s.amount).put("stake_multiplier", multiplier(s.multiplier_ppm));
  out.put("duration_days", s.duration_days());
  date_or_null(out, "start_date", staked, s.start_day);
  date_or_null(out, "unlock_date", staked, s.unlock_day);
  out.put("pending_unstake", report->pending_unstake);
  out.put("amount", s.amount).put("multiplier", multiplier(s.multiplier_ppm));
  out.put("days_remaining", report->days_remaining);
  date_or_null(out, "pending_available_date", report->pending_available_day.has_value(),
               report->pending_available_day.value_or(0));
  out.key("validator").begin().put("eligible", s.amount >= required && free_mb >= validator_memory_mb_min);
  out.put("required_stake", required).end().end();
  co_return json_response(out);
}

task<response> get_rewards(gateway& g, exchange& x) {
  query_reader query(x.in.query);
  const int32_t today = g.node.book ? g.node.book->today() : day_of(g.node.clock->unix_us());
  const int32_t last = query.date("end_date").value_or(today);
  const int32_t first = query.date("start_date").value_or(last - 30);
  if (first > last)
    query.complain("start_date", "out_of_range", "start_date is after end_date.");
  else if (last - first >= reward_days_max)
    query.complain("start_date", "out_of_range", "At most 366 days can be asked for at once.",
                   {{"limit", int64_t{reward_days_max}}});
  if (query.failed())
    co_return error_response(query.complaint(), x.request_id);
  const auto report = co_await read_book<rewards_report>(
      g, x, [first, last](const ledger_reader& book) { return book.rewards(first, last); });
  if (!report)
    co_return error_response(report.error(), x.request_id);
  json_writer out;
  out.begin().put("total", report->total).key("by_day").begin_list();
  for (const reward_day& d : report->by_day)
    out.begin().put("date", date_text(d.day)).put("amount", d.amount).put("proofs", d.proofs).end();
  out.end_list().key("by_type").begin();
  for (const reward_type type : {reward_type::uptime, reward_type::inference, reward_type::training,
                                 reward_type::data, reward_type::validation}) {
    const auto at = report->by_type.find(type);
    out.put(to_string(type), at == report->by_type.end() ? neuro_amount{} : at->second);
  }
  out.end().end();
  co_return json_response(out);
}

task<response> get_reward_rate(gateway& g, exchange& x) {
  const node_snapshot_ptr now = g.node.board->read();
  const bool driver = holds(*now, node_role::driver);
  const bool validator = holds(*now, node_role::validator);
  const bool training = now->training->enabled;
  const auto report =
      co_await read_book<reward_rate_report>(g, x, [driver, validator, training](const ledger_reader& book) {
        return book.reward_rate(driver, validator, training);
      });
  if (!report)
    co_return error_response(report.error(), x.request_id);
  json_writer out;
  out.begin().put("base_rate", report->base_rate).put("role", main_role(now->roles));
  out.put("role_multiplier", multiplier(report->role_ppm))
      .put("stake_multiplier", multiplier(report->stake_ppm));
  out.put("reputation_multiplier", multiplier(report->reputation_ppm))
      .put("effective_rate", report->effective_rate);
  out.put("estimated_hourly", report->estimated_hourly).put("estimated_daily", report->estimated_daily).end();
  co_return json_response(out);
}

} // namespace neuroshard::http
