// One group is committed while the next is applied.
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/support/small_disk.hpp"

#include <atomic>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

constexpr uint64_t overlap_disk_bytes = 4 << 20;

struct overlapping : book_fixture {
  std::atomic<int> written{0};

  void send(int count, const std::string& memo = {}) {
    for (int i = 0; i < count; ++i)
      REQUIRE(book->apply(send_neuro{friend_address, {1'000}, memo, {}}));
  }
  void start() {
    REQUIRE(!book->start_commit([this] { ++written; }));
  }
};

} // namespace

TEST_CASE_FIXTURE(overlapping, "a group is applied while the one before it is committed") {
  open();
  fund(10_neuro);
  done(send_neuro{friend_address, {1'000}, {}, {}});
  const auto seq = book->head().seq;
  for (int round = 1; round <= 20; ++round) {
    send(30);
    start();
    CHECK(book->under_way());
    send(7);
    CHECK(book->in_group());
    REQUIRE(!book->end_commit());
    // The first is on disk, the second is not.
    CHECK(reader()->balance(friend_address)->available.atto == 1'000 + 37'000 * round - 7'000);
    REQUIRE(!book->commit());
    CHECK(reader()->balance(friend_address)->available.atto == 1'000 + 37'000 * round);
  }
  CHECK(book->head().seq == seq + 20 * 37);
  send(1);
  start();
  send(1);
  REQUIRE(!book->close()); // ends both
  CHECK(written == 21);
  book.reset();
  verify(true);
}

TEST_CASE_FIXTURE(overlapping, "an operation that needs the store sees the group under way") {
  open();
  fund(2'000_neuro);
  const auto first = book->apply(send_neuro{friend_address, 1_neuro, {}, mark_of("a")});
  REQUIRE(first);
  start();
  const auto again = book->apply(send_neuro{friend_address, 1_neuro, {}, mark_of("a")});
  REQUIRE(again);
  CHECK(again->origin.replayed);
  CHECK(again->transaction_id == first->transaction_id);
  REQUIRE(book->apply(send_neuro{other_address, 1_neuro, {}, {}})); // an account the book has not yet
  REQUIRE(book->apply(reserve_inference{"inf_1", 10, 20}));
  REQUIRE(!book->end_commit());
  start();
  book->mark_delivered(first->origin.row);
  const auto anew = book->apply(send_neuro{friend_address, 1_neuro, {}, mark_of("a")});
  REQUIRE(anew);
  CHECK(!anew->origin.replayed);
  REQUIRE(book->apply(refund_inference{"inf_1"}));
  REQUIRE(!book->end_commit());
  REQUIRE(!book->commit());
  CHECK(reader()->balance(friend_address)->available == 2_neuro);
  CHECK(reader()->balance(other_address)->available == 1_neuro);
  CHECK(book->open_reservations() == 0);
  verify(true);
}

TEST_CASE_FIXTURE(overlapping, "a group that fails takes the one that was built on it along") {
  test::small_disk disk(folder + "/disk", overlap_disk_bytes);
  if (disk.missing())
    return;
  options.path = folder + "/disk/ledger.db";
  open();
  fund(10_neuro);
  done(send_neuro{friend_address, {1'000}, {}, {}});
  disk.fill();
  const std::string memo(250, 'm');
  caf::error full;
  uint64_t seq = 0;
  neuro_amount before;
  for (int i = 0; i < 500 && !full; ++i) { // a few pages may still be had
    seq = book->head().seq;
    before = book->own().available;
    send(8, memo);
    start();
    // The commit may fail in the middle of these, which then are refused at once.
    bool applied = true;
    for (int k = 0; k < 8; ++k) {
      auto sent = book->apply(send_neuro{friend_address, {1'000}, memo, {}});
      if (!sent)
        CHECK(reason_of(sent.error()) == "disk_full");
      applied = applied && sent;
    }
    full = book->end_commit();
    CHECK((applied || full));
    if (!full) {
      seq = book->head().seq - 8;
      before = checked_add(book->own().available, {8 * 1'001}).value_or(neuro_amount{});
      full = book->commit();
    }
  }
  REQUIRE(full);
  CHECK(reason_of(full) == "disk_full");
  CHECK(!book->in_group());
  CHECK(!book->under_way());
  CHECK(book->head().seq == seq);
  CHECK(book->own().available == before);
  disk.clear();
  send(8, memo);
  start();
  send(8, memo);
  REQUIRE(!book->end_commit());
  REQUIRE(!book->commit());
  CHECK(book->head().seq == seq + 16);
  reopen();
  CHECK(book->head().seq == seq + 16);
  verify(true);
  book.reset();
}
