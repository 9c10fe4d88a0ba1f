// Payment of inference: reserve, then settle or refund, exactly once (spec/economics.md section 7).
#include "actors/common/log.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

constexpr uint64_t tokens_max = uint64_t{1} << 40;
constexpr size_t workers_max = 1'024;

bool is_request_id(std::string_view text) {
  const auto plain = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
  };
  return !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), plain);
}

caf::error refuse_request_id() {
  return refuse_field("request_id", "malformed", "A request id has 1 to 64 characters of [A-Za-z0-9_-].");
}

caf::error refuse_unknown(const std::string& request_id) {
  problem what;
  what.message = "There is no reservation of this id.";
  what.field = "request_id";
  what.details = {{"resource", std::string("reservation")}, {"identifier", request_id}};
  return refuse(errc::not_found, std::move(what));
}

caf::error refuse_ended(const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.field = "request_id";
  what.reason = reason;
  return refuse(errc::failed_precondition, std::move(what));
}

} // namespace

caf::expected<reserve_result> account_book::apply(const reserve_inference& what) {
  return operate<reserve_result>([&]() -> caf::expected<reserve_result> {
    if (!is_request_id(what.request_id))
      return refuse_request_id();
    if (what.prompt_tokens > tokens_max || what.max_tokens > tokens_max ||
        what.prompt_tokens + what.max_tokens == 0)
      return refuse_field("max_tokens", "out_of_range", "The number of tokens is out of range.");
    if (const auto old = store().reservation(what.request_id)) {
      if (old->prompt_tokens != what.prompt_tokens || old->max_tokens != what.max_tokens)
        return refuse(errc::already_exists, "This id has a reservation for other numbers of tokens.");
      return reserve_result{old->reserved, old->price, old->expires_us};
    }
    const neuro_amount price = params().price_per_token;
    const auto amount = checked_mul(price, what.prompt_tokens + what.max_tokens);
    const neuro_amount available = own().available;
    if (!amount)
      return refuse_field("max_tokens", "overflow", to_string(amount_error::overflow));
    if (available < *amount)
      return refuse_funds(*amount, available);
    posting_set postings;
    postings.take(wallet_, account_part::available, *amount).add(wallet_, account_part::pending, *amount);
    const auto made = record({transaction_kind::infer_reserve,
                              wallet_,
                              {},
                              *amount,
                              {},
                              {},
                              {},
                              {{"request", what.request_id}},
                              history_type::inference},
                             postings);
    if (!made)
      return made.error();
    reservation_row row;
    row.request_id = what.request_id;
    row.reserved = *amount;
    row.price = price;
    row.prompt_tokens = what.prompt_tokens;
    row.max_tokens = what.max_tokens;
    row.created_us = now_us_;
    row.expires_us = now_us_ + static_cast<int64_t>(params().reservation_s) * us_per_second;
    store().insert_reservation(own().id, row, made->seq);
    ++open_reservations_;
    return reserve_result{row.reserved, row.price, row.expires_us};
  });
}

caf::expected<settle_result> account_book::apply(const settle_inference& what) {
  return operate<settle_result>([&]() -> caf::expected<settle_result> {
    if (!is_request_id(what.request_id))
      return refuse_request_id();
    if (what.workers.size() > workers_max)
      return refuse_field("workers", "too_many", "More than 1,024 workers share one inference.");
    if (what.mark && what.response.size() > response_bytes_max)
      return refuse_field("response", "too_long", "A response of more than 1 MiB is not kept.");
    auto row = store().reservation(what.request_id);
    if (!row)
      return refuse_unknown(what.request_id);
    if (row->state == reservation_state::settled)
      return settle_result{{true, 0}, row->end_transaction_id, row->cost, row->burned, row->earned};
    if (row->state == reservation_state::refunded)
      return refuse_ended("already_refunded", "This reservation was refunded.");
    if (what.prompt_tokens > tokens_max || what.completion_tokens > tokens_max ||
        what.prompt_tokens + what.completion_tokens > row->prompt_tokens + row->max_tokens)
      return refuse_field("completion_tokens", "out_of_range", "These are more tokens than were reserved.");
    const auto cost = checked_mul(row->price, what.prompt_tokens + what.completion_tokens);

    // Who is paid. An address that is left empty has its part burned.
    std::vector<std::string> addresses;
    for (const std::string* each : {&what.driver, &what.validator}) {
      const auto address = each->empty() ? std::string() : parse_address(*each);
      if (!address)
        return refuse_field("driver", "invalid_address", "A participant's wallet is no address.");
      addresses.push_back(*address);
    }
    for (const auto& worker : what.workers) {
      const auto address = worker.address.empty() ? std::string() : parse_address(worker.address);
      if (!address || worker.credited_work > worker.counted_work)
        return refuse_field("workers", "invalid_share", "A worker's share is malformed.");
      addresses.push_back(*address);
    }
    if (auto wrong = check_shares(what, addresses))
      return wrong;
    std::vector<rules::work_share> work;
    for (size_t i = 0; i < what.workers.size(); ++i)
      work.push_back(
          {what.workers[i].counted_work, addresses[2 + i].empty() ? 0 : what.workers[i].credited_work});
    const auto split =
        cost ? rules::split_fee(params(), *cost, work, !addresses[0].empty(), !addresses[1].empty())
             : std::nullopt;
    if (!split)
      return refuse_field("workers", "overflow", "The shares do not fit.");

    std::vector<share_row> shares;
    shares.push_back({"driver", addresses[0], split->driver, what.driver_receipt_id});
    shares.push_back({"validator", addresses[1], split->validator, what.validator_receipt_id});
    for (size_t i = 0; i < what.workers.size(); ++i)
      shares.push_back({"worker", addresses[2 + i], split->workers[i], what.workers[i].receipt_id});

    posting_set postings;
    postings.take(wallet_, account_part::pending, row->reserved)
        .add(wallet_, account_part::available, *checked_sub(row->reserved, *cost))
        .burn(split->burn);
    neuro_amount earned;
    for (const auto& share : shares) {
      if (share.amount.atto == 0)
        continue;
      postings.add(share.address, account_part::available, share.amount);
      if (share.address == wallet_)
        earned.atto += share.amount.atto; // A part of the cost: it fits.
    }
    const auto made = record({transaction_kind::infer_settle,
                              wallet_,
                              {},
                              *cost,
                              {},
                              split->burn,
                              {},
                              {{"request", what.request_id}},
                              earned.atto > 0 ? std::optional(history_type::inference) : std::nullopt},
                             postings);
    if (!made)
      return made.error();
    row->state = reservation_state::settled;
    row->cost = *cost;
    row->burned = split->burn;
    row->earned = earned;
    row->end_transaction_id = kernels::to_hex(made->id);
    std::erase_if(shares, [](const share_row& share) { return share.address.empty(); });
    store().end_reservation(*row, made->seq, shares);
    --open_reservations_;
    if (earned.atto != 0) {
      auto day = store().reward_day(day_of(now_us_), reward_type::inference);
      day.amount = checked_add(day.amount, earned).value_or(day.amount);
      store().save_reward_day(day_of(now_us_), reward_type::inference, day);
    }
    settle_result result{{}, row->end_transaction_id, row->cost, row->burned, row->earned};
    if (what.mark)
      result.origin.row = store().insert_answer(*what.mark, answer_kind::response, what.response, now_us_);
    return result;
  });
}

caf::expected<refund_result> account_book::apply(const refund_inference& what) {
  return operate<refund_result>([&]() -> caf::expected<refund_result> {
    if (!is_request_id(what.request_id))
      return refuse_request_id();
    auto row = store().reservation(what.request_id);
    if (!row)
      return refuse_unknown(what.request_id);
    if (row->state == reservation_state::settled)
      return refuse_ended("already_settled", "This reservation was settled.");
    if (row->state == reservation_state::refunded)
      return refund_result{row->reserved};
    return give_back(std::move(*row));
  });
}

caf::expected<refund_result> account_book::give_back(reservation_row row) {
  posting_set postings;
  postings.take(wallet_, account_part::pending, row.reserved)
      .add(wallet_, account_part::available, row.reserved);
  const auto made = record({transaction_kind::infer_refund,
                            wallet_,
                            {},
                            row.reserved,
                            {},
                            {},
                            {},
                            {{"request", row.request_id}},
                            {}},
                           postings);
  if (!made)
    return made.error();
  row.state = reservation_state::refunded;
  row.end_transaction_id = kernels::to_hex(made->id);
  store().end_reservation(row, made->seq, {});
  --open_reservations_;
  return refund_result{row.reserved};
}

caf::error account_book::refund_expired(bool all) {
  if (open_reservations_ == 0)
    return {};
  for (auto& row : store().open_reservations()) {
    if (!all && row.expires_us > now_us_)
      break; // They are sorted by expiry.
    log::info("ledger", "reservation-refunded request={} reason={}", row.request_id,
              all ? "start" : "expired");
    if (const auto given = give_back(std::move(row)); !given)
      return given.error();
  }
  return store().fault();
}

} // namespace neuroshard
