// What a book keeps to from one start to the next, whatever the clock did meanwhile.
#include "tests/actors/ledger/book_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

TEST_CASE_FIXTURE(book_fixture,
                  "changed parameters wait for the next minute of the book, not of a late clock") {
  open();
  fund(10_neuro);
  done(send_neuro{friend_address, 1_neuro, {}, {}});
  // The clock was an hour ahead; now it is right again, and the fee was changed.
  clock->advance_s(-3'600);
  options.params.transfer_fee_bp = 100;
  reopen();
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.001_neuro);
  clock->advance_s(3'600 + 60);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.01_neuro);
}

TEST_CASE_FIXTURE(book_fixture,
                  "parameters of a start in the future are dropped when the clock is set right") {
  open();
  fund(10_neuro);
  const int64_t now = clock->us;
  clock->advance_days(400);
  options.params.transfer_fee_bp = 100;
  reopen();
  // Back in the present with a third fee: it counts from the next minute on, and the one of the future never.
  clock->us = now;
  options.params.transfer_fee_bp = 20;
  reopen();
  clock->advance_s(60);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.002_neuro);
  reopen();
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.002_neuro);
  clock->advance_days(401);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.002_neuro);
  // And those of the future can be wished for now.
  clock->us = now;
  clock->advance_days(402);
  options.params.transfer_fee_bp = 30;
  const int64_t later = clock->us;
  clock->advance_days(400);
  reopen();
  clock->us = later;
  reopen();
  clock->advance_s(60);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).fee == 0.003_neuro);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "the number of a forgotten answer is not given to another one") {
  open();
  fund(10_neuro);
  const auto old = done(send_neuro{friend_address, 1_neuro, {}, mark_of("old")});
  clock->advance_s(130);
  REQUIRE(book->run_due()); // forgets it
  REQUIRE(!book->commit());
  const auto first = done(send_neuro{friend_address, 1_neuro, {}, mark_of("new")});
  CHECK(first.origin.row != old.origin.row);
  book->mark_delivered(old.origin.row); // a slow client at last
  const auto again = done(send_neuro{friend_address, 1_neuro, {}, mark_of("new")});
  CHECK(again.origin.replayed);
  CHECK(again.transaction_id == first.transaction_id);
}
