#include "tests/actors/ledger/book_fixture.hpp"

#include <thread>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

history_query newest(uint32_t limit) {
  history_query query;
  query.limit = limit;
  return query;
}

struct lively : book_fixture {
  std::shared_ptr<ledger_reader> read;
  int32_t today = 0;
  lively() {
    open();
    fund(1'200_neuro);
    read = reader();
    today = day_of(clock->us);
  }
  history_page page(history_query query = {}) const {
    auto got = read->history(query);
    REQUIRE(got);
    return std::move(*got);
  }
  history_page page_of(history_type type) const {
    history_query query;
    query.limit = 100;
    query.type = type;
    return page(query);
  }
};

} // namespace

TEST_CASE_FIXTURE(lively, "a balance is the sum of its parts, and unknown addresses have none") {
  done(stake_neuro{1'000_neuro, 30, {}});
  done(reserve_inference{"inf_1", 10, 10});
  const auto got = read->balance();
  REQUIRE(got);
  CHECK(got->address == me());
  CHECK(got->staked == 1'000_neuro);
  CHECK(got->pending == 0.002_neuro);
  CHECK(got->total.atto == got->available.atto + got->staked.atto + got->pending.atto);
  REQUIRE(got->staking);
  CHECK(got->staking->multiplier_ppm == 1'100'000);
  CHECK(got->staking->duration_days() == 30);
  CHECK(read->balance(friend_address)->total.atto == 0);
  const auto stake = read->stake();
  CHECK(stake->days_remaining == 30);
  CHECK(!stake->pending_available_day);
  CHECK(read->required_stake(3) == 100_neuro);
}

TEST_CASE_FIXTURE(lively, "history shows each kind as the wallet sees it, newest first") {
  const auto sent = done(send_neuro{friend_address, 10_neuro, "rent", {}});
  done(reserve_inference{"inf_paid", 12, 200});
  done(reserve_inference{"inf_back", 1, 9});
  done(reserve_inference{"inf_open", 1, 4});
  settle_inference what;
  what.request_id = "inf_paid";
  what.prompt_tokens = 12;
  what.completion_tokens = 156;
  what.driver = me();
  what.validator = friend_address;
  what.workers = {{friend_address, 1, 1, ""}};
  done(what);
  done(refund_inference{"inf_back"});
  done(stake_neuro{1'000_neuro, 30, {}});

  auto got = page(newest(100));
  CHECK(got.total == got.items.size());
  for (size_t i = 1; i < got.items.size(); ++i)
    CHECK(got.items[i].seq < got.items[i - 1].seq);

  got = page_of(history_type::send);
  REQUIRE(got.items.size() == 1);
  CHECK(got.items[0].id == sent.transaction_id);
  CHECK(got.items[0].negative);
  CHECK(got.items[0].amount == 10_neuro);
  CHECK(got.items[0].fee == 0.01_neuro);
  CHECK(got.items[0].memo == "rent");
  CHECK(got.items[0].from == me());
  CHECK(got.items[0].to == friend_address);
  CHECK(got.items[0].status == history_status::confirmed);

  got = page_of(history_type::inference);
  REQUIRE(got.items.size() == 4);
  CHECK(!got.items[0].negative); // earned as driver
  CHECK(got.items[0].amount == 0.002394_neuro);
  CHECK(got.items[1].status == history_status::pending);
  CHECK(got.items[1].amount == 0.0005_neuro);
  CHECK(got.items[2].status == history_status::failed);
  CHECK(got.items[2].amount.atto == 0);
  CHECK(got.items[3].status == history_status::confirmed);
  CHECK(got.items[3].amount == 0.0168_neuro);
  CHECK(got.items[3].negative);
  CHECK(got.items[3].details[0] == std::pair<std::string, std::string>("request_id", "inf_paid"));

  got = page_of(history_type::reward);
  CHECK(got.items.size() == funded_steps);
  CHECK(got.items[0].from.empty());
  CHECK(got.items[0].amount == 100_neuro);
  CHECK(got.items[0].status == history_status::confirmed);
  CHECK(got.items[0].details[0].second == "training");
  got = page_of(history_type::stake);
  REQUIRE(got.items.size() == 1);
  CHECK(got.items[0].negative);
  CHECK(page_of(history_type::slash).total == 0);

  // The signed amounts and fees of all items are the balance that can be spent, what still waits included.
  __int128 sum = 0;
  for (const auto& item : page(newest(100)).items)
    sum +=
        (item.negative ? -static_cast<__int128>(item.amount.atto) : static_cast<__int128>(item.amount.atto)) -
        static_cast<__int128>(item.fee.atto);
  CHECK(sum == static_cast<__int128>(read->balance()->available.atto));
}

TEST_CASE_FIXTURE(lively, "pages follow each other, also while new transactions arrive") {
  for (int i = 0; i < 30; ++i)
    done(send_neuro{friend_address, {static_cast<unsigned __int128>(i + 1)}, std::to_string(i), {}});
  history_query query;
  query.type = history_type::send;
  query.limit = 7;
  auto first = page(query);
  CHECK(first.total == 30);
  query.up_to_seq = first.last_seq;
  int expected = 29;
  for (query.offset = 0; query.offset < 30; query.offset += 7) {
    done(send_neuro{friend_address, {1}, "new", {}});
    const auto got = page(query);
    CHECK(got.total == 30);
    for (const auto& item : got.items)
      CHECK(item.memo == std::to_string(expected--));
  }
  CHECK(expected == -1);
  query.offset = 1'000;
  CHECK(page(query).items.empty());
  query.limit = 0;
  CHECK(code_of(read->history(query).error()) == errc::invalid_request);
  query.limit = 101;
  CHECK(problem_of(read->history(query).error()).field == "limit");
}

TEST_CASE_FIXTURE(lively, "dates are whole days, both ends included") {
  done(send_neuro{friend_address, {1}, "day 0", {}});
  clock->us = start_of_day(today + 1);
  done(send_neuro{friend_address, {1}, "day 1 first", {}});
  clock->us = start_of_day(today + 2) - 1;
  done(send_neuro{friend_address, {1}, "day 1 last", {}});
  clock->us = start_of_day(today + 2);
  done(send_neuro{friend_address, {1}, "day 2", {}});
  history_query query;
  query.type = history_type::send;
  query.first_day = query.last_day = today + 1;
  auto got = page(query);
  CHECK(got.total == 2);
  REQUIRE(got.items.size() == 2);
  CHECK(got.items[0].memo == "day 1 last");
  CHECK(got.items[1].memo == "day 1 first");
  query.first_day.reset();
  CHECK(page(query).total == 3);
  query.first_day = today + 2;
  query.last_day.reset();
  CHECK(page(query).items.at(0).memo == "day 2");
  query.first_day = today + 3;
  CHECK(page(query).total == 0);
  CHECK(page(query).items.empty());
  query.first_day = today + 1;
  query.last_day = today;
  CHECK(page(query).items.empty());
}

TEST_CASE_FIXTURE(lively, "rewards are summed by day and by type") {
  const auto all = read->rewards(today - 3, today + 2);
  REQUIRE(all);
  CHECK(all->by_day.size() == 6);
  CHECK(all->by_day[3].amount == all->total);
  CHECK(all->by_day[3].proofs == funded_steps);
  CHECK(all->by_day[4].amount.atto == 0);
  CHECK(all->by_type.size() == 5);
  CHECK(all->by_type.at(reward_type::training) == all->total);
  CHECK(all->total.atto == funded_steps * (100_neuro).atto);
  CHECK(problem_of(read->rewards(today, today - 1).error()).field == "start_date");
  CHECK(read->rewards(today - 365, today));
  CHECK(problem_of(read->rewards(today - 366, today).error()).field == "start_date");
  const auto earned = read->earnings();
  CHECK(earned->earned_total == all->total);
  CHECK(earned->earned_today == all->total);
  CHECK(earned->pending.atto == 0);
  done(claim(5'000, 5'001, 4'096'000'000ULL, 1'000, digest_of("funds")));
  CHECK(read->earnings()->pending == 100_neuro);
  const auto rate = read->reward_rate(true, false, true);
  REQUIRE(rate);
  CHECK(rate->role_ppm == 1'300'000);
  CHECK(rate->stake_ppm == 1'000'000);
  CHECK(rate->base_rate.atto > 0);
  CHECK(rate->effective_rate.atto == rate->base_rate.atto * 13 / 10);
  CHECK(rate->estimated_daily.atto == rate->estimated_hourly.atto * 24);
}

TEST_CASE_FIXTURE(lively, "the supply is what was minted less what was burned") {
  done(send_neuro{friend_address, 100_neuro, {}, {}});
  const auto supply = read->supply();
  REQUIRE(supply);
  CHECK(supply->burned == 0.1_neuro);
  CHECK(supply->circulating == *checked_sub(supply->minted, supply->burned));
  CHECK(supply->transactions == book->head().seq);
  CHECK(supply->chain_id == kernels::to_hex(book->chain_id()));
}

TEST_CASE_FIXTURE(lively, "many threads read one committed state each while the book is written") {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> reads{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        const auto supply = read->supply();
        const auto mine = read->balance();
        const auto rows = read->history(newest(20));
        if (!supply || !mine || !rows ||
            mine->total.atto != mine->available.atto + mine->staked.atto + mine->pending.atto)
          ++wrong;
        ++reads;
      }
    });
  for (int i = 0; i < 150; ++i) {
    // An open group holds the write lock; readers go on.
    REQUIRE(book->apply(send_neuro{friend_address, {1'000}, {}, {}}));
    REQUIRE(book->apply(send_neuro{other_address, {1'000}, {}, {}}));
    const uint64_t before = reads;
    if (i % 50 == 0)
      while (reads < before + 8 && wrong == 0)
        std::this_thread::yield();
    REQUIRE(!book->commit());
  }
  stop = true;
  for (auto& thread : threads)
    thread.join();
  CHECK(wrong == 0);
  CHECK(reads > 0);
  CHECK(read->balance(friend_address)->available.atto == 150'000);
}

TEST_CASE_FIXTURE(book_fixture, "a reader of no book says so") {
  const auto made = ledger_reader::open({folder + "/ledger.db", me(), clock, {}, 1});
  REQUIRE(!made);
  CHECK(code_of(made.error()) == errc::storage);
}

TEST_CASE("the words of history read back") {
  for (int i = 1; i <= 7; ++i) {
    const auto type = static_cast<history_type>(i);
    CHECK(parse_history_type(to_string(type)) == type);
  }
  CHECK(!parse_history_type("gift"));
}
