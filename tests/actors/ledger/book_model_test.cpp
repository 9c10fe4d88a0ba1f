#include "actors/ledger/money_rules.hpp"
#include "tests/actors/ledger/book_fixture.hpp"

#include <cstdio>
#include <map>
#include <random>
#include <set>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

using u128 = unsigned __int128;

/// The book as one would write it on a napkin: plain numbers and maps, no postings, no store.
struct napkin {
  u128 available = 0, staked = 0, minted = 0, burned = 0;
  std::map<std::string, u128> others;
  struct hold {
    u128 amount;
    uint64_t prompt, tokens;
    int64_t expires_us;
    int state; // 0 open, 1 settled, 2 refunded
  };
  std::map<std::string, hold> holds;
  struct waiting {
    u128 amount;
    int64_t due_us;
  };
  std::vector<waiting> rewards, unstakes;
  std::set<uint64_t> paid_steps;
  int32_t unlock_day = -1;
  std::map<int32_t, u128> minted_on;

  u128 pending() const {
    u128 sum = 0;
    for (const auto& [id, each] : holds)
      sum += each.state == 0 ? each.amount : 0;
    for (const auto& each : rewards)
      sum += each.amount;
    for (const auto& each : unstakes)
      sum += each.amount;
    return sum;
  }
  /// Moves what is due into available; minutes matter for the rest, not for reservations.
  void time(int64_t now_us, bool all_holds) {
    for (auto& [id, each] : holds)
      if (each.state == 0 && (all_holds || each.expires_us <= now_us)) {
        each.state = 2;
        available += each.amount;
      }
    for (auto* list : {&rewards, &unstakes})
      std::erase_if(*list, [&](const waiting& each) {
        const bool due = each.due_us <= now_us;
        available += due ? each.amount : 0;
        return due;
      });
  }
};

uint32_t seed_of_run() {
  const char* given = std::getenv("NEUROSHARD_TEST_SEED");
  return given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
}

constexpr u128 unit = atto_per_neuro;

} // namespace

TEST_CASE_FIXTURE(book_fixture,
                  "random operations agree with a plain reference, and the book is always in order") {
  const uint32_t seed = seed_of_run();
  std::printf("book_model_test: NEUROSHARD_TEST_SEED=%u\n", seed);
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t bound) { return random() % bound; };
  const digest model = digest_of("model");
  open();
  done(note_checkpoint{architecture, model, 0});
  napkin plain;
  uint64_t next_id = 0;
  int64_t now = clock->us;
  int64_t minute = -1;
  const char* friends[] = {friend_address, other_address, "0x00000000000000000000000000000000000000f3"};

  const auto same = [&] {
    const auto own = book->own();
    const auto& totals = book->totals();
    REQUIRE(own.available.atto == plain.available);
    REQUIRE(own.staked.atto == plain.staked);
    REQUIRE(own.pending.atto == plain.pending());
    REQUIRE(totals.minted.atto == plain.minted);
    REQUIRE(totals.burned.atto == plain.burned);
    u128 all = plain.available + plain.staked + plain.pending();
    for (const auto& [address, amount] : plain.others)
      all += amount;
    REQUIRE(all == plain.minted - plain.burned);
    REQUIRE(totals.available.atto + totals.staked.atto + totals.pending.atto == all);
  };
  const auto pass_time = [&] {
    now = std::max<int64_t>(now, clock->us);
    REQUIRE(book->run_due());
    if (now / 60'000'000 != minute) {
      plain.time(now, false);
    } else {
      for (auto& [id, each] : plain.holds)
        if (each.state == 0 && each.expires_us <= now) {
          each.state = 2;
          plain.available += each.amount;
        }
    }
    minute = now / 60'000'000;
  };
  pass_time();

  for (int i = 0; i < 6'000; ++i) {
    CAPTURE(i);
    now = std::max<int64_t>(now, clock->us);
    const int32_t today = day_of(now);
    switch (below(16)) {
    case 0:
    case 1:
    case 2: { // send: mostly small, now and then more than there is, at times to a wrong place
      const u128 amount = below(10) == 0 ? plain.available + below(1'000) : 1 + random() % (5 * unit);
      const std::string to = below(12) == 0 ? me() : friends[below(3)];
      const u128 fee = (amount + 999) / 1'000;
      const auto sent = book->apply(send_neuro{to, {amount}, "m", {}});
      const bool fine = to != me() && amount > 0 && amount + fee <= plain.available;
      REQUIRE(static_cast<bool>(sent) == fine);
      if (fine) {
        plain.available -= amount + fee;
        plain.others[to] += amount;
        plain.burned += fee;
      }
      break;
    }
    case 3: { // the same request twice
      const auto mark = mark_of("body " + std::to_string(i));
      const u128 amount = 1 + below(1'000'000);
      const u128 fee = (amount + 999) / 1'000;
      const bool fine = amount + fee <= plain.available;
      const auto one = book->apply(send_neuro{friends[0], {amount}, {}, mark});
      const auto two = book->apply(send_neuro{friends[0], {amount}, {}, mark});
      REQUIRE(static_cast<bool>(one) == fine);
      REQUIRE(static_cast<bool>(two) == fine);
      if (fine) {
        REQUIRE(one->transaction_id == two->transaction_id);
        plain.available -= amount + fee;
        plain.others[friends[0]] += amount;
        plain.burned += fee;
      }
      break;
    }
    case 4:
    case 5: { // reserve, old ids among the new
      const bool old = !plain.holds.empty() && below(5) == 0;
      const uint64_t number = old ? below(next_id) : next_id++;
      const std::string id = "inf_" + std::to_string(number);
      const uint64_t prompt = 1 + number % 50, tokens = 1 + number % 700;
      const u128 cost = (prompt + tokens) * (unit / 10'000);
      const auto made = book->apply(reserve_inference{id, prompt, tokens});
      if (plain.holds.contains(id)) {
        REQUIRE(made);
      } else {
        REQUIRE(static_cast<bool>(made) == (cost <= plain.available));
        if (made) {
          plain.available -= cost;
          plain.holds[id] = {cost, prompt, tokens, now + 600'000'000, 0};
        }
      }
      break;
    }
    case 6:
    case 7: { // settle or refund, any id
      if (next_id == 0)
        break;
      const std::string id = "inf_" + std::to_string(below(next_id));
      const auto held = plain.holds.find(id);
      if (below(3) == 0) {
        const auto back = book->apply(refund_inference{id});
        REQUIRE(static_cast<bool>(back) == (held != plain.holds.end() && held->second.state != 1));
        if (back && held->second.state == 0) {
          held->second.state = 2;
          plain.available += held->second.amount;
        }
        break;
      }
      settle_inference what;
      what.request_id = id;
      what.prompt_tokens = held == plain.holds.end() ? 1 : held->second.prompt;
      what.completion_tokens = held == plain.holds.end() ? 1 : below(held->second.tokens + 1);
      what.driver = below(2) ? me() : friends[below(3)];
      what.validator = below(4) == 0 ? std::string() : friends[below(3)];
      for (uint64_t n = below(4); n > 0; --n) {
        const uint64_t counted = below(1'000);
        what.workers.push_back({friends[below(3)], counted, below(counted + 1), ""});
      }
      const auto settled = book->apply(what);
      REQUIRE(static_cast<bool>(settled) == (held != plain.holds.end() && held->second.state != 2));
      if (!settled || held->second.state == 1)
        break;
      const u128 cost = (what.prompt_tokens + what.completion_tokens) * (unit / 10'000);
      const u128 rest = cost - (cost * 5 + 99) / 100;
      u128 paid = 0, work = 0;
      const auto pay = [&](const std::string& to, u128 amount) {
        (to == me() ? plain.available : plain.others[to]) += amount;
        paid += amount;
      };
      plain.available += held->second.amount - cost;
      pay(what.driver, rest * 15 / 100);
      if (!what.validator.empty())
        pay(what.validator, rest * 15 / 100);
      for (const auto& worker : what.workers)
        work += worker.counted_work;
      for (const auto& worker : what.workers)
        if (work > 0)
          pay(worker.address, rest * 70 / 100 * worker.credited_work / work);
      plain.burned += cost - paid;
      held->second.state = 1;
      REQUIRE(settled->cost.atto == cost);
      REQUIRE(settled->burned.atto == cost - paid);
      break;
    }
    case 8:
    case 9:
    case 10: { // training, ranges overlapping at random
      const uint64_t begin = below(4'000), steps = 1 + below(30);
      const uint64_t tokens = 1 + below(3'000'000) * 1'000;
      const auto got = book->apply(claim(begin, begin + steps, tokens, 100, model));
      REQUIRE(got);
      if (got->replayed)
        break;
      uint64_t fresh = 0;
      for (uint64_t step = begin; step < begin + steps; ++step)
        fresh += plain.paid_steps.insert(step).second ? 1 : 0;
      REQUIRE(got->steps_rewarded == fresh);
      if (fresh == 0)
        break;
      const u128 counted = static_cast<u128>(tokens) * fresh / steps;
      u128 amount = counted * 100 * (unit / 2'000) / 4'096;
      amount = amount * rules::stake_multiplier_ppm(options.params, {plain.staked}) / 1'000'000;
      amount = amount * 11 / 10;
      amount = std::min({amount, 100 * unit, 10'000 * unit - plain.minted_on[today]});
      REQUIRE(got->amount.atto == amount);
      plain.minted += amount;
      plain.minted_on[today] += amount;
      if (amount > 0)
        plain.rewards.push_back({amount, now + 600'000'000});
      break;
    }
    case 11: { // stake
      const u128 amount = below(3) == 0 ? below(2'000) * unit : 1'000 * unit + below(1'000'000);
      const auto days = static_cast<uint32_t>(5 + below(40));
      const bool fine =
          days >= 7 && amount > 0 && plain.staked + amount >= 1'000 * unit && amount <= plain.available;
      const auto made = book->apply(stake_neuro{{amount}, days, {}});
      REQUIRE(static_cast<bool>(made) == fine);
      if (fine) {
        plain.available -= amount;
        plain.staked += amount;
        plain.unlock_day = std::max(plain.unlock_day, today + static_cast<int32_t>(days));
        REQUIRE(made->stake.unlock_day == plain.unlock_day);
      }
      break;
    }
    case 12: { // unstake
      const u128 amount = below(2) ? plain.staked : below(1'500) * unit;
      const u128 rest = plain.staked - std::min(amount, plain.staked);
      const bool fine = amount > 0 && amount <= plain.staked && today >= plain.unlock_day &&
                        (rest == 0 || rest >= 1'000 * unit);
      REQUIRE(static_cast<bool>(book->apply(unstake_neuro{neuro_amount{amount}, {}})) == fine);
      if (fine) {
        plain.staked = rest;
        plain.unstakes.push_back({amount, start_of_day(today + 7)});
        if (rest == 0)
          plain.unlock_day = -1;
      }
      break;
    }
    case 13: // time passes, or is set back
      if (below(8) == 0)
        clock->advance_s(-static_cast<int64_t>(below(10'000)));
      else if (below(10) == 0)
        clock->us = now + static_cast<int64_t>(below(9 * 86'400)) * us_per_second;
      else
        clock->us = now + static_cast<int64_t>(below(400'000'000));
      pass_time();
      break;
    case 14: // the group ends
      REQUIRE(!book->commit());
      break;
    case 15: // the process is killed with nothing in flight, or ends in order
      if (below(40) != 0)
        break;
      REQUIRE(!book->commit());
      if (below(2))
        REQUIRE(!book->close());
      clock->us = std::max<int64_t>(clock->us, now);
      reopen();
      now = std::max<int64_t>(now, clock->us);
      plain.time(now, true);
      minute = now / 60'000'000;
      break;
    }
    same();
  }
  REQUIRE(!book->commit());
  const auto at = reader();
  for (const auto& [address, amount] : plain.others)
    CHECK(at->balance(address)->available.atto == amount);
  verify(true);
}
