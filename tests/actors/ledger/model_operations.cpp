// What the model test does to the book and to the reference: one function an operation.
#include "tests/actors/ledger/model_run.hpp"

#include <algorithm>
#include <array>

namespace neuroshard::testing {

using u128 = plain_book::u128;
using hold = plain_book::hold;

namespace {

constexpr u128 u128_max = ~static_cast<u128>(0);
constexpr int64_t reservation_us = 600 * plain_book::second;

} // namespace

/// Mostly small, now and then more than there is, at times to a wrong place.
void model_run::send(std::optional<request_mark> as) {
  send_neuro what;
  switch (below(12)) {
  case 0:
    what.amount.atto = plain.available + below(1'000);
    break;
  case 1:
    what.amount.atto =
        plain.available - plain.available / 1'000; // With its fee: hardly too much or just enough.
    break;
  case 2:
    what.amount.atto = one_in(2) ? 0 : u128_max - below(3);
    break;
  case 3:
    what.amount.atto = 1 + below(2'000);
    break;
  default:
    what.amount.atto = 1 + random() % static_cast<uint64_t>(5 * unit);
  }
  what.to = a_friend();
  bool fine = what.amount.atto > 0 && what.amount.atto < u128_max / 100'000 &&
              plain.can_pay(what.amount.atto + plain.fee(what.amount.atto));
  if (one_in(12)) {
    const std::array<std::string, 5> wrong = {me(), "", "mint", "0x" + std::string(40, '0'),
                                              a_friend() + "0"};
    what.to = wrong[below(wrong.size())];
    fine = false;
  } else if (one_in(8)) {
    for (char& c : what.to)
      c = c >= 'a' && c <= 'f' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  if (one_in(30)) {
    what.memo.assign(memo_bytes_max + below(2), '=');
    fine = fine && what.memo.size() <= memo_bytes_max;
  } else if (one_in(3)) {
    what.memo = "rent\n\xc3\xa4 %";
  }
  what.mark = std::move(as);
  if (const auto sent = once(what, fine)) {
    const u128 fee = plain.fee(what.amount.atto);
    REQUIRE(sent->fee.atto == fee);
    plain.available -= what.amount.atto + fee;
    plain.others[sent->to] += what.amount.atto;
    plain.burned += fee;
  }
}

void model_run::send_twice() {
  const uint64_t number = random();
  const auto as = mark_of("twice " + std::to_string(number), one_in(2) ? "" : std::to_string(number));
  send(as);
  send(as); // The second is found where the first was done, and refused again where it was not.
}

void model_run::reserve() {
  const uint64_t number = one_in(4) ? some_id() : next_id++;
  reserve_inference what{id_of(number), 1 + number % 50, 1 + number % 700};
  if (one_in(40))
    what.max_tokens += 1;
  const auto made = book->apply(what);
  if (const auto old = plain.holds.find(number); old != plain.holds.end()) {
    const bool same = old->second.prompt == what.prompt_tokens && old->second.tokens == what.max_tokens;
    REQUIRE(static_cast<bool>(made) == same);
    if (same)
      REQUIRE(made->reserved.atto == old->second.amount);
    return;
  }
  hold held;
  held.price = plain.now().price;
  held.prompt = what.prompt_tokens;
  held.tokens = what.max_tokens;
  held.amount = (what.prompt_tokens + what.max_tokens) * held.price;
  held.expires_us = plain.now_us + reservation_us;
  REQUIRE(static_cast<bool>(made) == plain.can_pay(held.amount));
  if (!made)
    return;
  plain.available -= held.amount;
  ++plain.transactions;
  plain.holds[number] = held;
  std::erase_if(plain.holds, [&](const auto& each) {
    return each.first + ids_in_reach < next_id && each.second.state != hold::open;
  });
  std::erase_if(plain.receipts, [&](const auto& each) { return each.first.first + ids_in_reach < next_id; });
}

void model_run::settle() {
  const uint64_t number = some_id();
  const auto found = plain.holds.find(number);
  hold none;
  hold& held = found == plain.holds.end() ? none : found->second;
  settle_inference what;
  what.request_id = id_of(number);
  what.prompt_tokens = held.prompt;
  what.completion_tokens = below(held.tokens + 1);
  bool fine = found != plain.holds.end() && held.state == hold::open;
  if (one_in(30)) {
    what.completion_tokens = held.tokens + 1; // more than was reserved
    fine = false;
  }
  what.driver = one_in(6) ? "" : anybody();
  what.validator = one_in(4) ? "" : anybody();
  for (uint64_t n = below(5); n > 0; --n) {
    const uint64_t counted = below(1'000);
    what.workers.push_back({one_in(8) ? "" : anybody(), counted, below(counted + 1), ""});
  }
  for (const auto& helper : helpers)
    if (const auto done = plain.receipts.find({number, helper.address()}); done != plain.receipts.end()) {
      const auto& by = done->second;
      const uint64_t counted = by.work + below(50), credited = one_in(40) ? by.work + 1 : below(by.work + 1);
      what.workers.push_back({by.address, std::max(counted, credited), credited, by.receipt_id});
      fine = fine && credited <= by.work; // more than its receipt says
    }
  if (one_in(50)) {
    what.workers.push_back({me(), 5, 6, ""}); // credited with more than was counted
    fine = false;
  }
  what.mark = mark("/api/v1/inference");
  what.response = "settled " + what.request_id;
  const auto settled = book->apply(what);
  if (held.state == hold::settled) {
    REQUIRE(settled);
    REQUIRE(settled->origin.replayed);
    REQUIRE(settled->transaction_id == held.end_transaction);
    REQUIRE(settled->cost.atto == held.cost);
    REQUIRE(settled->burned.atto == held.burned);
    REQUIRE(settled->earned.atto == held.earned);
    ++replays;
    return;
  }
  REQUIRE(static_cast<bool>(settled) == fine);
  if (!fine)
    return;
  held.state = hold::settled;
  held.cost = (what.prompt_tokens + what.completion_tokens) * held.price;
  const u128 rest = held.cost - (held.cost * plain.now().burn_bp + 9'999) / 10'000;
  u128 paid = 0, work = 0;
  plain.available += held.amount - held.cost;
  pay(what.driver, rest * 15 / 100, held, paid);
  pay(what.validator, rest * 15 / 100, held, paid);
  for (const auto& worker : what.workers)
    work += worker.counted_work;
  for (const auto& worker : what.workers)
    if (work > 0)
      pay(worker.address, rest * 70 / 100 * worker.credited_work / work, held, paid,
          !worker.receipt_id.empty());
  held.burned = held.cost - paid;
  held.end_transaction = settled->transaction_id;
  plain.burned += held.burned;
  ++plain.transactions;
  REQUIRE(settled->cost.atto == held.cost);
  REQUIRE(settled->burned.atto == held.burned);
  REQUIRE(settled->earned.atto == held.earned);
  if (what.mark)
    plain.answers.push_back({*what.mark, true, what.response, settled->origin.row, plain.now_us, false});
}

void model_run::refund() {
  const uint64_t number = some_id();
  const auto held = plain.holds.find(number);
  const auto back = book->apply(refund_inference{id_of(number)});
  REQUIRE(static_cast<bool>(back) == (held != plain.holds.end() && held->second.state != hold::settled));
  if (!back)
    return;
  REQUIRE(back->refunded.atto == held->second.amount);
  if (held->second.state == hold::open)
    plain.refund(held->second);
}

void model_run::stake() {
  stake_neuro what;
  what.amount.atto = one_in(3) ? below(2'000) * unit : 1'000 * unit + below(1'000'000);
  if (one_in(20))
    what.amount.atto = plain.available + below(2);
  what.duration_days = static_cast<uint32_t>(one_in(10) ? 0 : one_in(15) ? 364 + below(3) : 5 + below(40));
  what.mark = mark("/api/v1/wallet/stake");
  const uint32_t days = what.duration_days == 0 ? 30 : what.duration_days;
  if (const auto made = once(what, days >= 7 && days <= 365 && plain.can_lock(what.amount.atto))) {
    const int32_t unlock = plain.today() + static_cast<int32_t>(days);
    plain.available -= what.amount.atto;
    plain.staked += what.amount.atto;
    plain.locked = {{plain.today(), plain.locked ? std::max(unlock, plain.locked->unlock) : unlock}};
    REQUIRE(made->stake.unlock_day == plain.locked->unlock);
    REQUIRE(made->stake.amount.atto == plain.staked);
    REQUIRE(made->available.atto == plain.available);
  }
}

void model_run::add_more() {
  add_stake what;
  what.amount.atto = one_in(4) ? plain.available + below(2) : below(50) * unit;
  what.mark = mark("/api/v1/wallet/stake/add");
  if (const auto made = once(what, plain.locked && plain.can_lock(what.amount.atto))) {
    plain.available -= what.amount.atto;
    plain.staked += what.amount.atto;
    REQUIRE(made->stake.unlock_day == plain.locked->unlock);
    REQUIRE(made->stake.start_day == plain.locked->start);
  }
}

void model_run::extend() {
  extend_stake what;
  what.additional_days = static_cast<uint32_t>(one_in(6) ? below(400) : below(6));
  what.mark = mark("/api/v1/wallet/stake/extend");
  const int32_t from = plain.locked ? std::max(plain.locked->unlock, plain.today()) : 0;
  const int64_t unlock = static_cast<int64_t>(from) + what.additional_days;
  const bool fine = plain.locked && what.additional_days > 0 && unlock - plain.today() <= 365;
  if (const auto made = once(what, fine)) {
    plain.locked->unlock = static_cast<int32_t>(unlock);
    REQUIRE(made->stake.unlock_day == plain.locked->unlock);
    REQUIRE(made->stake.amount.atto == plain.staked);
  }
}

void model_run::unstake() {
  unstake_neuro what;
  if (!one_in(3))
    what.amount = neuro_amount{one_in(2) ? plain.staked : below(1'500) * unit};
  what.mark = mark("/api/v1/wallet/unstake");
  const u128 amount = what.amount ? what.amount->atto : plain.staked;
  if (const auto made = once(what, plain.can_unstake(amount))) {
    plain.staked -= amount;
    plain.unstakes.push_back({amount, (plain.today() + 7) * plain_book::day});
    if (plain.staked == 0)
      plain.locked.reset();
    REQUIRE(made->amount.atto == amount);
    REQUIRE(made->remaining_stake.atto == plain.staked);
    REQUIRE(made->available_day == plain.today() + 7);
  }
}

void model_run::keep() {
  const auto as = some_mark("/api/v1/inference");
  const std::string response = "kept " + std::to_string(random());
  const auto made = book->apply(keep_response{as, response});
  REQUIRE(made);
  plain.answers.push_back({as, true, response, made->row, plain.now_us, false});
}

void model_run::find() {
  const auto as = some_mark(one_in(4) ? "/api/v1/wallet/unstake" : "/api/v1/inference");
  const auto expected = plain.look_up(as);
  const auto got = book->apply(find_response{as});
  REQUIRE(static_cast<bool>(got) == !expected.key_reused);
  if (!got)
    return;
  REQUIRE(got->found == (expected.first != nullptr && expected.first->is_response));
  if (got->found) {
    REQUIRE(got->row == expected.first->row);
    REQUIRE(got->response == expected.first->result);
  }
}

} // namespace neuroshard::testing
