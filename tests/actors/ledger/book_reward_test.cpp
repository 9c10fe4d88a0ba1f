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
  const auto got = done(claim(0, 60, 60 * 4'096, 10, model));
  // 60 batches on 10 layers are 0.3, and 0.1 more of it for training in this proof.
  CHECK(got.reward == 0.33_neuro);
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
  const auto what = claim(0, 100, 409'600, 4, model);
  const auto first = done(what);
  const auto again = done(what);
  CHECK(again.replayed);
  CHECK(again.proof_id == first.proof_id);
  CHECK(again.reward == first.reward);
  CHECK(again.steps_rewarded == 100);
  reopen();
  CHECK(done(what).replayed);
  CHECK(book->totals().minted == first.reward);
  CHECK(done(claim(0, 100, 409'600, 4, model)).reward.atto == 0); // another proof of the same steps
  // Redone after a crash: the first half was paid.
  const auto half = done(claim(50, 150, 409'600, 4, model));
  CHECK(half.steps_rewarded == 50);
  CHECK(half.reward.atto == first.reward.atto / 2);
  CHECK(done(claim(20, 140, 409'600, 4, model)).reward.atto == 0);
  CHECK(book->totals().minted.atto == first.reward.atto * 3 / 2);
  verify();
}

TEST_CASE_FIXTURE(trained, "an overlapping claim earns for the steps between the paid ones") {
  done(claim(10, 20, 4'096, 1, model));
  done(claim(30, 40, 4'096, 1, model));
  done(claim(50, 60, 4'096, 1, model));
  const auto got = done(claim(0, 55, 55'000, 1, model));
  CHECK(got.steps_rewarded == 30);
  CHECK(done(claim(0, 60, 60'000, 1, model)).reward.atto == 0);
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

TEST_CASE_FIXTURE(trained, "roles, scarcity and freshness multiply in their order") {
  auto proof = training(0, 7, 4'095, 7, model);
  proof.has_embedding = proof.has_lm_head = true;
  auto what = recorded(proof);
  what.scarcity_ppm = 1'499'999;
  // 3499145507812500 x 1.6 x 1.499999, truncated at each step.
  CHECK(done(what).reward == *from_atto_text("8397943620117187"));
  auto late = training(100, 110, 4'096, 3, model);
  late.is_async = true;
  late.contribution_age_s = 7'200;
  CHECK(done(recorded(late)).reward == *from_atto_text("693000000000000"));
}

TEST_CASE_FIXTURE(trained, "a proof earns at most 100, a wallet at most 10,000 a day") {
  const auto big = [&](uint64_t step) { return claim(step, step + 1, 4'096'000'000ULL, 1'000, model); };
  const auto first = done(big(0));
  CHECK(first.reward == 100_neuro);
  CHECK(first.capped);
  for (uint64_t step = 10; book->totals().minted < 10'000_neuro; ++step)
    REQUIRE(book->apply(big(step)));
  REQUIRE(!book->commit());
  CHECK(book->totals().minted == 10'000_neuro);
  const auto over = big(1'000);
  const auto seq = book->head().seq;
  const auto nothing = done(over);
  CHECK(nothing.reward.atto == 0);
  CHECK(nothing.capped);
  CHECK(book->head().seq == seq);
  // What a cap cut off is not to be had by asking again, nor the next day.
  clock->advance_days(1);
  CHECK(done(over).reward.atto == 0);
  CHECK(done(big(1'000)).reward.atto == 0);
  CHECK(done(big(1'001)).reward == 100_neuro);
  verify();
}

TEST_CASE_FIXTURE(trained, "a day of capped rewards agrees with exact fractions") {
  // Made by worked_values.py: a cap of 100 a proof, and of 430 and one atto a day.
  const struct {
    uint64_t tokens, layers;
    const char* amount;
    bool capped;
  } rows[] = {
      {27839683, 32, "100000000000000000000", true},
      {10500510, 70, "98698641357421875000", false},
      {5164171, 47, "32591264733886718750", false},
      {18058817, 15, "36373349670410156250", false},
      {24458451, 10, "32842158325195312500", false},
      {9791506, 26, "34184212841796875000", false},
      {22515016, 34, "95310373071289062501", true},
      {6771578, 19, "0", true},
      {22652836, 11, "0", true},
  };
  options.params.max_per_wallet_day = *checked_add(430_neuro, {1});
  reopen();
  clock->advance_s(60); // From the next minute on.
  uint64_t step = 0;
  for (const auto& row : rows) {
    CAPTURE(row.tokens);
    const auto got = done(claim(step, step + 1, row.tokens, row.layers, model));
    ++step;
    CHECK(to_atto_text(got.reward) == row.amount);
    CHECK(got.capped == row.capped);
  }
  verify();
}

TEST_CASE_FIXTURE(trained, "the parts of one proof share its cap") {
  fund(1'100_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  const auto day = day_of(clock->us);
  const auto before = reader()->rewards(day, day)->by_type;
  auto proof = training(0, 1, 4'096'000'000ULL, 1'000, model);
  proof.uptime_ms = 60'000;
  const auto got = done(recorded(proof));
  CHECK(got.reward == 100_neuro);
  CHECK(got.capped);
  const auto after = reader()->rewards(day, day)->by_type;
  CHECK(after.at(reward_type::uptime).atto - before.at(reward_type::uptime).atto == 121'000'000'000'000ULL);
  CHECK(after.at(reward_type::training).atto - before.at(reward_type::training).atto ==
        (100_neuro).atto - 121'000'000'000'000ULL);
  verify();
}

TEST_CASE_FIXTURE(trained, "a stake raises what training earns") {
  fund(1'000_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  CHECK(done(claim(0, 60, 60 * 4'096, 10, model)).reward == 0.363_neuro);
}
