#include "tests/actors/ledger/proof_fixture.hpp"

#include "actors/ledger/epoch_record.hpp"

#include <vector>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct kept_epoch {
  epoch_record record;
  std::string payload;
  digest hash{};
  signature sig{};
};

struct epochs : proof_fixture {
  std::vector<kept_epoch> all() const {
    sqlite::connection db;
    REQUIRE(!db.open(options.path, sqlite::connection::mode::read_only));
    sqlite::statement read(db, "SELECT payload, epoch_hash, signature FROM epochs ORDER BY epoch_id");
    std::vector<kept_epoch> found;
    for (auto row = read.query(); row.next();) {
      auto& made = found.emplace_back();
      const auto payload = row.bytes(0), sig = row.bytes(2);
      made.payload.assign(payload.begin(), payload.end());
      made.hash = row.digest(1);
      REQUIRE(sig.size() == made.sig.size());
      std::copy(sig.begin(), sig.end(), made.sig.begin());
      const auto record = read_epoch(made.payload);
      REQUIRE(record);
      made.record = *record;
    }
    return found;
  }
  uint64_t minute() const { return static_cast<uint64_t>(clock->us / epoch_us); }
  /// To the second `second` of the minute `minutes` from now.
  void to_second(int64_t minutes, int64_t second) {
    clock->us = (clock->us / epoch_us + minutes) * epoch_us + second * us_per_second;
  }
  void due() {
    REQUIRE(book->run_due());
    REQUIRE(!book->commit());
  }
  /// What the check of the book says; it must say something.
  std::string found_wrong(bool signatures = false) const {
    const auto found = verify_book(options.path, signatures);
    REQUIRE(found);
    REQUIRE(!found->faults.empty());
    return found->faults.front();
  }
};

} // namespace

TEST_CASE_FIXTURE(epochs, "a minute is closed ten seconds after its end, an empty one never") {
  const uint64_t first = minute();
  const auto proof = trained(0);
  const auto got = done(recorded(proof));
  to_second(1, 9);
  due();
  CHECK(all().empty());
  to_second(0, 10);
  due();
  REQUIRE(all().size() == 1);
  const auto one = all().front();
  CHECK(one.record.epoch_id == first);
  CHECK(one.record.chain_id == book->chain_id());
  CHECK(one.record.prev_epoch_hash == book->chain_id());
  CHECK(one.record.start_us == static_cast<int64_t>(first) * epoch_us);
  CHECK(one.record.end_us == one.record.start_us + epoch_us);
  CHECK(one.record.params_hash == params_hash(options.params));
  CHECK(one.record.model_hash_start == proof.model_hash_start);
  CHECK(one.record.model_hash_end == proof.model_hash_end);
  CHECK(one.record.proof_count == 1);
  CHECK(one.record.proofs_root == merkle_root({proof_id_of(canonical_payload(proof))}));
  CHECK(one.record.receipts_root == merkle_root({}));
  CHECK(one.record.commitments_root == merkle_root({*proof.gradient_commitment}));
  CHECK(one.record.total_reward == to_atto_text(got.reward));
  CHECK(one.record.total_batches == 2);
  CHECK(one.record.average_loss_e6 == proof.loss_e6);
  CHECK(!one.record.layer_map_hash);
  CHECK(one.record.last_seq == 1);
  CHECK(one.record.last_row_hash == book->head().hash);
  // Two empty minutes later the chain goes on at the next one that holds something.
  to_second(3, 30);
  due();
  CHECK(all().size() == 1);
  done(recorded(idle()));
  to_second(1, 10);
  due();
  REQUIRE(all().size() == 2);
  const auto two = all().back();
  CHECK(two.record.epoch_id == first + 4);
  CHECK(two.record.prev_epoch_hash == one.hash);
  CHECK(two.record.proof_count == 1);
  CHECK(two.record.total_reward == "0");
  CHECK(!two.record.average_loss_e6);
  CHECK(!two.record.model_hash_start);
  // A proof that earned nothing made no row: the last one is still that of the minute before.
  CHECK(two.record.last_seq == 1);
  CHECK(two.record.tx_root == merkle_root({}));
  const auto found = verify_book(options.path, true);
  REQUIRE(found);
  CHECK(found->faults.empty());
  CHECK(found->epochs == 2);
  CHECK(found->proofs == 2);
}

TEST_CASE_FIXTURE(epochs, "anyone can check an exported chain of epochs") {
  for (uint64_t i = 0; i < 5; ++i) {
    done(recorded(trained(i * 4)));
    next_minute(61);
  }
  next_minute(600);
  next_minute(60);
  const auto chain = all();
  REQUIRE(chain.size() >= 5);
  epoch_evidence evidence;
  evidence.chain_id = book->chain_id();
  evidence.node_key = options.identity->node_public_key();
  epoch_chain_check check(evidence);
  for (const auto& each : chain)
    CHECK(check.next(each.payload, each.hash, each.sig) == "");
  verify(true);
}

TEST_CASE_FIXTURE(epochs, "losses weigh by their label tokens and refused proofs by nothing") {
  auto one = trained(0), two = trained(4), refused_one = trained(8);
  one.loss_e6 = 4'000'000;
  one.label_tokens = 1'000;
  two.loss_e6 = 2'000'001;
  two.label_tokens = 7'192;
  two.model_hash_end = digest_of("later");
  two.timestamp_us += 1;
  done(recorded(one));
  done(recorded(two));
  done(recorded(refused_one, "too_old"));
  to_second(1, 10);
  due();
  const auto record = all().at(0).record;
  CHECK(record.proof_count == 2);
  CHECK(record.total_batches == 2);
  // (4,000,000 x 1,000 + 2,000,001 x 7,192) / 8,192
  CHECK(record.average_loss_e6 == (4'000'000ULL * 1'000 + 2'000'001ULL * 7'192) / 8'192);
  CHECK(record.model_hash_start == model);
  CHECK(record.model_hash_end == digest_of("later"));
  CHECK(record.commitments_root == merkle_root({*one.gradient_commitment, *two.gradient_commitment}));
  verify(true);
}

TEST_CASE_FIXTURE(epochs, "a late proof finds its minute open or is told that it is closed") {
  auto late = trained(0), later = trained(4);
  done(recorded(trained(8)));
  to_second(1, 9);
  due();
  CHECK(done(recorded(late)).steps_rewarded == 4);
  to_second(0, 10);
  due();
  CHECK(all().at(0).record.proof_count == 2);
  const auto why = refused(recorded(later));
  CHECK(code_of(why) == errc::failed_precondition);
  CHECK(reason_of(why) == "epoch_closed");
  // What was refused is kept all the same: it is part of no epoch.
  done(recorded(later, "too_old"));
  verify(true);
  // A minute that was empty when the next look came is still open.
  to_second(1, 30);
  auto quiet = trained(12);
  to_second(1, 30);
  due();
  CHECK(all().size() == 2); // That of the late proof's reward is closed too.
  CHECK(done(recorded(quiet)).steps_rewarded == 4);
  due();
  CHECK(all().size() == 3);
  verify(true);
}

TEST_CASE_FIXTURE(epochs, "minutes left open by a crash are closed at the next start") {
  done(recorded(trained(0)));
  to_second(1, 20);
  REQUIRE(book->apply(recorded(trained(4))));
  REQUIRE(!book->commit());
  REQUIRE(book->run_due()); // Closed in a group that is lost with the process.
  book.reset();
  CHECK(all().empty());
  to_second(5, 0);
  open();
  REQUIRE(all().size() == 2);
  CHECK(all()[0].record.last_seq == 1);
  CHECK(all()[1].record.last_seq == 2);
  verify(true);
  reopen();
  CHECK(all().size() == 2);
}

TEST_CASE_FIXTURE(epochs, "no transaction is dated into a closed epoch when the clock is set back") {
  fund(500_neuro);
  done(send_neuro{friend_address, 1_neuro, {}, {}});
  to_second(1, 30);
  due();
  const int64_t closed_us = all().back().record.end_us;
  clock->advance_s(-7'200);
  done(send_neuro{friend_address, 2_neuro, {}, {}});
  CHECK(book->head().timestamp_us >= closed_us);
  reopen();
  clock->advance_s(-7'200);
  reopen();
  const auto sent = done(send_neuro{friend_address, 3_neuro, {}, {}});
  CHECK(sent.timestamp_us >= closed_us);
  CHECK(reason_of(refused(recorded(trained(0)))) == "epoch_closed");
  verify(true);
  // A book whose last epoch holds a proof alone, newer than any transaction.
  clock->us = closed_us + 3'600 * us_per_second;
  done(recorded(idle()));
  to_second(2, 0);
  due();
  const int64_t proven_us = all().back().record.end_us;
  clock->advance_s(-7'200);
  options.params.uptime_per_minute = 1_neuro; // In force from a minute on that is not closed.
  reopen();
  CHECK(done(send_neuro{friend_address, 3_neuro, {}, {}}).timestamp_us >= proven_us);
  clock->us = proven_us + 600 * us_per_second;
  due();
  verify(true);
}

TEST_CASE_FIXTURE(epochs, "a backlog is closed in pieces") {
  fund(500_neuro);
  edit("DELETE FROM epochs");
  book.reset();
  open();
  const size_t some = all().size();
  CHECK(some >= 5);
  for (int i = 0; i < 100; ++i) {
    to_second(1, 5);
    REQUIRE(book->apply(send_neuro{friend_address, 1_neuro, {}, {}}));
  }
  REQUIRE(!book->commit());
  to_second(1, 30);
  due();
  const size_t before = all().size();
  CHECK(before < some + 100);
  due();
  CHECK(all().size() > some + 99);
  verify(true);
}

TEST_CASE_FIXTURE(epochs, "confirmed receipts are part of the epoch they were confirmed in") {
  const std::vector<digest> ids = {receipt("a", stranger), receipt("b", twin)};
  receipt("c", stranger, false);
  to_second(1, 10);
  due();
  REQUIRE(all().size() == 1);
  CHECK(all()[0].record.receipts_root == merkle_root(ids));
  CHECK(all()[0].record.proof_count == 0);
  CHECK(all()[0].record.last_seq == 0);
  CHECK(all()[0].record.last_row_hash == book->chain_id());
  verify(true);
  edit("DELETE FROM receipts WHERE work_id = 'b'");
  CHECK(found_wrong().find("receipts_root") != std::string::npos);
}

TEST_CASE_FIXTURE(epochs, "whatever is changed in epochs, proofs, rewards or commitments is found") {
  const auto kept = done(keep_commitment{"a preimage"});
  auto first = trained(0);
  first.gradient_commitment = kept.commitment;
  done(recorded(first));
  to_second(1, 30);
  auto second = trained(4);
  second.step_end = 14;
  second.steps = 10;
  auto what = recorded(second);
  what.segments = {{model, 4, 9}, {digest_of("later"), 9, 14}};
  done(what);
  done(recorded(trained(30), "too_old"));
  to_second(1, 10);
  due();
  verify(true);
  // Each byte of a column in turn is turned over; every one must be noticed.
  const auto flip = [&](const std::string& table, const std::string& column, const std::string& key,
                        const std::vector<size_t>& where, bool signatures = false) {
    std::string name;
    std::vector<uint8_t> old;
    {
      sqlite::connection db;
      REQUIRE(!db.open(options.path, sqlite::connection::mode::read_only));
      sqlite::statement read(
          db, fmt::format("SELECT {} FROM {} ORDER BY {} LIMIT 1", column, table, key).c_str());
      auto row = read.query();
      REQUIRE(row.next());
      const auto bytes = row.bytes(0);
      old.assign(bytes.begin(), bytes.end());
    }
    const auto put = [&](const std::vector<uint8_t>& bytes) {
      edit(fmt::format("UPDATE {0} SET {1} = x'{2}' WHERE {1} = x'{3}'", table, column,
                       kernels::to_hex(bytes), kernels::to_hex(old)));
      old = bytes;
    };
    REQUIRE(!old.empty());
    for (const size_t position : where) {
      const size_t at = position % old.size();
      const auto good = old;
      auto bad = old;
      bad[at] ^= 0x01;
      put(bad);
      CAPTURE(table);
      CAPTURE(column);
      CAPTURE(at);
      found_wrong(signatures);
      put(good);
    }
    verify(signatures);
  };
  flip("epochs", "payload", "epoch_id", {0, 30, 120, 400, 700, 1'000});
  flip("epochs", "payload", "epoch_id DESC", {50, 500, 1'050});
  flip("epochs", "epoch_hash", "epoch_id", {0, 31});
  flip("epochs", "epoch_hash", "epoch_id DESC", {5});
  flip("epochs", "previous_hash", "epoch_id", {7});
  flip("epochs", "public_key", "epoch_id", {9});
  flip("epochs", "signature", "epoch_id DESC", {0, 40});
  flip("proofs", "payload", "timestamp_us", {0, 200, 600});
  flip("proofs", "payload", "timestamp_us DESC", {300});
  flip("proofs", "proof_id", "timestamp_us", {3});
  flip("proofs", "reward", "timestamp_us", {15, 8});
  flip("proofs", "signature", "timestamp_us", {20}, true);
  flip("proofs", "public_key", "timestamp_us", {20}, true);
  flip("commitments", "commitment", "created_us", {0});
  flip("commitments", "preimage", "created_us", {0, 9});
  flip("commitments", "proof_id", "created_us", {31});
  flip("rewards", "amount", "id", {15});
  flip("reward_ranges", "model_hash", "step_begin", {0});
  flip("reward_ranges", "model_hash", "step_begin DESC", {30});
  flip("reward_days", "amount", "day", {14});

  const auto change = [&](const char* sql, const char* back) {
    CAPTURE(sql);
    edit(sql);
    found_wrong();
    edit(back);
    verify();
  };
  change("UPDATE epochs SET start_us = start_us + 1", "UPDATE epochs SET start_us = start_us - 1");
  change("UPDATE epochs SET last_seq = last_seq + 1", "UPDATE epochs SET last_seq = last_seq - 1");
  change("UPDATE reward_ranges SET step_end = step_end + 1 WHERE step_begin = 9",
         "UPDATE reward_ranges SET step_end = step_end - 1 WHERE step_begin = 9");
  change("UPDATE reward_ranges SET step_begin = step_begin - 1 WHERE step_begin = 9",
         "UPDATE reward_ranges SET step_begin = step_begin + 1 WHERE step_begin = 8");
  change("UPDATE reward_ranges SET reward_id = reward_id + 1 WHERE step_begin = 0",
         "UPDATE reward_ranges SET reward_id = reward_id - 1 WHERE step_begin = 0");
  change("UPDATE rewards SET steps_rewarded = steps_rewarded + 1",
         "UPDATE rewards SET steps_rewarded = steps_rewarded - 1");
  change("UPDATE reward_days SET proofs = proofs + 1", "UPDATE reward_days SET proofs = proofs - 1");
  change("UPDATE proofs SET accepted = 1 - accepted", "UPDATE proofs SET accepted = 1 - accepted");
  change("UPDATE proofs SET timestamp_us = timestamp_us + 1",
         "UPDATE proofs SET timestamp_us = timestamp_us - 1");
  change("UPDATE proofs SET first_layer = 1 WHERE first_layer = 0", "UPDATE proofs SET first_layer = 0");
  edit("DELETE FROM epochs WHERE epoch_id = (SELECT min(epoch_id) FROM epochs)");
  CHECK(found_wrong().find("does not link") != std::string::npos);
}

TEST_CASE("a book is kept by one node of its wallet") {
  book_fixture of;
  of.open();
  of.book.reset();
  auto other = node_identity::make(*parse_token("correct-horse"), 1, of.clock->us / 1'000);
  REQUIRE(other);
  of.options.identity = std::make_shared<const node_identity>(std::move(*other));
  const auto made = open_book(of.options);
  REQUIRE(!made);
  CHECK(code_of(made.error()) == errc::failed_precondition);
  CHECK(reason_of(made.error()) == "other_node");
}
