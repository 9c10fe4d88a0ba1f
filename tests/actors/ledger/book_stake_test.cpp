#include "tests/actors/ledger/book_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct rich : book_fixture {
  int32_t today = 0;
  rich() {
    open();
    fund(2'500_neuro);
    today = day_of(clock->us);
  }
};

} // namespace

TEST_CASE_FIXTURE(rich, "a stake is locked from today for as long as was asked") {
  const auto made = done(stake_neuro{1'000_neuro, 0, {}});
  CHECK(made.stake.amount == 1'000_neuro);
  CHECK(made.stake.start_day == today);
  CHECK(made.stake.duration_days() == 30);
  CHECK(made.stake.multiplier_ppm == 1'100'000);
  CHECK(book->own().staked == 1'000_neuro);
  CHECK(made.available == book->own().available);
  verify(true);
}

TEST_CASE_FIXTURE(rich, "stakes out of range are refused") {
  const auto small = refused(stake_neuro{999_neuro, 30, {}});
  CHECK(field_of(small) == "amount");
  CHECK(detail_of<neuro_amount>(small, "min") == 1'000_neuro);
  CHECK(field_of(refused(stake_neuro{{}, 30, {}})) == "amount");
  CHECK(field_of(refused(stake_neuro{1'000_neuro, 6, {}})) == "duration_days");
  CHECK(field_of(refused(stake_neuro{1'000_neuro, 366, {}})) == "duration_days");
  CHECK(field_of(refused(stake_neuro{10'000'001_neuro, 30, {}})) == "amount");
  CHECK(code_of(refused(stake_neuro{5'000_neuro, 30, {}})) == errc::insufficient_balance);
  CHECK(reason_of(refused(add_stake{1_neuro, {}})) == "no_stake");
  CHECK(reason_of(refused(extend_stake{1, {}})) == "no_stake");
  CHECK(reason_of(refused(unstake_neuro{1_neuro, {}})) == "exceeds_stake");
  CHECK(reason_of(refused(unstake_neuro{{}, {}})) == "exceeds_stake");
}

TEST_CASE_FIXTURE(rich, "a further stake joins and takes the later unlock date; adding keeps the lock") {
  done(stake_neuro{1'000_neuro, 30, {}});
  clock->advance_days(10);
  auto more = done(stake_neuro{500_neuro, 7, {}});
  CHECK(more.stake.amount == 1'500_neuro);
  CHECK(more.stake.start_day == today + 10);
  CHECK(more.stake.unlock_day == today + 30);
  more = done(stake_neuro{100_neuro, 60, {}});
  CHECK(more.stake.unlock_day == today + 70);
  clock->advance_days(1);
  more = done(add_stake{1_neuro, {}});
  CHECK(more.stake.start_day == today + 10);
  CHECK(more.stake.unlock_day == today + 70);
  CHECK(more.stake.amount == 1'601_neuro);
  verify();
}

TEST_CASE_FIXTURE(rich, "a lock is extended up to a year from today") {
  done(stake_neuro{1'000_neuro, 30, {}});
  CHECK(done(extend_stake{10, {}}).stake.unlock_day == today + 40);
  const auto far = refused(extend_stake{326, {}});
  CHECK(field_of(far) == "additional_days");
  CHECK(detail_of<int64_t>(far, "max") == 325);
  CHECK(done(extend_stake{325, {}}).stake.unlock_day == today + 365);
  CHECK(field_of(refused(extend_stake{0, {}})) == "additional_days");
  CHECK(field_of(refused(extend_stake{UINT32_MAX, {}})) == "additional_days");
  verify(true);
}

TEST_CASE_FIXTURE(rich, "a stake is locked until its date, cools for seven days and comes back") {
  done(stake_neuro{2'000_neuro, 7, {}});
  const auto locked = refused(unstake_neuro{{}, {}});
  CHECK(reason_of(locked) == "stake_locked");
  CHECK(detail_of<std::string>(locked, "unlock_date") == date_text(today + 7));
  clock->us = start_of_day(today + 7) - 1;
  CHECK(reason_of(refused(unstake_neuro{{}, {}})) == "stake_locked");
  clock->us = start_of_day(today + 7);
  CHECK(reason_of(refused(unstake_neuro{2'001_neuro, {}})) == "exceeds_stake");
  CHECK(reason_of(refused(unstake_neuro{1'500_neuro, {}})) == "below_minimum");
  const auto part = done(unstake_neuro{600_neuro, {}});
  CHECK(part.available_day == today + 14);
  CHECK(part.cooldown_days == 7);
  CHECK(part.remaining_stake == 1'400_neuro);
  CHECK(book->own().staked == 1'400_neuro);
  CHECK(reader()->stake()->pending_unstake == 600_neuro);
  const auto pending = book->own().pending;
  const auto available = book->own().available;
  clock->us = start_of_day(today + 14) - 1;
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(reader()->stake()->pending_unstake == 600_neuro);
  clock->us = start_of_day(today + 14);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(reader()->stake()->pending_unstake.atto == 0);
  CHECK(book->own().available.atto + book->own().pending.atto == available.atto + pending.atto);
  CHECK(book->own().available.atto >= available.atto + (600_neuro).atto);
  const auto all = done(unstake_neuro{{}, {}});
  CHECK(all.amount == 1'400_neuro);
  CHECK(all.remaining_stake.atto == 0);
  CHECK(!reader()->balance()->staking);
  verify(true);
}

TEST_CASE_FIXTURE(rich, "releases that fell due while the node was off happen at start") {
  done(stake_neuro{1'000_neuro, 7, {}});
  clock->advance_days(7);
  done(unstake_neuro{{}, {}});
  clock->advance_days(30);
  reopen();
  CHECK(book->own().pending.atto == 0);
  CHECK(book->own().staked.atto == 0);
  verify();
}

TEST_CASE_FIXTURE(rich, "repeated stake requests give the first answer") {
  const auto first = done(stake_neuro{1'000_neuro, 30, mark_of("s", "k")});
  const auto again = done(stake_neuro{1'000_neuro, 30, mark_of("s", "k")});
  CHECK(again.origin.replayed);
  CHECK(again.transaction_id == first.transaction_id);
  CHECK(again.stake.unlock_day == first.stake.unlock_day);
  CHECK(again.available == first.available);
  clock->advance_days(30);
  const auto out = done(unstake_neuro{{}, mark_of("u")});
  const auto out_again = done(unstake_neuro{{}, mark_of("u")});
  CHECK(out_again.origin.replayed);
  CHECK(out_again.amount == out.amount);
  CHECK(out_again.available_day == out.available_day);
  CHECK(book->own().staked.atto == 0);
}
