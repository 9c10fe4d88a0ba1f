#include "tests/actors/ledger/book_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

TEST_CASE_FIXTURE(book_fixture, "a new book is empty and in order") {
  open();
  CHECK(book->own().available.atto == 0);
  CHECK(book->totals().minted.atto == 0);
  CHECK(book->head().seq == 0);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "sending takes amount and fee, and burns the fee") {
  open();
  fund(300_neuro);
  const auto before = book->own().available;
  const auto sent = done(send_neuro{friend_address, 250_neuro, "rent", {}});
  CHECK(sent.fee == 0.25_neuro);
  CHECK(sent.from == me());
  CHECK(sent.to == friend_address);
  CHECK(sent.memo == "rent");
  CHECK(sent.transaction_id.size() == 64);
  CHECK(sent.timestamp_us == clock->us);
  CHECK(book->own().available == *checked_sub(before, 250.25_neuro));
  CHECK(book->totals().burned == 0.25_neuro);
  CHECK(reader()->balance(friend_address)->available == 250_neuro);
  CHECK(reader()->balance()->available == book->own().available);
  verify(true);
}

TEST_CASE_FIXTURE(book_fixture, "a send that cannot be is refused with what is wrong") {
  open();
  fund(100_neuro);
  const auto refuse_send = [&](std::string to, neuro_amount amount, std::string memo = {}) {
    return refused(send_neuro{std::move(to), amount, std::move(memo), {}});
  };
  CHECK(field_of(refuse_send("0x12", 1_neuro)) == "to");
  CHECK(field_of(refuse_send("", 1_neuro)) == "to");
  CHECK(reason_of(refuse_send("0x0000000000000000000000000000000000000000", 1_neuro)) == "zero_address");
  CHECK(reason_of(refuse_send(me(), 1_neuro)) == "own_address");
  std::string upper = me();
  for (char& c : upper)
    c = c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c;
  CHECK(reason_of(refuse_send(upper, 1_neuro)) == "own_address");
  CHECK(reason_of(refuse_send(friend_address, {})) == "zero");
  CHECK(field_of(refuse_send(friend_address, 1_neuro, std::string(257, 'm'))) == "memo");
  CHECK(reason_of(refuse_send(friend_address, {~static_cast<unsigned __int128>(0)})) == "overflow");
  CHECK(code_of(refuse_send(friend_address, {})) == errc::invalid_request);
  const auto poor = refuse_send(friend_address, 100_neuro);
  CHECK(code_of(poor) == errc::insufficient_balance);
  CHECK(detail_of<neuro_amount>(poor, "required") == 100.1_neuro);
  CHECK(detail_of<neuro_amount>(poor, "available") == 100_neuro);
  CHECK(detail_of<neuro_amount>(poor, "balance") == 100_neuro);
  CHECK(problem_of(poor).message == "Wallet balance 100.0 NEURO is less than required 100.1 NEURO");
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "everything can be sent, down to the last atto") {
  open();
  fund(100_neuro);
  // 99.9000999... + its fee is exactly 100.
  const auto amount = *from_atto_text("99900099900099900099");
  const auto sent = done(send_neuro{friend_address, amount, {}, {}});
  CHECK(checked_add(amount, sent.fee)->atto <= (100_neuro).atto);
  const auto rest = book->own().available;
  CHECK(rest.atto < 2);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "an identical request whose answer did not arrive gets the first answer") {
  open();
  fund(100_neuro);
  const auto first = done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")});
  CHECK(!first.origin.replayed);
  CHECK(first.origin.row > 0);
  const auto again = done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")});
  CHECK(again.origin.replayed);
  CHECK(again.origin.row == first.origin.row);
  CHECK(again.transaction_id == first.transaction_id);
  CHECK(again.fee == first.fee);
  CHECK(again.timestamp_us == first.timestamp_us);
  const auto other = done(send_neuro{friend_address, 10_neuro, {}, mark_of("b")});
  CHECK(!other.origin.replayed);
  CHECK(reader()->balance(friend_address)->available == 20_neuro);
  // Within one group too, and after a restart.
  REQUIRE(book->apply(send_neuro{friend_address, 1_neuro, {}, mark_of("c")}));
  CHECK(book->apply(send_neuro{friend_address, 1_neuro, {}, mark_of("c")})->origin.replayed);
  REQUIRE(!book->commit());
  reopen();
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, mark_of("c")}).origin.replayed);
  CHECK(reader()->balance(friend_address)->available == 21_neuro);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "once its answer has arrived, an identical request is a new one") {
  open();
  fund(100_neuro);
  const auto first = done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")});
  book->mark_delivered(first.origin.row);
  const auto second = done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")});
  CHECK(!second.origin.replayed);
  CHECK(second.transaction_id != first.transaction_id);
  CHECK(reader()->balance(friend_address)->available == 20_neuro);
}

TEST_CASE_FIXTURE(book_fixture, "an undelivered answer is kept for 120 seconds") {
  open();
  fund(100_neuro);
  done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")});
  clock->advance_s(119);
  REQUIRE(book->run_due());
  CHECK(done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")}).origin.replayed);
  clock->advance_s(1);
  REQUIRE(book->run_due());
  CHECK(!done(send_neuro{friend_address, 10_neuro, {}, mark_of("a")}).origin.replayed);
}

TEST_CASE_FIXTURE(book_fixture, "a key gives the stored answer for a day, and is good for one body") {
  open();
  fund(100_neuro);
  const auto first = done(send_neuro{friend_address, 10_neuro, {}, mark_of("a", "key-1")});
  book->mark_delivered(first.origin.row);
  CHECK(done(send_neuro{friend_address, 10_neuro, {}, mark_of("a", "key-1")}).transaction_id ==
        first.transaction_id);
  const auto reused = refused(send_neuro{friend_address, 11_neuro, {}, mark_of("b", "key-1")});
  CHECK(reason_of(reused) == "key_reused");
  CHECK(field_of(reused) == "Idempotency-Key");
  CHECK(!done(send_neuro{friend_address, 10_neuro, {}, mark_of("a", "key-2")}).origin.replayed);
  auto elsewhere = mark_of("b", "key-1");
  elsewhere.path = "/api/v1/wallet/stake";
  CHECK(!done(send_neuro{friend_address, 10_neuro, {}, elsewhere}).origin.replayed);
  auto stranger = mark_of("b", "key-1");
  stranger.token = digest_of("other");
  CHECK(!done(send_neuro{friend_address, 10_neuro, {}, stranger}).origin.replayed);
  clock->advance_s(86'399);
  REQUIRE(book->run_due());
  CHECK(done(send_neuro{friend_address, 10_neuro, {}, mark_of("a", "key-1")}).origin.replayed);
  clock->advance_s(1);
  REQUIRE(book->run_due());
  CHECK(!done(send_neuro{friend_address, 10_neuro, {}, mark_of("a", "key-1")}).origin.replayed);
  CHECK(field_of(refused(send_neuro{friend_address, 1_neuro, {}, mark_of("a", std::string(129, 'k'))})) ==
        "Idempotency-Key");
  CHECK(field_of(refused(send_neuro{friend_address, 1_neuro, {}, mark_of("a", "k\n")})) == "Idempotency-Key");
}

TEST_CASE_FIXTURE(book_fixture, "a refused request stores no answer") {
  open();
  fund(100_neuro);
  CHECK(code_of(refused(send_neuro{friend_address, 1000_neuro, {}, mark_of("a", "k")})) ==
        errc::insufficient_balance);
  fund(1100_neuro);
  CHECK(!done(send_neuro{friend_address, 1000_neuro, {}, mark_of("a", "k")}).origin.replayed);
}

TEST_CASE_FIXTURE(book_fixture, "the book's time never runs backwards") {
  open();
  fund(100_neuro);
  const int64_t now = clock->us;
  clock->advance_s(-7'200);
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).timestamp_us == now);
  reopen();
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).timestamp_us == now);
  clock->us = now + 5;
  CHECK(done(send_neuro{friend_address, 1_neuro, {}, {}}).timestamp_us == now + 5);
  verify();
}
