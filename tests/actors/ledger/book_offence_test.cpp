#include "actors/ledger/sqlite.hpp"
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/record_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct offender : book_fixture {
  digest model = digest_of("model");
  int claims = 0;

  record_offence by(const std::string& wallet, offence_class what, std::string evidence) const {
    return {what, options.identity->node_id(), wallet, std::move(evidence)};
  }
  record_offence own_offence(offence_class what, std::string evidence) const {
    return by(me(), what, std::move(evidence));
  }
  /// A reward of 0.33 for the next steps.
  proof_result earn() {
    done(note_checkpoint{architecture, model, 0});
    const auto at = static_cast<uint64_t>(claims++) * 60;
    return done(claim(at, at + 60, 60 * 4'096, 10, model));
  }
  /// One of 100, as far as a proof goes.
  void earn_much() {
    done(note_checkpoint{architecture, model, 0});
    const auto at = static_cast<uint64_t>(++claims) * 1'000;
    CHECK(done(claim(at, at + 1, 4'096'000'000ULL, 1'000, model)).reward == 100_neuro);
  }
  void pass_s(int64_t seconds) {
    clock->advance_s(seconds);
    REQUIRE(book->run_due());
    REQUIRE(!book->commit());
  }
  void check_own(neuro_amount available, neuro_amount staked, neuro_amount pending) const {
    const auto own = book->own();
    CHECK(to_decimal(own.available) == to_decimal(available));
    CHECK(to_decimal(own.staked) == to_decimal(staked));
    CHECK(to_decimal(own.pending) == to_decimal(pending));
    verify();
  }
  void edit_book(const char* sql) const {
    sqlite::connection db;
    REQUIRE(!db.open(options.path, sqlite::connection::mode::read_write));
    REQUIRE(db.execute(sql));
  }
};

} // namespace

TEST_CASE_FIXTURE(offender, "a slash takes what is staked, then cools, then matures, then is available") {
  options.params.slash_conflict = 1'450_neuro;
  options.params.slash_invalid_proof = 90_neuro;
  options.params.slash_spot_check = true;
  open();
  fund(2'700_neuro);
  done(stake_neuro{1'500_neuro, 7, {}});
  clock->advance_days(7);
  done(unstake_neuro{100_neuro, {}});
  clock->advance_days(1);
  done(unstake_neuro{200_neuro, {}});
  earn_much();
  clock->advance_s(5);
  earn(); // without a stake's bonus below: 1,200 staked give 1.113...
  const neuro_amount small = *checked_sub(book->own().pending, 400_neuro);
  const neuro_amount burned = book->totals().burned;
  check_own(1'200_neuro, 1'200_neuro, *checked_add(400_neuro, small));
  const auto held = done(reserve_inference{"inf_1", 12, 200}).reserved;

  auto taken = done(own_offence(offence_class::conflict, "two receipts"));
  CHECK(taken.slashed == 1'450_neuro); // 1,200 staked, 100 of the first unstake, 150 of the second
  CHECK(!taken.known_before);
  CHECK(taken.offence_id == kernels::to_hex(digest_of("two receipts")));
  CHECK(is_lower_hex(taken.transaction_id, 64));
  neuro_amount rest = *checked_add(*checked_add(150_neuro, small), held);
  check_own(*checked_sub(1'200_neuro, held), {}, rest);
  CHECK(reader()->stake()->pending_unstake == 50_neuro);
  CHECK(!reader()->stake()->stake); // Nothing is staked any more: no lock either.
  CHECK(book->totals().burned == *checked_add(burned, 1'450_neuro));

  taken = done(own_offence(offence_class::refuted_proof, "a bad proof"));
  CHECK(taken.slashed == 90_neuro); // the other 50 of the unstake, 40 of the reward that matures first
  check_own(*checked_sub(1'200_neuro, held), {}, *checked_sub(rest, 90_neuro));
  CHECK(reader()->stake()->pending_unstake.atto == 0);
  CHECK(reader()->earnings()->pending == *checked_add(60_neuro, small));

  taken = done(own_offence(offence_class::failed_spot_check, "a wrong gradient"));
  CHECK(taken.slashed == 1'000_neuro); // both rewards, then what is available; what is reserved stays
  const neuro_amount left = *checked_sub(*checked_sub(*checked_add(1'260_neuro, small), held), 1'000_neuro);
  check_own(left, {}, held);
  CHECK(book->totals().burned == *checked_add(burned, 2'540_neuro));
  // Nothing of what was taken comes back.
  reopen(); // The reservation is refunded.
  pass_s(30 * 86'400);
  check_own(*checked_add(left, held), {}, {});
  CHECK(reader()->earnings()->pending.atto == 0);
  verify(true);
}

TEST_CASE_FIXTURE(offender, "what a slash leaves of an unstake or a reward is released, and only that") {
  options.params.slash_conflict = 1'150_neuro;
  options.params.slash_invalid_proof = 90_neuro;
  open();
  fund(1'200_neuro);
  done(stake_neuro{1'200_neuro, 7, {}});
  clock->advance_days(7);
  done(unstake_neuro{200_neuro, {}});
  CHECK(done(own_offence(offence_class::conflict, "a")).slashed == 1'150_neuro); // 1,000 and 150
  reopen();
  check_own({}, {}, 50_neuro);
  earn_much();
  CHECK(done(own_offence(offence_class::refuted_proof, "b")).slashed == 90_neuro); // 50 and 40
  check_own({}, {}, 60_neuro);
  reopen();
  pass_s(660);
  check_own(60_neuro, {}, {});
  pass_s(8 * 86'400);
  check_own(60_neuro, {}, {});
}

TEST_CASE_FIXTURE(offender, "a partly slashed unstake comes back without what was taken") {
  open();
  fund(1'200_neuro);
  done(stake_neuro{1'200_neuro, 7, {}});
  clock->advance_days(7);
  done(unstake_neuro{1'200_neuro, {}});
  CHECK(done(own_offence(offence_class::refuted_proof, "a")).slashed == 10_neuro);
  CHECK(done(own_offence(offence_class::conflict, "b")).slashed == 1'000_neuro);
  check_own({}, {}, 190_neuro);
  reopen();
  pass_s(8 * 86'400);
  check_own(190_neuro, {}, {});
  const auto shown = reader()->history(history_query{10, 0, history_type::slash, {}, {}, {}});
  REQUIRE(shown->items.size() == 2);
  CHECK(shown->items[0].amount == 1'000_neuro);
  CHECK(shown->items[0].negative);
  CHECK(shown->items[0].details[0].second == kernels::to_hex(digest_of("b")));
}

TEST_CASE_FIXTURE(offender, "a stake below the minimum after a slash stays locked and multiplies by one") {
  open();
  fund(1'100_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  CHECK(reader()->stake()->stake->multiplier_ppm == 1'100'000);
  const auto unlock = reader()->stake()->stake->unlock_day;
  done(own_offence(offence_class::refuted_proof, "a"));
  const auto stake = reader()->stake()->stake;
  REQUIRE(stake);
  CHECK(stake->amount == 990_neuro);
  CHECK(stake->multiplier_ppm == 1'000'000);
  CHECK(stake->unlock_day == unlock);
  CHECK(reason_of(refused(unstake_neuro{{}, {}})) == "stake_locked");
  CHECK(earn().reward == 0.33_neuro);
  CHECK(field_of(refused(add_stake{9_neuro, {}})) == "amount");
  CHECK(done(add_stake{10_neuro, {}}).stake.multiplier_ppm == 1'100'000);
  verify(true);
}

TEST_CASE_FIXTURE(offender, "within the cooldown of its class an offence is only recorded") {
  open();
  fund(200_neuro);
  const auto first = done(own_offence(offence_class::refuted_proof, "1"));
  CHECK(first.slashed == 10_neuro);
  clock->advance_s(1'800);
  const auto second = done(own_offence(offence_class::refuted_proof, "2"));
  CHECK(second.transaction_id.empty());
  CHECK(second.slashed.atto == 0);
  // Another class has its own cooldown.
  CHECK(done(own_offence(offence_class::conflict, "3")).slashed == 190_neuro);
  clock->advance_s(1'799);
  reopen();
  CHECK(done(own_offence(offence_class::refuted_proof, "4")).transaction_id.empty());
  clock->advance_s(1); // An hour since the slash; what was only recorded puts nothing off.
  CHECK(!done(own_offence(offence_class::refuted_proof, "5")).transaction_id.empty());
  // Asked again: the first answer, also when by now it would be slashed.
  clock->advance_days(2);
  const auto again = done(own_offence(offence_class::refuted_proof, "2"));
  CHECK(again.known_before);
  CHECK(again.transaction_id.empty());
  const auto repeated = done(own_offence(offence_class::refuted_proof, "1"));
  CHECK(repeated.known_before);
  CHECK(repeated.transaction_id == first.transaction_id);
  CHECK(repeated.slashed == 10_neuro);
  CHECK(!done(own_offence(offence_class::conflict, "6")).transaction_id.empty());
  clock->advance_s(24 * 3'600 - 1);
  CHECK(done(own_offence(offence_class::conflict, "7")).transaction_id.empty());
  clock->advance_s(1);
  CHECK(!done(own_offence(offence_class::conflict, "8")).transaction_id.empty());
  verify(true);
}

TEST_CASE_FIXTURE(offender, "a slash takes what there is, down to nothing") {
  open();
  earn();
  const auto some = done(own_offence(offence_class::refuted_proof, "a"));
  CHECK(some.slashed == 0.33_neuro);
  check_own({}, {}, {});
  CHECK(book->totals().burned == 0.33_neuro);
  const auto none = done(own_offence(offence_class::conflict, "b"));
  CHECK(none.slashed.atto == 0);
  CHECK(!none.transaction_id.empty()); // It counts against the reputation all the same.
  pass_s(700);
  check_own({}, {}, {});
}

TEST_CASE_FIXTURE(offender, "a failed spot-check is slashed for only where that is wanted") {
  open();
  fund(100_neuro);
  CHECK(done(own_offence(offence_class::failed_spot_check, "a")).transaction_id.empty());
  CHECK(book->own().available == 100_neuro);
  options.params.slash_spot_check = true;
  options.params.slash_spot_check_amount = 7_neuro;
  reopen();
  clock->advance_s(60);
  CHECK(done(own_offence(offence_class::failed_spot_check, "b")).slashed == 7_neuro);
  verify();
}

TEST_CASE_FIXTURE(offender, "evidence against another wallet is kept and moves nothing") {
  open();
  fund(100_neuro);
  done(send_neuro{friend_address, 50_neuro, {}, {}});
  const auto seq = book->head().seq;
  const auto kept = done(by(friend_address, offence_class::conflict, "theirs"));
  CHECK(kept.transaction_id.empty());
  CHECK(kept.slashed.atto == 0);
  CHECK(done(by(friend_address, offence_class::conflict, "theirs")).known_before);
  CHECK(book->head().seq == seq);
  CHECK(reader()->balance(friend_address)->available == 50_neuro);
  // It does not begin a cooldown of this wallet.
  CHECK(!done(own_offence(offence_class::conflict, "mine")).transaction_id.empty());
  verify();
}

TEST_CASE_FIXTURE(offender, "malformed offences are refused") {
  open();
  auto what = own_offence(offence_class::conflict, "x");
  what.node_id = "0123";
  CHECK(field_of(refused(what)) == "node_id");
  CHECK(field_of(refused(by("nobody", offence_class::conflict, "x"))) == "wallet");
  CHECK(field_of(refused(own_offence(offence_class::conflict, ""))) == "evidence");
  CHECK(field_of(refused(own_offence(offence_class::conflict, std::string(64 * 1024 + 1, 'x')))) ==
        "evidence");
  CHECK(field_of(refused(own_offence(static_cast<offence_class>(0), "x"))) == "what");
  CHECK(field_of(refused(own_offence(static_cast<offence_class>(4), "x"))) == "what");
}

TEST_CASE_FIXTURE(offender, "a slash weighs as a hundred refused proofs in the reputation") {
  open();
  fund(100_neuro);
  // A hundred accepted proofs of this hour, with that of the funds.
  edit_book(("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO "
             "proofs SELECT "
             "randomblob(32), '', '', 1, 1, NULL, " +
             std::to_string(clock->us) + ", i, 0, 0, 1, '', zeroblob(16), x'', x'', x'', x'', '' FROM n")
                .c_str());
  CHECK(reader()->reward_rate(false, false, true)->reputation_ppm == 1'100'000);
  CHECK(earn().reward == 0.363_neuro);
  done(own_offence(offence_class::refuted_proof, "a"));
  done(own_offence(offence_class::refuted_proof, "only recorded"));
  CHECK(reader()->reward_rate(false, false, true)->reputation_ppm == 1'050'248);
  CHECK(earn().reward == 0.34658184_neuro);
  clock->advance_days(31);
  CHECK(reader()->reward_rate(false, false, true)->reputation_ppm == 1'000'000);
}

TEST_CASE_FIXTURE(offender,
                  "a refuted proof's pending rewards are burned, all of them and once, and it counts as "
                  "rejected") {
  open();
  fund(1'100_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  const neuro_amount burned = book->totals().burned, available = book->own().available;
  auto two_parts = training(0, 60, 60 * 4'096, 10, digest_of("funds"));
  two_parts.uptime_ms = 60'000;
  two_parts.step_begin += 1'000;
  two_parts.step_end += 1'000;
  const auto what = recorded(two_parts);
  const auto bad = done(what);
  CHECK(bad.reward == 0.363121_neuro); // 0.363 and 0.000121
  const auto good = done(claim(2'000, 2'060, 60 * 4'096, 10, digest_of("funds")));
  const auto submitted = reader()->proof_stats();
  const auto voided = done(void_reward{bad.proof_id, "gradient"});
  CHECK(!voided.known_before);
  CHECK(voided.burned == bad.reward);
  CHECK(voided.matured.atto == 0);
  check_own(available, 1'000_neuro, 0.363_neuro);
  CHECK(book->totals().burned == *checked_add(burned, bad.reward));
  // It is shown as rejected, and counted as such.
  const auto shown = reader()->proofs(100, 0, {});
  REQUIRE(shown);
  for (const auto& item : shown->items) {
    CHECK(item.verified == (item.id != bad.proof_id));
    CHECK(item.reason == (item.id == bad.proof_id ? "gradient" : ""));
    if (item.id == bad.proof_id)
      CHECK(item.reward.atto == 0);
  }
  const auto stats = reader()->proof_stats();
  CHECK(stats->total_submitted == submitted->total_submitted);
  CHECK(stats->total_verified == submitted->total_verified - 1);
  CHECK(stats->total_reward == *checked_sub(submitted->total_reward, bad.reward));
  // Asked again, also later and with another reason: the first answer. Its steps stay paid for.
  for (const char* reason : {"gradient", "loss"}) {
    reopen();
    const auto seq = book->head().seq;
    const auto again = done(void_reward{bad.proof_id, reason});
    CHECK(again.known_before);
    CHECK(again.burned == bad.reward);
    CHECK(book->head().seq == seq);
    CHECK(done(what).reward == bad.reward);
    CHECK(done(what).replayed);
  }
  CHECK(done(claim(1'000, 1'060, 60 * 4'096, 10, digest_of("funds"))).reward.atto == 0);
  CHECK(reader()->proofs(100, 0, {})->items.size() == shown->items.size() + 1);
  const auto rewards = reader()->history(history_query{3, 0, history_type::reward, {}, {}, {}})->items;
  REQUIRE(rewards.size() == 3);
  CHECK(rewards[0].status == history_status::pending);
  CHECK(rewards[1].status == history_status::failed);
  CHECK(rewards[2].status == history_status::failed);
  pass_s(660);
  check_own(*checked_add(available, good.reward), 1'000_neuro, {});
  // What has matured is out of reach; the proof is rejected all the same.
  const auto late = done(void_reward{good.proof_id, "loss"});
  CHECK(late.burned.atto == 0);
  CHECK(late.matured == good.reward);
  check_own(*checked_add(available, good.reward), 1'000_neuro, {});
  CHECK(reader()->proof_stats()->total_verified == submitted->total_verified - 1); // one more was accepted
  verify(true);
}

TEST_CASE_FIXTURE(offender, "what cannot be voided is told apart") {
  open();
  CHECK(code_of(refused(void_reward{std::string(64, 'c'), "loss"})) == errc::not_found);
  CHECK(field_of(refused(void_reward{"no id", "loss"})) == "proof_id");
  CHECK(field_of(refused(void_reward{{}, "loss"})) == "proof_id");
  for (const auto& reason : {std::string(), std::string("two words"), std::string(65, 'a')})
    CHECK(field_of(refused(void_reward{std::string(64, 'c'), reason})) == "reason");
  done(note_checkpoint{architecture, model, 0});
  const auto never = done(recorded(training(0, 60, 4'096, 1, model), "rate"));
  CHECK(reason_of(refused(void_reward{never.proof_id, "loss"})) == "refused");
}

TEST_CASE_FIXTURE(offender, "voiding burns what a slash has left of the reward") {
  options.params.slash_invalid_proof = 0.1_neuro;
  open();
  const auto proof = earn().proof_id;
  CHECK(done(own_offence(offence_class::refuted_proof, "a")).slashed == 0.1_neuro);
  CHECK(done(void_reward{proof, "loss"}).burned == 0.23_neuro);
  check_own({}, {}, {});
  CHECK(book->totals().burned == 0.33_neuro);
}

TEST_CASE_FIXTURE(offender, "a refuted proof weighs as a rejected one in the reputation") {
  open();
  done(note_checkpoint{architecture, model, 0});
  std::string last;
  for (uint64_t n = 0; n < 100; ++n)
    last = done(claim(n, n + 1, 4'096, 1, model)).proof_id;
  CHECK(reader()->reward_rate(false, false, true)->reputation_ppm == 1'100'000);
  CHECK(done(claim(100, 160, 60 * 4'096, 10, model)).reward == 0.363_neuro);
  done(void_reward{last, "loss"});
  // 100 of 101.
  CHECK(reader()->reward_rate(false, false, true)->reputation_ppm == 1'099'009);
  CHECK(done(claim(200, 260, 60 * 4'096, 10, model)).reward == *from_atto_text("362672970000000000"));
  verify();
}

TEST_CASE_FIXTURE(offender, "any edit of what a refuted proof left in the file is found") {
  open();
  const auto proof = earn().proof_id;
  earn();
  done(void_reward{proof, "loss"});
  REQUIRE(!book->close());
  book.reset();
  verify(true);
  const std::string clean = folder + "/clean.db";
  std::filesystem::copy_file(options.path, clean);
  for (const char* sql :
       {"UPDATE proofs SET refuted = ''", "UPDATE proofs SET refuted = 'loss'",
        "UPDATE proofs SET reward = (SELECT max(amount) FROM rewards)",
        "UPDATE proof_counts SET verified = 2", "UPDATE rewards SET state = 1 WHERE state = 2",
        "UPDATE rewards SET state = 0", "UPDATE rewards SET ended_seq = NULL",
        "UPDATE rewards SET ended_seq = 1 WHERE state = 2"}) {
    CAPTURE(sql);
    edit_book(sql);
    const auto found = verify_book(options.path, false);
    REQUIRE(found);
    CHECK(!found->faults.empty());
    std::filesystem::copy_file(clean, options.path, std::filesystem::copy_options::overwrite_existing);
  }
}

TEST_CASE_FIXTURE(offender, "any edit of an offence in the file is found") {
  open();
  fund(100_neuro);
  done(own_offence(offence_class::refuted_proof, "evidence"));
  REQUIRE(!book->close());
  book.reset();
  verify(true);
  const std::string clean = folder + "/clean.db";
  std::filesystem::copy_file(options.path, clean);
  for (const char* sql :
       {"UPDATE offences SET evidence = x'00'", "UPDATE offences SET offence_id = zeroblob(32)",
        "UPDATE offences SET slashed = zeroblob(16)", "UPDATE offences SET seq = NULL",
        "UPDATE offences SET seq = 1", "DELETE FROM offences"}) {
    CAPTURE(sql);
    edit_book(sql);
    const auto found = verify_book(options.path, false);
    REQUIRE(found);
    CHECK(!found->faults.empty());
    std::filesystem::copy_file(clean, options.path, std::filesystem::copy_options::overwrite_existing);
  }
}
