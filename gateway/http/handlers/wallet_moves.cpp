#include "actors/ledger/utc_date.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/handlers/wallet_json.hpp"
#include "gateway/http/middlewares/idempotency.hpp"

namespace neuroshard::http {

namespace {

constexpr int64_t days_max = 36'500; ///< a form check; the ledger knows the rules of the lock

/// Before it is decided whether a request repeats a lost one: has a client of an equal one closed meanwhile?
/// Its connection is asked on its own lane, and tells the ledger before this request does.
task<bool> settle_equal_ones(gateway& g, const exchange& x, const request_mark& mark) {
  struct survey {
    waker wait;
    size_t open = 0;
  };
  const auto holders = g.unsettled.find(mark);
  const auto asked = std::make_shared<survey>();
  asked->open = holders.size();
  const lane_ptr home = x.link.home();
  for (const auto& h : holders)
    h.home->post([asked, home, link = h.link] {
      if (const auto held = link.lock())
        held->settle_by_look();
      home->post([asked] {
        if (--asked->open == 0)
          asked->wait.wake();
      });
    });
  while (asked->open > 0)
    co_await until_woken{asked->wait};
  co_return !holders.empty();
}

/// Sends one operation to the ledger under the request's mark and renders what it did. The ledger answers a
/// repeated request with the first one's result; once the response has reached the client, the next identical
/// request is a new one.
template <class Result, class Operation>
task<response> move(gateway& g, exchange& x, Operation what, void (*render)(json_writer&, const Result&)) {
  auto mark = mark_of(x);
  if (!mark)
    co_return error_response(mark.error(), x.request_id);
  if (mark->key.empty())
    co_await settle_equal_ones(g, x, *mark);
  what.mark = *mark;
  const auto done = co_await g.ask_actor<Result>(x, g.node.ledger, std::move(what));
  if (!done)
    co_return error_response(done.error(), x.request_id);
  json_writer out;
  render(out, *done);
  response r = json_response(out);
  if (const int64_t row = done->origin.row; row != 0)
    r.on_delivery = [&g, row, mark = *mark, held = g.unsettled.add(*mark, x.link)](bool delivered) {
      g.unsettled.remove(mark, held);
      if (delivered)
        g.asker.tell(g.node.ledger.get(), mark_delivered{row});
    };
  co_return r;
}

void render_send(json_writer& out, const send_result& r) {
  out.begin()
      .put("transaction_id", r.transaction_id)
      .put("from", r.from)
      .put("to", r.to)
      .put("amount", r.amount);
  out.put("fee", r.fee).put("memo", r.memo).put("status", "confirmed");
  out.put("timestamp", timestamp_text(r.timestamp_us)).end();
}

void render_stake(json_writer& out, const stake_result& r) {
  out.begin().put("success", true).key("stake");
  write_stake_state(out, r.stake);
  out.key("new_balance").begin().put("available", r.available).put("staked", r.stake.amount).end().end();
}

void render_unstake(json_writer& out, const unstake_result& r) {
  out.begin().put("success", true).key("unstake").begin().put("amount", r.amount);
  out.put("cooldown_days", r.cooldown_days).put("available_date", date_text(r.available_day)).end();
  out.put("remaining_stake", r.remaining_stake).end();
}

} // namespace

task<response> post_send(gateway& g, exchange& x) {
  const auto json = parse_json(x.in.body);
  if (!json)
    co_return error_response(json.error(), x.request_id);
  field_reader in(*json);
  send_neuro what;
  what.to = in.text("to", true, 1, 128).value_or("");
  what.amount = in.amount("amount", true).value_or(neuro_amount{});
  what.memo = in.text("memo", false, 0, 256).value_or("");
  if (in.failed())
    co_return error_response(in.complaint(), x.request_id);
  co_return co_await move<send_result>(g, x, std::move(what), render_send);
}

task<response> post_stake(gateway& g, exchange& x) {
  const auto json = parse_json(x.in.body);
  if (!json)
    co_return error_response(json.error(), x.request_id);
  field_reader in(*json);
  stake_neuro what;
  what.amount = in.amount("amount", true).value_or(neuro_amount{});
  const auto config = g.node.config ? g.node.config() : nullptr;
  const int64_t min = config ? config->economics.min_lock_days : 7;
  const int64_t max = config ? config->economics.max_lock_days : 365;
  what.duration_days = static_cast<uint32_t>(in.integer("duration_days", false, min, max).value_or(0));
  if (in.failed())
    co_return error_response(in.complaint(), x.request_id);
  co_return co_await move<stake_result>(g, x, std::move(what), render_stake);
}

task<response> post_stake_add(gateway& g, exchange& x) {
  const auto json = parse_json(x.in.body);
  if (!json)
    co_return error_response(json.error(), x.request_id);
  field_reader in(*json);
  add_stake what;
  what.amount = in.amount("amount", true).value_or(neuro_amount{});
  if (in.failed())
    co_return error_response(in.complaint(), x.request_id);
  co_return co_await move<stake_result>(g, x, std::move(what), render_stake);
}

task<response> post_stake_extend(gateway& g, exchange& x) {
  const auto json = parse_json(x.in.body);
  if (!json)
    co_return error_response(json.error(), x.request_id);
  field_reader in(*json);
  extend_stake what;
  what.additional_days = static_cast<uint32_t>(in.integer("additional_days", true, 1, days_max).value_or(0));
  if (in.failed())
    co_return error_response(in.complaint(), x.request_id);
  co_return co_await move<stake_result>(g, x, std::move(what), render_stake);
}

task<response> post_unstake(gateway& g, exchange& x) {
  // No body at all means the same as an empty object: everything.
  const auto json = parse_json(x.in.body.empty() ? std::string_view("{}") : std::string_view(x.in.body));
  if (!json)
    co_return error_response(json.error(), x.request_id);
  field_reader in(*json);
  unstake_neuro what;
  what.amount = in.amount("amount", false);
  if (in.failed())
    co_return error_response(in.complaint(), x.request_id);
  co_return co_await move<unstake_result>(g, x, std::move(what), render_unstake);
}

} // namespace neuroshard::http
