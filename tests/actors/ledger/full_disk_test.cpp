#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/support/small_disk.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

constexpr uint64_t disk_bytes = 4 << 20;

send_neuro one_neuro(int number) {
  send_neuro what;
  what.to = friend_address;
  what.amount = 1_neuro;
  what.mark = mark_of("body " + std::to_string(number));
  return what;
}

} // namespace

TEST_CASE_FIXTURE(book_fixture,
                  "a disk without room refuses the group by name, keeps all before, and goes on later") {
  test::small_disk disk(folder + "/disk", disk_bytes);
  if (disk.missing())
    return;
  options.path = folder + "/disk/ledger.db";
  open();
  fund(200_neuro);
  const auto seq = book->head().seq;
  const auto before = book->own().available;
  disk.fill();
  caf::error full;
  for (int i = 0; i < 500 && !full; ++i) { // a few pages may still be had
    auto sent = book->apply(one_neuro(i));
    full = sent ? book->commit() : sent.error();
  }
  REQUIRE(full);
  CHECK(code_of(full) == errc::storage);
  CHECK(reason_of(full) == "disk_full");
  CHECK(problem_of(full).message == "ledger.db: the disk is full.");
  const auto lost = book->head().seq;
  disk.clear();
  reopen();
  CHECK(book->head().seq >= seq);
  CHECK(book->head().seq <= lost);
  CHECK(book->own().available <= before);
  verify(true);
  const auto sent_before = book->own().available;
  done(one_neuro(1000));
  CHECK(book->own().available < sent_before);
  verify(true);
  book.reset();
}

TEST_CASE_FIXTURE(book_fixture, "a read-only disk is told by name, and what is on it can be read") {
  test::small_disk disk(folder + "/disk", disk_bytes);
  if (disk.missing())
    return;
  options.path = folder + "/disk/ledger.db";
  open();
  fund(200_neuro);
  book.reset();
  disk.make_read_only(disk_bytes);
  const auto refused = open_book(options);
  REQUIRE_FALSE(refused);
  CHECK(code_of(refused.error()) == errc::storage);
  CHECK(reason_of(refused.error()) == "read_only");
  CHECK(problem_of(refused.error()).message.starts_with("ledger.db "));
  disk.resize(disk_bytes);
  open();
  CHECK(book->own().available >= 200_neuro);
  verify(true);
  book.reset();
}
