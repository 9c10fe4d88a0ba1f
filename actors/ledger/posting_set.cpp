#include "actors/ledger/posting_set.hpp"

#include "actors/ledger/canonical_text.hpp"

namespace neuroshard {

account_book::posting_set& account_book::posting_set::put(std::string_view account, account_part part,
                                                          neuro_amount amount, bool negative) {
  line* to = nullptr;
  for (auto& each : lines_)
    if (each.part == part && each.account == account)
      to = &each;
  if (to == nullptr)
    to = &lines_.emplace_back(line{std::string(account), part, {}, {}});
  neuro_amount& side = negative ? to->minus : to->plus;
  const auto sum = checked_add(side, amount);
  overflow_ = overflow_ || !sum;
  side = sum.value_or(side);
  return *this;
}

std::optional<std::vector<posting>> account_book::posting_set::netted() const {
  if (overflow_)
    return std::nullopt;
  std::vector<posting> made;
  neuro_amount plus, minus;
  for (const auto& each : lines_) {
    const bool negative = each.minus > each.plus;
    const neuro_amount net =
        negative ? *checked_sub(each.minus, each.plus) : *checked_sub(each.plus, each.minus);
    if (net.atto == 0)
      continue;
    neuro_amount& side = negative ? minus : plus;
    const auto sum = checked_add(side, net);
    if (!sum)
      return std::nullopt;
    side = *sum;
    made.push_back({each.account, each.part, negative, net});
  }
  if (plus != minus)
    return std::nullopt;
  return made;
}

caf::error refuse_field(std::string field, std::string reason, std::string message,
                        std::vector<std::pair<std::string, detail_value>> details) {
  problem what;
  what.message = std::move(message);
  what.field = std::move(field);
  what.reason = std::move(reason);
  what.details = std::move(details);
  return refuse(errc::invalid_request, std::move(what));
}

caf::error refuse_funds(neuro_amount required, neuro_amount available) {
  problem what;
  what.message = "Wallet balance " + to_decimal(available) + " NEURO is less than required " +
                 to_decimal(required) + " NEURO";
  what.details = {{"required", required}, {"available", available}, {"balance", available}};
  return refuse(errc::insufficient_balance, std::move(what));
}

std::string answer_text(const send_result& of) {
  return canonical_writer()
      .text("transaction_id", of.transaction_id)
      .text("from", of.from)
      .text("to", of.to)
      .amount("amount", of.amount)
      .amount("fee", of.fee)
      .text("memo", of.memo)
      .number("timestamp", static_cast<uint64_t>(of.timestamp_us))
      .payload();
}

bool read_answer(std::string_view text, send_result& out) {
  canonical_reader in(text);
  out.transaction_id = in.text("transaction_id");
  out.from = in.text("from");
  out.to = in.text("to");
  out.amount = in.amount("amount");
  out.fee = in.amount("fee");
  out.memo = in.text("memo");
  out.timestamp_us = static_cast<int64_t>(in.number("timestamp"));
  return in.done();
}

std::string answer_text(const stake_result& of) {
  return canonical_writer()
      .text("transaction_id", of.transaction_id)
      .amount("amount", of.stake.amount)
      .number("start_day", static_cast<uint64_t>(of.stake.start_day))
      .number("unlock_day", static_cast<uint64_t>(of.stake.unlock_day))
      .number("multiplier", of.stake.multiplier_ppm)
      .amount("available", of.available)
      .payload();
}

bool read_answer(std::string_view text, stake_result& out) {
  canonical_reader in(text);
  out.transaction_id = in.text("transaction_id");
  out.stake.amount = in.amount("amount");
  out.stake.start_day = static_cast<int32_t>(in.number("start_day"));
  out.stake.unlock_day = static_cast<int32_t>(in.number("unlock_day"));
  out.stake.multiplier_ppm = in.number("multiplier");
  out.available = in.amount("available");
  return in.done();
}

std::string answer_text(const unstake_result& of) {
  return canonical_writer()
      .text("transaction_id", of.transaction_id)
      .amount("amount", of.amount)
      .number("available_day", static_cast<uint64_t>(of.available_day))
      .number("cooldown_days", static_cast<uint64_t>(of.cooldown_days))
      .amount("remaining", of.remaining_stake)
      .payload();
}

bool read_answer(std::string_view text, unstake_result& out) {
  canonical_reader in(text);
  out.transaction_id = in.text("transaction_id");
  out.amount = in.amount("amount");
  out.available_day = static_cast<int32_t>(in.number("available_day"));
  out.cooldown_days = static_cast<uint32_t>(in.number("cooldown_days"));
  out.remaining_stake = in.amount("remaining");
  return in.done();
}

} // namespace neuroshard
