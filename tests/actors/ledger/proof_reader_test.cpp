#include "tests/actors/ledger/proof_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

TEST_CASE_FIXTURE(proof_fixture, "proofs are shown newest first, by type, with their sums") {
  const auto empty = reader()->proofs(10, 0, {});
  REQUIRE(empty);
  CHECK(empty->total == 0);
  CHECK(empty->items.empty());
  CHECK(!*reader()->last_closed_epoch());
  std::vector<std::string> ids;
  for (uint64_t i = 0; i < 3; ++i) {
    ids.push_back(done(recorded(trained(i * 4))).proof_id);
    next_minute();
  }
  auto resting = idle();
  resting.layer_begin = resting.layer_end = 0;
  ids.push_back(done(recorded(resting)).proof_id);
  next_minute();
  ids.push_back(done(recorded(trained(100), "too_many_steps")).proof_id);
  next_minute();

  const auto all = reader()->proofs(3, 0, {});
  REQUIRE(all);
  CHECK(all->total == 5);
  REQUIRE(all->items.size() == 3);
  CHECK(all->items[0].id == ids[4]);
  CHECK(!all->items[0].verified);
  CHECK(all->items[0].reason == "too_many_steps");
  CHECK(all->items[0].reward.atto == 0);
  CHECK(all->items[1].id == ids[3]);
  CHECK(all->items[1].type == proof_type::uptime);
  CHECK(!all->items[1].first_layer);
  CHECK(all->items[2].id == ids[2]);
  CHECK(all->items[2].verified);
  CHECK(all->items[2].type == proof_type::training);
  CHECK(all->items[2].first_layer == 0);
  CHECK(all->items[2].reward == 0.0096_neuro);
  const auto rest = reader()->proofs(3, 3, {});
  REQUIRE(rest);
  CHECK(rest->items.size() == 2);
  CHECK(rest->items[1].id == ids[0]);
  const auto training = reader()->proofs(100, 1, proof_type::training);
  REQUIRE(training);
  CHECK(training->total == 4);
  CHECK(training->items.size() == 3);
  CHECK(reader()->proofs(100, 0, proof_type::data)->total == 0);
  CHECK(field_of(reader()->proofs(0, 0, {}).error()) == "limit");
  CHECK(field_of(reader()->proofs(101, 0, {}).error()) == "limit");
  CHECK(field_of(reader()->proofs(1, UINT64_MAX, {}).error()) == "offset");

  const auto stats = reader()->proof_stats();
  REQUIRE(stats);
  CHECK(stats->total_submitted == 5);
  CHECK(stats->total_verified == 4);
  CHECK(stats->total_reward == 0.0288_neuro);
  const auto closed = *reader()->last_closed_epoch();
  REQUIRE(closed);
  CHECK(closed->end_us <= clock->us - 10 * us_per_second);
  CHECK(closed->id == static_cast<uint64_t>(closed->end_us / epoch_us) - 1);
  verify(true);
}

TEST_CASE_FIXTURE(proof_fixture, "the reward rate is of proofs, whatever parts they have") {
  fund(1'000_neuro);
  done(stake_neuro{1'000_neuro, 30, {}});
  clock->advance_days(2);
  REQUIRE(book->run_due());
  REQUIRE(!book->commit());
  done(recorded(trained(0)));
  done(recorded(trained(4)));
  done(recorded(trained(8), "too_old"));
  const auto rate = reader()->reward_rate(true, true, true);
  REQUIRE(rate);
  CHECK(rate->base_rate == 0.0061_neuro); // 0.0001 of uptime and 0.006 of training each
  CHECK(rate->estimated_hourly.atto == rate->effective_rate.atto * 2);
}
