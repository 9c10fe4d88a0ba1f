#include "tests/actors/ledger/proof_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

TEST_CASE_FIXTURE(proof_fixture, "a minute of training earns by its tokens, layers and roles, and matures") {
  const auto got = done(recorded(trained(0)));
  CHECK(!got.replayed);
  CHECK(got.proof_id.size() == 64);
  // 2 batches x 6 layers x 0.0005, and 0.6 more of it for driver, validator and training.
  CHECK(got.reward == 0.0096_neuro);
  CHECK(got.steps_rewarded == 4);
  CHECK(!got.capped);
  CHECK(book->own().pending == 0.0096_neuro);
  next_minute(660);
  CHECK(book->own().available == 0.0096_neuro);
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "uptime earns nothing without a stake or work for others") {
  const auto got = done(recorded(idle()));
  CHECK(got.reward.atto == 0);
  CHECK(book->head().seq == 0);
  const auto found = reader()->rewards(day_of(clock->us), day_of(clock->us));
  REQUIRE(found);
  CHECK(found->by_type.at(reward_type::uptime).atto == 0);
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture,
                  "uptime with a stake earns by the millisecond, each part a reward of its own") {
  fund(1'000_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  const auto seq = book->head().seq;
  const auto minted = book->totals().minted;
  auto proof = idle();
  proof.uptime_ms = 59'999;
  proof.has_lm_head = false;
  // 0.0001 x 59,999 / 60,000 x 1.1 for the stake x 1.2 for the driver, cut off at each step.
  CHECK(done(recorded(proof)).reward == *from_atto_text("131997799999999"));
  CHECK(book->head().seq == seq + 1);
  // "Training in this proof" is a property of the proof: it raises the uptime part too.
  const auto both = done(recorded(trained(0)));
  CHECK(both.reward == 0.010736_neuro); // 0.000176 and 0.01056
  CHECK(book->head().seq == seq + 3);
  CHECK(book->totals().minted.atto == minted.atto + 131'997'799'999'999ULL + both.reward.atto);
  const auto found = reader()->rewards(day_of(clock->us), day_of(clock->us));
  REQUIRE(found);
  CHECK(found->by_type.at(reward_type::uptime) == *from_atto_text("307997799999999"));
  const auto page = reader()->history({2, 0, history_type::reward, {}, {}, {}});
  REQUIRE(page);
  REQUIRE(page->items.size() == 2);
  for (const auto& item : page->items) {
    bool named = false;
    for (const auto& [key, value] : item.details)
      named = named || (key == "proof_id" && value == both.proof_id);
    CHECK(named);
  }
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "work that another wallet counter-signed makes the minute's uptime count") {
  auto proof = idle();
  auto what = recorded(proof);
  SUBCASE("for another wallet") {
    what.receipts = {receipt("a", stranger), receipt("b", twin)};
    proof.receipt_count = 2;
    proof.receipts_root = merkle_root(what.receipts);
    what.proof = recorded(proof).proof;
    CHECK(done(what).reward == 0.00015_neuro);
    // Each receipt is in one proof only.
    auto again = idle();
    auto second = recorded(again);
    second.receipts = {what.receipts[0]};
    again.receipt_count = 1;
    again.receipts_root = merkle_root(second.receipts);
    second.proof = recorded(again).proof;
    CHECK(reason_of(refused(second)) == "proven");
    CHECK(done(what).replayed);
    verify(true);
  }
  SUBCASE("for the own wallet") {
    what.receipts = {receipt("b", twin)};
    proof.receipt_count = 1;
    proof.receipts_root = merkle_root(what.receipts);
    what.proof = recorded(proof).proof;
    CHECK(done(what).reward.atto == 0);
  }
  SUBCASE("not confirmed, not held, another's, twice, or not those of the proof") {
    const auto try_with = [&](std::vector<digest> receipts) {
      auto tried = idle();
      auto with = recorded(tried);
      tried.receipt_count = receipts.size();
      tried.receipts_root = merkle_root(receipts);
      with.proof = recorded(tried).proof;
      with.receipts = std::move(receipts);
      return refused(with);
    };
    const digest good = receipt("a", stranger);
    CHECK(reason_of(try_with({receipt("c", stranger, false)})) == "unconfirmed");
    CHECK(reason_of(try_with({receipt("d", stranger, true, false)})) == "unconfirmed");
    CHECK(reason_of(try_with({digest_of("none")})) == "unconfirmed");
    CHECK(reason_of(try_with({good, good})) == "unconfirmed");
    what.receipts = {good};
    CHECK(reason_of(refused(what)) == "mismatch");
  }
}

TEST_CASE_FIXTURE(proof_fixture, "a proof sent again is answered as the first time, also after a crash") {
  const auto what = recorded(trained(0));
  const auto first = done(what);
  const auto again = done(what);
  CHECK(again.replayed);
  CHECK(again.proof_id == first.proof_id);
  CHECK(again.reward == first.reward);
  CHECK(again.steps_rewarded == 4);
  reopen();
  CHECK(done(what).replayed);
  CHECK(book->totals().minted == first.reward);
  // The same payload under a signature of another form is the same proof.
  auto altered = what;
  altered.proof.sig[3] ^= 1;
  CHECK(done(altered).replayed);
  auto other = trained(4);
  other.nonce = read_proof(what.proof.payload)->nonce;
  CHECK(reason_of(refused(recorded(other))) == "replayed");
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "steps redone after a crash are paid once, whoever claims them") {
  const auto first = done(recorded(trained(100)));
  // Lost with the process: never committed, so the steps are free again.
  REQUIRE(book->apply(recorded(trained(104))));
  reopen();
  CHECK(book->totals().minted == first.reward);
  const auto redone = done(recorded(trained(102)));
  CHECK(redone.steps_rewarded == 2);
  CHECK(redone.reward.atto == first.reward.atto / 2);
  CHECK(done(recorded(trained(101))).reward.atto == 0);
  CHECK(done(claim(100, 106, 1'000, 6, model)).reward.atto == 0);
  CHECK(done(recorded(trained(106))).steps_rewarded == 4);
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "the segments of a proof are paid under the weights they began at") {
  auto proof = trained(10);
  proof.step_end = 20;
  proof.steps = 10;
  proof.label_tokens = 10'241;
  auto what = recorded(proof);
  const digest later = digest_of("later");
  what.segments = {{model, 10, 13}, {later, 13, 20}};
  // 10,241 x 6 x 0.0005 / 4,096 = 0.00750073242..., x 1.6.
  CHECK(done(what).reward == *from_atto_text("12001171875000000"));
  // Steps 13 to 16 under the first weights are other work; 10 to 13 are not.
  auto redone = trained(10);
  redone.step_end = 16;
  redone.steps = 6;
  redone.label_tokens = 6'001;
  const auto half = done(recorded(redone));
  CHECK(half.steps_rewarded == 3);
  // 6,001 x 3 / 6 tokens are 3,000 whole ones.
  CHECK(half.reward == *from_atto_text("3515625000000000"));
  done(note_checkpoint{architecture, later, 13});
  auto same = trained(13);
  same.model_hash_start = later;
  CHECK(done(recorded(same)).steps_rewarded == 0);
  verify(true);

  const auto wrong = [&](std::vector<step_segment> segments) {
    auto tried = recorded(trained(50));
    tried.segments = std::move(segments);
    CHECK(reason_of(refused(tried)) == "mismatch");
  };
  wrong({});
  wrong({{model, 50, 53}});
  wrong({{model, 50, 55}});
  wrong({{model, 51, 54}});
  wrong({{later, 50, 54}});
  wrong({{model, 50, 52}, {later, 53, 54}});
  wrong({{model, 50, 52}, {later, 51, 54}});
  wrong({{model, 50, 50}, {later, 50, 54}});
  wrong({{model, 50, 52}, {later, 52, 52}, {model, 52, 54}});
  auto unasked = recorded(idle());
  unasked.segments = {{model, 0, 1}};
  CHECK(reason_of(refused(unasked)) == "mismatch");
}

TEST_CASE_FIXTURE(proof_fixture, "training begins at a checkpoint that is on disk") {
  auto proof = trained(0);
  proof.model_hash_start = digest_of("dreamt of");
  const auto why = refused(recorded(proof));
  CHECK(code_of(why) == errc::failed_precondition);
  CHECK(reason_of(why) == "unknown_checkpoint");
  // It may be claimed again once the checkpoint is there.
  done(note_checkpoint{architecture, digest_of("dreamt of"), 0});
  CHECK(done(recorded(proof)).steps_rewarded == 4);
}

TEST_CASE_FIXTURE(proof_fixture,
                  "a refused proof is kept with its reason, earns nothing and costs reputation") {
  for (int i = 0; i < 80; ++i)
    REQUIRE(book->apply(recorded(trained(static_cast<uint64_t>(i) * 4))));
  REQUIRE(!book->commit());
  const auto minted = book->totals().minted;
  auto bad = trained(1'000);
  const auto what = recorded(bad, "too_many_steps");
  const auto got = done(what);
  CHECK(got.reward.atto == 0);
  CHECK(got.steps_rewarded == 0);
  CHECK(done(what).replayed);
  auto accepted_now = what;
  accepted_now.refused.clear();
  CHECK(done(accepted_now).replayed);
  CHECK(book->totals().minted == minted);
  for (int i = 0; i < 19; ++i)
    REQUIRE(book->apply(recorded(trained(2'000), "too_old")));
  REQUIRE(!book->commit());
  // 80 of 100 were accepted: 1.08, after 0.006 x 1.6.
  CHECK(done(recorded(trained(1'000))).reward == 0.010368_neuro);
  CHECK(field_of(refused(recorded(trained(1'004), std::string(257, 'x')))) == "refused");
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "proofs of other nodes, other books and other hands are refused") {
  auto proof = trained(0);
  proof.chain_id = digest_of("another book");
  CHECK(code_of(refused(recorded(proof))) == errc::forbidden);
  CHECK(code_of(refused(recorded(proof, "chain_id"))) == errc::forbidden);
  proof = trained(0);
  proof.node_id = std::string(32, 'f');
  CHECK(code_of(refused(recorded(proof))) == errc::forbidden);
  proof = trained(0);
  proof.wallet = friend_address;
  CHECK(code_of(refused(recorded(proof))) == errc::forbidden);
  record_proof forged = recorded(trained(0));
  forged.proof = stranger.sign_as_node(proof_tag, forged.proof.payload);
  CHECK(field_of(refused(forged)) == "signature");
  forged = recorded(trained(0));
  forged.proof.payload.replace(forged.proof.payload.find("label_tokens=8192"), 17, "label_tokens=9192");
  CHECK(field_of(refused(forged)) == "signature");
  forged.proof.payload = "neuroshard-proof-v2\n";
  CHECK(field_of(refused(forged)) == "proof");
}

TEST_CASE_FIXTURE(proof_fixture, "a proof with numbers out of range is refused") {
  const auto try_with = [&](auto change) {
    auto proof = trained(0);
    change(proof);
    return field_of(refused(recorded(proof)));
  };
  CHECK(try_with([](work_proof& p) { p.epoch_id += 1; }) == "epoch_id");
  CHECK(try_with([](work_proof& p) {
          p.timestamp_us += 180'000'000;
          p.epoch_id += 3;
        }) == "epoch_id");
  CHECK(try_with([](work_proof& p) { p.layer_begin = 7; }) == "layer_end");
  CHECK(try_with([](work_proof& p) { p.layer_end = 65'537; }) == "layer_end");
  CHECK(try_with([](work_proof& p) { p.steps = 5; }) == "step_end");
  CHECK(try_with([](work_proof& p) { p.step_end = UINT64_MAX; }) == "step_end");
  CHECK(try_with([](work_proof& p) { p.step_begin = 5; }) == "step_end");
  CHECK(try_with([](work_proof& p) { p.label_tokens = 0; }) == "step_end");
  CHECK(try_with([](work_proof& p) { p.label_tokens = UINT64_MAX; }) == "label_tokens");
  CHECK(try_with([](work_proof& p) { p.model_hash_start.reset(); }) == "segments");
  auto what = recorded(trained(0));
  what.scarcity_ppm = 999'999;
  CHECK(field_of(refused(what)) == "scarcity_ppm");
  what.scarcity_ppm = 1'500'001;
  CHECK(field_of(refused(what)) == "scarcity_ppm");
  what.scarcity_ppm = 1'499'999;
  CHECK(done(what).reward == *from_atto_text("14399990400000000"));
}

TEST_CASE_FIXTURE(proof_fixture, "all parts of a proof together earn at most 100, a wallet 10,000 a day") {
  fund(1'000_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  clock->advance_days(1);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  const neuro_amount limit = *checked_add(book->totals().minted, 10'000_neuro);
  const auto big = [&](uint64_t step) {
    auto proof = trained(step);
    proof.label_tokens = 4'096'000'000ULL;
    return recorded(proof);
  };
  const auto what = big(0);
  const auto first = done(what);
  CHECK(first.reward == 100_neuro);
  CHECK(first.capped);
  CHECK(done(what).capped);
  for (uint64_t step = 4; book->totals().minted < limit; step += 4)
    REQUIRE(book->apply(big(step)));
  REQUIRE(!book->commit());
  CHECK(book->totals().minted == limit);
  const auto over = done(big(4'000));
  CHECK(over.reward.atto == 0);
  CHECK(over.capped);
  CHECK(over.steps_rewarded == 4);
  // What a cap cut off is not to be had by proving it again.
  clock->advance_days(1);
  CHECK(done(big(4'000)).steps_rewarded == 0);
  verify();
}

TEST_CASE_FIXTURE(proof_fixture, "the preimage of a commitment is kept for a day and belongs to its proof") {
  const std::string preimage = "neuroshard-gradient\n...";
  const auto kept = done(keep_commitment{preimage});
  CHECK(kept.commitment == digest_of(preimage));
  CHECK(done(keep_commitment{preimage}).commitment == kept.commitment);
  auto proof = trained(0);
  proof.gradient_commitment = kept.commitment;
  const auto got = done(recorded(proof));
  const auto count = [&](const std::string& where) {
    sqlite::connection db;
    REQUIRE(!db.open(options.path, sqlite::connection::mode::read_only));
    sqlite::statement read(db, ("SELECT count(*) FROM commitments " + where).c_str());
    auto row = read.query();
    REQUIRE(row.next());
    return row.integer(0);
  };
  CHECK(count("WHERE proof_id = x'" + got.proof_id + "'") == 1);
  next_minute(24 * 3'600 - 1);
  CHECK(count("") == 1);
  next_minute(61);
  CHECK(count("") == 0);
  CHECK(field_of(refused(keep_commitment{})) == "preimage");
  CHECK(field_of(refused(keep_commitment{std::string(1024 * 1024 + 1, 'x')})) == "preimage");
}

TEST_CASE("another instance of a wallet proves its work under its delegation") {
  book_fixture of;
  auto identity = node_identity::make(*parse_token("correct-horse"), 3, of.clock->us / 1'000);
  REQUIRE(identity);
  of.options.identity = std::make_shared<const node_identity>(std::move(*identity));
  of.open();
  of.done(note_checkpoint{architecture, kernels::sha256::of(std::string_view("weights")), 0});
  const auto proof = good_proof(*of.options.identity, of.book->chain_id(), architecture, of.clock->us);
  record_proof what;
  what.proof = of.options.identity->sign_as_node(proof_tag, canonical_payload(proof));
  what.segments = {{*proof.model_hash_start, proof.step_begin, proof.step_end}};
  auto bare = what;
  bare.proof.delegation.clear();
  CHECK(field_of(of.refused(bare)) == "signature");
  CHECK(of.done(what).reward == 0.0096_neuro);
  of.verify(true);
}
