#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

settle_inference settle_all(std::string id, uint64_t prompt, uint64_t completion, const std::string& to) {
  settle_inference what;
  what.request_id = std::move(id);
  what.prompt_tokens = prompt;
  what.completion_tokens = completion;
  what.driver = to;
  what.validator = to;
  what.workers = {{to, 10, 10, ""}};
  return what;
}

/// A payer with two other nodes that work for it.
struct payer : book_fixture {
  node_identity helper = identity_of("a-helper", 1);
  node_identity second = identity_of("a-second-helper");

  payer() {
    open();
    fund(100_neuro);
  }
  /// A receipt in the book, as a rule counter-signed: its id.
  std::string kept(const receipt& of, const node_identity& worker, bool confirmed = true) {
    const auto blob = signed_by(worker, of);
    return kernels::to_hex(
        done(record_receipt{blob, confirmed ? countersigned_by(*options.identity, blob) : std::string()})
            .receipt_id);
  }
  receipt helped(std::string id, uint32_t layers, uint64_t tokens) const {
    return work_for(helper, *options.identity, std::move(id), layers, tokens);
  }
};

} // namespace

TEST_CASE_FIXTURE(payer,
                  "a reservation moves price times tokens to pending, and settling pays what was used") {
  const auto before = book->own();
  const auto reserved = done(reserve_inference{"inf_1", 12, 200});
  CHECK(reserved.reserved == 0.0212_neuro);
  CHECK(reserved.expires_us == clock->us + 600 * us_per_second);
  CHECK(book->own().available == *checked_sub(before.available, 0.0212_neuro));
  CHECK(book->own().pending == *checked_add(before.pending, 0.0212_neuro));
  CHECK(book->open_reservations() == 1);
  auto all = helped("inf_1", 4, 168);
  all.embedding = all.head = true;
  auto what = settle_all("inf_1", 12, 156, helper.address());
  what.driver_receipt_id = what.validator_receipt_id = what.workers[0].receipt_id = kept(all, helper);
  const auto settled = done(what);
  CHECK(settled.cost == 0.0168_neuro);
  CHECK(settled.burned == 0.00084_neuro);
  CHECK(settled.earned.atto == 0);
  CHECK(book->own().available == *checked_sub(before.available, 0.0168_neuro));
  CHECK(book->own().pending == before.pending);
  CHECK(reader()->balance(helper.address())->available == 0.01596_neuro);
  CHECK(book->open_reservations() == 0);
  verify();
}

TEST_CASE_FIXTURE(book_fixture,
                  "reserving, settling and refunding twice change nothing and give the first answer") {
  open();
  fund(100_neuro);
  const auto first = done(reserve_inference{"inf_1", 10, 10});
  const auto seq = book->head().seq;
  CHECK(done(reserve_inference{"inf_1", 10, 10}).expires_us == first.expires_us);
  CHECK(book->head().seq == seq);
  CHECK(code_of(refused(reserve_inference{"inf_1", 10, 11})) == errc::already_exists);
  const auto settled = done(settle_all("inf_1", 10, 5, me()));
  CHECK(settled.earned == *checked_sub(settled.cost, settled.burned));
  const auto again = done(settle_all("inf_1", 10, 9, friend_address));
  CHECK(again.origin.replayed);
  CHECK(again.transaction_id == settled.transaction_id);
  CHECK(again.cost == settled.cost);
  CHECK(reason_of(refused(refund_inference{"inf_1"})) == "already_settled");
  done(reserve_inference{"inf_2", 10, 10});
  CHECK(done(refund_inference{"inf_2"}).refunded == 0.002_neuro);
  const auto after = book->head().seq;
  CHECK(done(refund_inference{"inf_2"}).refunded == 0.002_neuro);
  CHECK(book->head().seq == after);
  CHECK(reason_of(refused(settle_all("inf_2", 1, 1, me()))) == "already_refunded");
  CHECK(code_of(refused(settle_all("inf_3", 1, 1, me()))) == errc::not_found);
  CHECK(code_of(refused(refund_inference{"inf_3"})) == errc::not_found);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "what is not available is refused before any work") {
  open();
  const auto poor = refused(reserve_inference{"inf_1", 12, 156});
  CHECK(code_of(poor) == errc::insufficient_balance);
  CHECK(detail_of<neuro_amount>(poor, "required") == 0.0168_neuro);
  CHECK(detail_of<neuro_amount>(poor, "available").atto == 0);
}

TEST_CASE_FIXTURE(book_fixture, "malformed payments are refused") {
  open();
  fund(100_neuro);
  CHECK(field_of(refused(reserve_inference{"", 1, 1})) == "request_id");
  CHECK(field_of(refused(reserve_inference{"inf 1", 1, 1})) == "request_id");
  CHECK(field_of(refused(reserve_inference{std::string(65, 'a'), 1, 1})) == "request_id");
  CHECK(field_of(refused(reserve_inference{"inf_1", 0, 0})) == "max_tokens");
  CHECK(field_of(refused(reserve_inference{"inf_1", 1, UINT64_MAX})) == "max_tokens");
  done(reserve_inference{"inf_1", 10, 10});
  CHECK(field_of(refused(settle_all("inf_1", 10, 11, me()))) == "completion_tokens");
  CHECK(field_of(refused(settle_all("inf_1", 10, UINT64_MAX, me()))) == "completion_tokens");
  CHECK(field_of(refused(settle_all("inf_1", 10, 1, "nobody"))) == "driver");
  auto greedy = settle_all("inf_1", 10, 1, me());
  greedy.workers[0].credited_work = 11;
  CHECK(field_of(refused(greedy)) == "workers");
  auto crowd = settle_all("inf_1", 10, 1, me());
  crowd.workers.resize(1'025);
  CHECK(field_of(refused(crowd)) == "workers");
  CHECK(book->open_reservations() == 1);
}

TEST_CASE_FIXTURE(payer, "several workers share by work, and parts without a receipt are burned") {
  done(reserve_inference{"inf_1", 100, 900});
  settle_inference what;
  what.request_id = "inf_1";
  what.prompt_tokens = 100;
  what.completion_tokens = 900;
  what.driver = me();
  what.validator = other_address; // without a receipt
  what.workers = {
      {helper.address(), 300, 300, kept(helped("inf_1", 3, 100), helper)},
      {second.address(), 100, 50, kept(work_for(second, *options.identity, "inf_1", 1, 50), second)},
      {friend_address, 60, 60, ""},
      {"", 40, 0, ""}};
  const auto settled = done(what);
  CHECK(settled.cost == 0.1_neuro);
  // 0.095 after the burn: driver 0.01425, workers 0.0665 in fifths, the validator's part unpaid.
  CHECK(settled.earned == 0.01425_neuro);
  CHECK(reader()->balance(helper.address())->available == 0.0399_neuro);
  CHECK(reader()->balance(second.address())->available == 0.00665_neuro);
  CHECK(reader()->balance(friend_address)->available.atto == 0);
  CHECK(reader()->balance(other_address)->available.atto == 0);
  CHECK(settled.burned == *checked_sub(0.1_neuro, 0.0608_neuro));
  verify();
}

TEST_CASE_FIXTURE(payer,
                  "a share is paid by a confirmed receipt for this work and this wallet, or not at all") {
  done(reserve_inference{"inf_1", 10, 10});
  const auto why = [&](const std::string& receipt_id, uint64_t credited = 40) {
    settle_inference what = settle_all("inf_1", 10, 10, me());
    what.workers = {{helper.address(), 1'000, credited, receipt_id}};
    return reason_of(refused(what));
  };
  CHECK(why("no id") == "malformed");
  CHECK(why(std::string(64, 'a')) == "unknown_receipt");
  auto unconfirmed = helped("inf_1", 4, 10);
  unconfirmed.nonce[0] = 2;
  CHECK(why(kept(unconfirmed, helper, false)) == "unconfirmed_receipt");
  CHECK(why(kept(helped("inf_2", 4, 10), helper)) == "other_work");
  auto trained = helped("inf_1", 4, 10);
  trained.kind = receipt_kind::training;
  trained.nonce[0] = 3;
  CHECK(why(kept(trained, helper)) == "other_work");
  CHECK(why(kept(work_for(second, *options.identity, "inf_1", 4, 10), second)) == "other_wallet");
  // Work this node did for the helper is no claim on this node.
  const auto reverse = signed_by(*options.identity, work_for(*options.identity, helper, "inf_1", 4, 10));
  const auto id = done(record_receipt{reverse, countersigned_by(helper, reverse)}).receipt_id;
  CHECK(why(kernels::to_hex(id)) == "unconfirmed_receipt");

  const auto good = kept(helped("inf_1", 4, 10), helper);
  CHECK(why(good, 41) == "above_receipt");
  auto twice = settle_all("inf_1", 10, 10, me());
  twice.workers = {{helper.address(), 40, 40, good}, {helper.address(), 40, 40, good}};
  CHECK(reason_of(refused(twice)) == "receipt_repeated");
  auto role = settle_all("inf_1", 10, 10, me());
  role.validator = helper.address();
  role.validator_receipt_id = good;
  CHECK(reason_of(refused(role)) == "other_role");
  CHECK(field_of(refused(role)) == "validator_receipt_id");
  role = settle_all("inf_1", 10, 10, me());
  role.driver = helper.address();
  role.driver_receipt_id = good;
  CHECK(field_of(refused(role)) == "driver_receipt_id");

  CHECK(book->open_reservations() == 1);
  auto fair = settle_all("inf_1", 10, 10, me());
  fair.workers = {{helper.address(), 50, 40, good}};
  const auto settled = done(fair);
  // 0.002 less 0.0001 burned: driver and validator 0.000285 each, the worker 4/5 of 0.00133.
  CHECK(settled.earned == 0.00057_neuro);
  CHECK(reader()->balance(helper.address())->available == 0.001064_neuro);
  CHECK(settled.burned == 0.000366_neuro);
  verify(true);
}

TEST_CASE_FIXTURE(book_fixture, "a reservation left alone is refunded when it expires") {
  open();
  fund(100_neuro);
  const auto before = book->own().available;
  done(reserve_inference{"inf_1", 10, 10});
  clock->advance_s(599);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(book->open_reservations() == 1);
  clock->advance_s(1);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(book->open_reservations() == 0);
  CHECK(book->own().available >= before);
  CHECK(reason_of(refused(settle_all("inf_1", 1, 1, me()))) == "already_refunded");
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "reservations found open at start are refunded") {
  open();
  fund(100_neuro);
  const auto before = book->own().available;
  done(reserve_inference{"inf_1", 10, 10});
  done(reserve_inference{"inf_2", 10, 10});
  reopen();
  CHECK(book->open_reservations() == 0);
  CHECK(book->own().available == before);
  verify();
}

TEST_CASE_FIXTURE(book_fixture, "a response is kept in the transaction that pays for it") {
  open();
  fund(100_neuro);
  done(reserve_inference{"inf_1", 10, 10});
  auto what = settle_all("inf_1", 10, 10, me());
  what.mark = mark_of("prompt", "key");
  what.mark->path = "/api/v1/inference";
  what.response = "{\"text\":\"hello\"}";
  const auto settled = done(what);
  CHECK(settled.origin.row > 0);
  reopen();
  const auto found = done(find_response{*what.mark});
  CHECK(found.found);
  CHECK(found.response == what.response);
  auto other = *what.mark;
  other.body = digest_of("another prompt");
  CHECK(reason_of(refused(find_response{other})) == "key_reused");
  other.key = "no-such-key";
  CHECK(!done(find_response{other}).found);
}

TEST_CASE_FIXTURE(book_fixture, "a free answer is kept too, until it was delivered") {
  open();
  const auto kept = done(keep_response{mark_of("prompt"), "answer"});
  CHECK(done(find_response{mark_of("prompt")}).response == "answer");
  book->mark_delivered(kept.row);
  CHECK(!done(find_response{mark_of("prompt")}).found);
  CHECK(field_of(refused(keep_response{mark_of("prompt"), std::string(1024 * 1024 + 1, 'x')})) == "response");
}
