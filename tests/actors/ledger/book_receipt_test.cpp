#include "actors/ledger/sqlite.hpp"
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

/// A book whose node works for, and drives, another node.
struct party : book_fixture {
  node_identity other = identity_of("battery-staple", 1);
  const node_identity& self = *options.identity;

  party() { open(); }

  /// Of work for the other node, or by it.
  receipt mine(std::string work_id, uint8_t nonce = 1) const {
    auto made = work_for(self, other, std::move(work_id), 4, 168);
    made.nonce[0] = nonce;
    return made;
  }
  receipt theirs(std::string work_id, uint32_t layers = 4, uint64_t tokens = 168) const {
    return work_for(other, self, std::move(work_id), layers, tokens);
  }
  std::vector<digest> unproven(int64_t from_us, int64_t to_us, size_t limit = 100) const {
    const auto found = reader()->unproven_receipts(from_us, to_us, limit);
    REQUIRE(found);
    return *found;
  }
  void edit_book(const char* sql) const {
    sqlite::connection db;
    REQUIRE(!db.open(options.path, sqlite::connection::mode::read_write));
    REQUIRE(db.execute(sql));
  }
  std::vector<std::string> faults(bool signatures) const {
    const auto found = verify_book(options.path, signatures);
    REQUIRE(found);
    return found->faults;
  }
};

} // namespace

TEST_CASE_FIXTURE(party, "a receipt is kept unconfirmed, and confirmed when the driver has answered") {
  const auto worker_blob = signed_by(self, mine("session-1"));
  const auto driver_blob = countersigned_by(other, worker_blob);
  const auto start = clock->us.load();
  const auto first = done(record_receipt{worker_blob, {}});
  CHECK(!first.confirmed);
  CHECK(!first.known_before);
  CHECK(first.receipt_id == digest_of(encode_receipt(mine("session-1"))));
  CHECK(done(record_receipt{worker_blob, {}}).known_before);
  CHECK(unproven(0, INT64_MAX).empty());
  clock->advance_s(90);
  reopen();
  const auto second = done(record_receipt{worker_blob, driver_blob});
  CHECK(second.receipt_id == first.receipt_id);
  CHECK(second.confirmed);
  CHECK(second.known_before);
  // What is better stays.
  const auto third = done(record_receipt{worker_blob, {}});
  CHECK(third.confirmed);
  CHECK(third.known_before);
  reopen();
  // It counts in the minute in which it was confirmed.
  CHECK(unproven(start, start + 60 * us_per_second).empty());
  CHECK(unproven(clock->us, clock->us + 1) == std::vector{first.receipt_id});
  CHECK(unproven(clock->us - 1, clock->us).empty());
  const auto page = reader()->receipts(10, 0);
  REQUIRE(page);
  REQUIRE(page->items.size() == 1);
  CHECK(page->total == 1);
  CHECK(page->items[0].what == mine("session-1"));
  CHECK(page->items[0].own);
  CHECK(page->items[0].confirmed);
  CHECK(page->items[0].worker_wallet == me());
  CHECK(page->items[0].driver_wallet == other.address());
  CHECK(page->items[0].received_us == clock->us);
  CHECK(!page->items[0].proof_id);
  CHECK(book->head().seq == 0); // A receipt moves no money.
  verify(true);
}

TEST_CASE_FIXTURE(party, "receipts of others for what this node drove are kept, but are no work of its own") {
  const auto worker_blob = signed_by(other, theirs("inf_1"));
  const auto kept = done(record_receipt{worker_blob, countersigned_by(self, worker_blob)});
  CHECK(kept.confirmed);
  CHECK(unproven(0, INT64_MAX).empty());
  const auto page = reader()->receipts(10, 0);
  REQUIRE(page->items.size() == 1);
  CHECK(!page->items[0].own);
  CHECK(page->items[0].worker_wallet == other.address());
  // Work for another node of the same wallet is shown, and earns nothing as work for others.
  const auto sibling = identity_of("correct-horse", 3);
  REQUIRE(sibling.address() == me());
  const auto within = signed_by(self, work_for(self, sibling, "session-2", 1, 1));
  CHECK(done(record_receipt{within, countersigned_by(sibling, within)}).confirmed);
  CHECK(unproven(0, INT64_MAX).empty());
  CHECK(reader()->receipts(10, 0)->total == 2);
  verify(true);
}

TEST_CASE_FIXTURE(party,
                  "receipts come in pages, newest first, and unproven ones oldest first up to a limit") {
  std::vector<digest> ids;
  for (uint8_t i = 0; i < 5; ++i) {
    const auto blob = signed_by(self, mine("session", i));
    ids.push_back(done(record_receipt{blob, countersigned_by(other, blob)}).receipt_id);
    clock->advance_s(60);
  }
  const auto page = reader()->receipts(2, 1);
  REQUIRE(page->items.size() == 2);
  CHECK(page->total == 5);
  CHECK(page->items[0].id == ids[3]);
  CHECK(page->items[1].id == ids[2]);
  CHECK(unproven(0, INT64_MAX, 3) == std::vector<digest>(ids.begin(), ids.begin() + 3));
  CHECK(reader()->receipts(10, 9)->items.empty());
  CHECK(field_of(reader()->receipts(0, 0).error()) == "limit");
  CHECK(field_of(reader()->receipts(101, 0).error()) == "limit");
  CHECK(field_of(reader()->receipts(10, UINT64_MAX).error()) == "offset");
}

TEST_CASE_FIXTURE(party, "a worker that signs two receipts for one piece of work is found out") {
  const auto first = done(record_receipt{signed_by(other, theirs("inf_1", 4, 168)), {}});
  const auto second = signed_by(other, theirs("inf_1", 4, 169));
  for (const auto& answer : {std::string(), countersigned_by(self, second)}) {
    const auto why = refused(record_receipt{second, answer});
    CHECK(code_of(why) == errc::already_exists);
    CHECK(reason_of(why) == "conflicting_receipt");
    CHECK(detail_of<std::string>(why, "receipt_id") == kernels::to_hex(first.receipt_id));
    reopen();
  }
  CHECK(reader()->receipts(10, 0)->total == 1);
  // Another nonce, work or driver is other work.
  auto more = theirs("inf_1", 4, 10);
  more.nonce[0] = 99;
  CHECK(!done(record_receipt{signed_by(other, more), {}}).known_before);
  CHECK(!done(record_receipt{signed_by(other, theirs("inf_2")), {}}).known_before);
  verify(true);
}

TEST_CASE_FIXTURE(party, "the same words signed again are the same receipt") {
  const auto first = done(record_receipt{signed_by(other, theirs("inf_1")), {}});
  // A node renews its delegation at each start.
  auto renewed = node_identity::make(*parse_token("battery-staple"), 1, 1'768'435'100'000);
  REQUIRE(renewed);
  const auto again = signed_by(*renewed, theirs("inf_1"));
  CHECK(again != signed_by(other, theirs("inf_1")));
  const auto second = done(record_receipt{again, countersigned_by(self, again)});
  CHECK(second.receipt_id == first.receipt_id);
  CHECK(second.known_before);
  CHECK(second.confirmed);
  CHECK(reader()->receipts(10, 0)->total == 1);
  verify(true);
}

TEST_CASE_FIXTURE(party,
                  "a receipt of strangers, or that is not what it says, is refused and leaves no trace") {
  const auto stranger = identity_of("a-stranger");
  CHECK(code_of(refused(record_receipt{signed_by(other, work_for(other, stranger, "s", 1, 1)), {}})) ==
        errc::forbidden);
  const auto good = signed_by(other, theirs("inf_1"));
  CHECK(reason_of(refused(record_receipt{
            good, encode_signed_blob(stranger.sign_as_node(countersign_tag, good))})) == "wrong_signer");
  CHECK(code_of(refused(record_receipt{{}, {}})) == errc::invalid_request);
  CHECK(code_of(refused(record_receipt{std::string(100'000, 'x'), {}})) == errc::invalid_request);
  auto huge = theirs("inf_1");
  huge.tokens = UINT64_MAX;
  CHECK(field_of(refused(record_receipt{
            encode_signed_blob(other.sign_as_node(receipt_tag, encode_receipt(huge))), {}})) == "tokens");
  // The word of this node with its delegation taken off would be another wallet's.
  party twin;
  auto identity = node_identity::make(*parse_token("correct-horse"), 1, 1'768'435'000'000);
  REQUIRE(identity);
  twin.book.reset();
  twin.options.identity = std::make_shared<const node_identity>(std::move(*identity));
  twin.options.path = twin.folder + "/of-the-twin.db";
  twin.open();
  const auto& node = *twin.options.identity;
  auto stripped = node.sign_as_node(receipt_tag, encode_receipt(work_for(node, other, "s", 1, 1)));
  CHECK(twin.done(record_receipt{encode_signed_blob(stripped), {}}).receipt_id != digest{});
  stripped = node.sign_as_node(receipt_tag, encode_receipt(work_for(node, other, "t", 1, 1)));
  stripped.delegation.clear();
  CHECK(reason_of(twin.refused(record_receipt{encode_signed_blob(stripped), {}})) == "wrong_signer");
  CHECK(reader()->receipts(10, 0)->total == 0);
}

TEST_CASE_FIXTURE(party, "any edit of a receipt in the file is found") {
  const auto worker_blob = signed_by(other, theirs("inf_1"));
  done(record_receipt{worker_blob, countersigned_by(self, worker_blob)});
  REQUIRE(!book->close());
  book.reset();
  verify(true);
  const std::string clean = folder + "/clean.db";
  std::filesystem::copy_file(options.path, clean);
  for (const auto& [sql, needs_signatures] : {
           std::pair{"UPDATE receipts SET worker_blob = x'00'", false},
           std::pair{"UPDATE receipts SET receipt_id = zeroblob(32)", false},
           std::pair{"UPDATE receipts SET work_id = 'inf_2'", false},
           std::pair{"UPDATE receipts SET kind = 2", false},
           std::pair{"UPDATE receipts SET nonce = zeroblob(16)", false},
           std::pair{"UPDATE receipts SET worker_node_id = driver_node_id", false},
           std::pair{"UPDATE receipts SET driver_blob = x''", false},
           std::pair{"UPDATE receipts SET confirmed = 0", false},
           std::pair{"UPDATE receipts SET driver_blob = worker_blob", true},
           std::pair{"UPDATE receipts SET worker_wallet = driver_wallet", true},
           std::pair{"UPDATE receipts SET driver_wallet = worker_wallet", true},
       }) {
    CAPTURE(sql);
    edit_book(sql);
    CHECK(faults(false).empty() == needs_signatures);
    CHECK(faults(true).size() == 1);
    std::filesystem::copy_file(clean, options.path, std::filesystem::copy_options::overwrite_existing);
  }
}
