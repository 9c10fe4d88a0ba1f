// Staking of the node's wallet (spec/economics.md section 5).
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

caf::error refuse_without_stake(const char* field) {
  return refuse_field(field, "no_stake", "There is no stake.");
}

reference_list lock_references(const lock_row& lock) {
  return {{"start", date_text(lock.start_day)}, {"unlock", date_text(lock.unlock_day)}};
}

} // namespace

stake_state account_book::own_stake(const lock_row& lock) {
  const neuro_amount staked = own().staked;
  return {staked, lock.start_day, lock.unlock_day, rules::stake_multiplier_ppm(params(), staked)};
}

caf::expected<stake_result> account_book::lock_more(neuro_amount amount, std::optional<lock_row> lock,
                                                    const char* field) {
  if (amount.atto == 0)
    return refuse_field(field, "zero", to_string(amount_error::zero));
  const account_row before = own();
  const auto staked = checked_add(before.staked, amount);
  if (!staked || *staked < params().min_stake || *staked > params().max_stake)
    return refuse_field(field, "out_of_range",
                        "The stake would be outside " + to_decimal(params().min_stake) + " to " +
                            to_decimal(params().max_stake) + " NEURO.",
                        {{"min", params().min_stake}, {"max", params().max_stake}});
  if (before.available < amount)
    return refuse_funds(amount, before.available);
  posting_set postings;
  postings.take(wallet_, account_part::available, amount).add(wallet_, account_part::staked, amount);
  const auto made = record({transaction_kind::stake,
                            wallet_,
                            wallet_,
                            amount,
                            {},
                            {},
                            {},
                            lock_references(*lock),
                            history_type::stake},
                           postings);
  if (!made)
    return made.error();
  store().save_lock(own().id, lock);
  return stake_result{{}, kernels::to_hex(made->id), own_stake(*lock), own().available};
}

caf::expected<stake_result> account_book::apply(const stake_neuro& what) {
  return once<stake_result>(what.mark, answer_kind::stake, [&]() -> caf::expected<stake_result> {
    const uint64_t days = what.duration_days == 0 ? params().default_lock_days : what.duration_days;
    if (days < params().min_lock_days || days > params().max_lock_days)
      return refuse_field("duration_days", "out_of_range", "The lock is shorter or longer than allowed.",
                          {{"min", static_cast<int64_t>(params().min_lock_days)},
                           {"max", static_cast<int64_t>(params().max_lock_days)}});
    const int32_t today = day_of(now_us_);
    lock_row lock{today, today + static_cast<int32_t>(days)};
    if (const auto old = store().lock(own().id))
      lock.unlock_day = std::max(lock.unlock_day, old->unlock_day);
    return lock_more(what.amount, lock, "amount");
  });
}

caf::expected<stake_result> account_book::apply(const add_stake& what) {
  return once<stake_result>(what.mark, answer_kind::stake, [&]() -> caf::expected<stake_result> {
    const auto lock = store().lock(own().id);
    if (!lock)
      return refuse_without_stake("amount");
    return lock_more(what.amount, lock, "amount");
  });
}

caf::expected<stake_result> account_book::apply(const extend_stake& what) {
  return once<stake_result>(what.mark, answer_kind::stake, [&]() -> caf::expected<stake_result> {
    auto lock = store().lock(own().id);
    if (!lock)
      return refuse_without_stake("additional_days");
    const int32_t today = day_of(now_us_);
    // A lock that has run out is extended from today on.
    const int64_t from = std::max(lock->unlock_day, today);
    const int64_t remaining = from + what.additional_days - today;
    const auto most = static_cast<int64_t>(params().max_lock_days);
    if (what.additional_days == 0 || remaining > most)
      return refuse_field("additional_days", "out_of_range",
                          "The remaining lock would be outside what is allowed.",
                          {{"min", int64_t{1}}, {"max", std::max<int64_t>(most - (from - today), 0)}});
    lock->unlock_day = static_cast<int32_t>(today + remaining);
    // No money moves; the transaction keeps the new date in the chain.
    const auto made = record({transaction_kind::stake,
                              wallet_,
                              wallet_,
                              {},
                              {},
                              {},
                              {},
                              lock_references(*lock),
                              history_type::stake},
                             {});
    if (!made)
      return made.error();
    store().save_lock(own().id, lock);
    return stake_result{{}, kernels::to_hex(made->id), own_stake(*lock), own().available};
  });
}

caf::expected<unstake_result> account_book::apply(const unstake_neuro& what) {
  return once<unstake_result>(what.mark, answer_kind::unstake, [&]() -> caf::expected<unstake_result> {
    const account_row before = own();
    const auto lock = store().lock(before.id);
    const neuro_amount amount = what.amount.value_or(before.staked);
    if (what.amount && amount.atto == 0)
      return refuse_field("amount", "zero", to_string(amount_error::zero));
    if (amount > before.staked || (!what.amount && amount.atto == 0))
      return refuse_field("amount", "exceeds_stake", "That is more than is staked.",
                          {{"max", before.staked}});
    const int32_t today = day_of(now_us_);
    if (lock && today < lock->unlock_day)
      return refuse_field("amount", "stake_locked",
                          "The stake is locked until " + date_text(lock->unlock_day) + ".",
                          {{"unlock_date", date_text(lock->unlock_day)}});
    const neuro_amount rest = *checked_sub(before.staked, amount);
    if (rest.atto != 0 && rest < params().min_stake)
      return refuse_field("amount", "below_minimum",
                          "What stays staked would be below " + to_decimal(params().min_stake) + " NEURO.",
                          {{"min", params().min_stake}});
    unstake_row cooling;
    cooling.amount = amount;
    cooling.release_day = today + static_cast<int32_t>(params().cooldown_days);
    posting_set postings;
    postings.take(wallet_, account_part::staked, amount).add(wallet_, account_part::pending, amount);
    const auto made = record({transaction_kind::unstake,
                              wallet_,
                              wallet_,
                              amount,
                              {},
                              {},
                              {},
                              {{"release", date_text(cooling.release_day)}},
                              history_type::unstake},
                             postings);
    if (!made)
      return made.error();
    cooling.transaction_id = kernels::to_hex(made->id);
    store().insert_unstake(before.id, cooling, made->seq);
    if (rest.atto == 0)
      store().save_lock(before.id, std::nullopt);
    return unstake_result{{},
                          cooling.transaction_id,
                          amount,
                          cooling.release_day,
                          static_cast<uint32_t>(params().cooldown_days),
                          rest};
  });
}

} // namespace neuroshard
