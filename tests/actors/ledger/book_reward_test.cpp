#include "tests/actors/ledger/book_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct trained : book_fixture {
  digest model = digest_of("model");
  trained() {
    open();
    done(note_checkpoint{architecture, model, 0});
  }
};

} // namespace

TEST_CASE_FIXTURE(trained, "training is rewarded into pending and matures after ten minutes") {
  auto what = claim(0, 60, 60 * 4'096, 10, model);
  const auto got = done(what);
  // 60 batches on 10 layers are 0.3, and 0.1 more of it for training in this proof.
  CHECK(got.amount == 0.33_neuro);
  CHECK(got.steps_rewarded == 60);
  CHECK(!got.capped);
  CHECK(book->own().pending == 0.33_neuro);
  CHECK(book->totals().minted == 0.33_neuro);
  clock->advance_s(599);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(book->own().pending == 0.33_neuro);
  clock->advance_s(61);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  CHECK(book->own().pending.atto == 0);
  CHECK(book->own().available == 0.33_neuro);
  verify();
}

TEST_CASE_FIXTURE(trained, "the same steps are never paid twice, whatever happens in between") {
  const auto first = done(claim(0, 100, 409'600, 4, model));
  const auto again = done(claim(0, 100, 409'600, 4, model));
  CHECK(again.replayed);
  CHECK(again.transaction_id == first.transaction_id);
  CHECK(again.amount == first.amount);
  reopen();
  CHECK(done(claim(0, 100, 409'600, 4, model)).replayed);
  CHECK(book->totals().minted == first.amount);
  // Redone after a crash: the first half was paid.
  const auto half = done(claim(50, 150, 409'600, 4, model));
  CHECK(half.steps_rewarded == 50);
  CHECK(half.amount.atto == first.amount.atto / 2);
  CHECK(done(claim(20, 140, 409'600, 4, model)).amount.atto == 0);
  CHECK(book->totals().minted.atto == first.amount.atto * 3 / 2);
  verify();
}

TEST_CASE_FIXTURE(trained, "an overlapping claim earns for the steps between the paid ones") {
  done(claim(10, 20, 4'096, 1, model));
  done(claim(30, 40, 4'096, 1, model));
  done(claim(50, 60, 4'096, 1, model));
  const auto got = done(claim(0, 55, 55'000, 1, model));
  CHECK(got.steps_rewarded == 30);
  CHECK(done(claim(0, 60, 60'000, 1, model)).amount.atto == 0);
  CHECK(done(claim(60, 61, 1'000, 1, model)).steps_rewarded == 1);
  // Other weights at the start, or another architecture, are other work.
  const digest later = digest_of("later");
  done(note_checkpoint{architecture, later, 61});
  CHECK(done(claim(0, 10, 1'000, 1, later)).steps_rewarded == 10);
  verify();
}

TEST_CASE_FIXTURE(trained, "work begins at a checkpoint that is on disk") {
  const auto why = refused(claim(0, 10, 1'000, 1, digest_of("dreamt of")));
  CHECK(code_of(why) == errc::failed_precondition);
  CHECK(reason_of(why) == "unknown_checkpoint");
  CHECK(done(note_checkpoint{architecture, model, 0}).known_before);
}

TEST_CASE_FIXTURE(trained, "malformed and foreign claims are refused") {
  auto what = claim(0, 10, 1'000, 1, model);
  what.node_id = "ffffffffffffffffffffffffffffffff";
  CHECK(code_of(refused(what)) == errc::forbidden);
  CHECK(field_of(refused(claim(10, 10, 1'000, 1, model))) == "step_end");
  CHECK(field_of(refused(claim(10, 9, 1'000, 1, model))) == "step_end");
  CHECK(field_of(refused(claim(0, UINT64_MAX, 1'000, 1, model))) == "step_end");
  CHECK(field_of(refused(claim(0, 10, 0, 1, model))) == "label_tokens");
  CHECK(field_of(refused(claim(0, 10, UINT64_MAX, 1, model))) == "label_tokens");
  what = claim(0, 10, 1'000, 1, model);
  what.scarcity_ppm = 1'500'001;
  CHECK(field_of(refused(what)) == "scarcity_ppm");
  what = claim(0, 10, 1'000, 1, model);
  what.architecture_id = "XYZ";
  CHECK(field_of(refused(what)) == "architecture_id");
  what = claim(0, 10, 1'000, 1, model);
  what.proof_id = "short";
  CHECK(field_of(refused(what)) == "proof_id");
}

TEST_CASE_FIXTURE(trained, "roles, scarcity and freshness multiply in their order") {
  auto what = claim(0, 7, 4'095, 7, model);
  what.driver = true;
  what.validator = true;
  what.scarcity_ppm = 1'499'999;
  // 3499145507812500 x 1.6 x 1.499999, truncated at each step.
  CHECK(done(what).amount == *from_atto_text("8397943620117187"));
  auto late = claim(100, 110, 4'096, 3, model);
  late.is_async = true;
  late.contribution_age_s = 7'200;
  CHECK(done(late).amount == *from_atto_text("693000000000000"));
}

TEST_CASE_FIXTURE(trained, "a proof earns at most 100, a wallet at most 10,000 a day") {
  const auto big = [&](uint64_t step) { return claim(step, step + 1, 4'096'000'000ULL, 1'000, model); };
  const auto first = done(big(0));
  CHECK(first.amount == 100_neuro);
  CHECK(first.capped);
  auto parts = big(1);
  parts.proof_id = std::string(64, 'a');
  CHECK(done(parts).amount == 100_neuro);
  parts.step_begin = 2;
  parts.step_end = 3;
  CHECK(done(parts).amount.atto == 0);
  for (uint64_t step = 10; book->totals().minted < 10'000_neuro; ++step)
    REQUIRE(book->apply(big(step)));
  REQUIRE(!book->commit());
  CHECK(book->totals().minted == 10'000_neuro);
  const auto over = done(big(1'000));
  CHECK(over.amount.atto == 0);
  CHECK(over.capped);
  CHECK(over.transaction_id.empty());
  // What a cap cut off is not to be had by asking again, nor the next day.
  clock->advance_days(1);
  CHECK(done(big(1'000)).amount.atto == 0);
  CHECK(done(big(1'001)).amount == 100_neuro);
  verify();
}

TEST_CASE_FIXTURE(trained, "a stake raises what training earns") {
  fund(1'000_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  CHECK(done(claim(0, 60, 60 * 4'096, 10, model)).amount == 0.363_neuro);
}
