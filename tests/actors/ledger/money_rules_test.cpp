#include "actors/ledger/money_rules.hpp"

#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::rules;

namespace {

const economics_params params;

neuro_amount atto(std::string_view digits) {
  return *from_atto_text(digits);
}

} // namespace

TEST_CASE("a transfer costs a thousandth, rounded up, at least one atto") {
  CHECK(transfer_fee(params, {250 * atto_per_neuro})->atto == atto_per_neuro / 4);
  CHECK(transfer_fee(params, {1})->atto == 1);
  CHECK(transfer_fee(params, {1000})->atto == 1);
  CHECK(transfer_fee(params, {1001})->atto == 2);
  economics_params free = params;
  free.transfer_fee_bp = 0;
  CHECK(transfer_fee(free, {5'000})->atto == 1);
}

TEST_CASE("the stake multiplier is that of the table") {
  // Worked out by worked_values.py; the rows of the specification are among them.
  const struct {
    uint64_t stake;
    uint64_t ppm;
  } rows[] = {{0, 1000000},      {1000, 1100000},   {1001, 1100072},    {2000, 1158496},
              {5000, 1258496},   {10000, 1345943},  {15000, 1400000},   {50000, 1567242},
              {100000, 1665821}, {123457, 1695950}, {1000000, 1996722}, {10000000, 2328785}};
  for (const auto& row : rows) {
    CAPTURE(row.stake);
    CHECK(stake_multiplier_ppm(params, {row.stake * atto_per_neuro}) == row.ppm);
  }
  CHECK(stake_multiplier_ppm(params, {1000 * atto_per_neuro - 1}) == 1'000'000);
  economics_params odd = params;
  odd.stake_unit = {};
  CHECK(stake_multiplier_ppm(odd, {5000 * atto_per_neuro}) == 1'000'000);
}

TEST_CASE("the logarithm is exact at powers of two and rises in between") {
  for (unsigned i = 0; i < 100; ++i)
    CHECK(log2_q64(static_cast<unsigned __int128>(3) << i, 3) == static_cast<unsigned __int128>(i) << 64);
  unsigned __int128 last = 0;
  for (uint64_t x = 1; x < 3'000; ++x) {
    const auto now = log2_q64(x, 1);
    CHECK(now >= last);
    last = now;
  }
  // log2(3) x 2^64 = 2^64 + 10790653543520307103.86...
  const auto three = log2_q64(3, 1) - (static_cast<unsigned __int128>(1) << 64);
  CHECK(three > 10'790'653'543'520'307'103ULL - 64);
  CHECK(three <= 10'790'653'543'520'307'103ULL);
}

TEST_CASE("the parts of a fee sum to the whole, leftovers burned") {
  const auto split =
      split_fee(params, {16'800'000'000'000'000ULL}, std::vector<work_share>{{1, 1}}, true, true);
  REQUIRE(split);
  CHECK(to_decimal(split->burn) == "0.00084");
  CHECK(to_decimal(split->driver) == "0.002394");
  CHECK(to_decimal(split->workers[0]) == "0.011172");
  CHECK(to_decimal(split->validator) == "0.002394");
  const struct {
    const char* settled;
    std::vector<work_share> work;
    const char *burn, *driver, *validator;
    std::vector<const char*> workers;
  } rows[] = {
      {"79542917",
       {{387927, 316628}, {497082, 328057}},
       "18341056",
       "11334865",
       "11334865",
       {"18924516", "19607615"}},
      {"8655808914197340074",
       {{577540, 245713}, {201059, 187996}, {493108, 283626}},
       "2942038123114045952",
       "1233452770273120960",
       "1233452770273120960",
       {"1112167956819631982", "850924156272820461", "1283773137444599759"}},
      {"457864990636001457",
       {{243188, 166424}, {158988, 137148}},
       "97544565104800631",
       "65245761165630207",
       "65245761165630207",
       {"125996618219555437", "103832284980384975"}},
      {"269471624858", {{167143, 154953}}, "26542817205", "38399706542", "38399706542", {"166129394569"}},
      {"39", {{863577, 282519}}, "21", "5", "5", {"8"}},
      {"7115027476355804",
       {{981034, 140665}, {921559, 383275}, {102189, 4703}, {142574, 129730}},
       "3636582799203129",
       "1013891415380701",
       "1013891415380701",
       {"309941854575793", "844509752337376", "10362610045640", "285847629432464"}},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.settled));
    const auto made = split_fee(params, atto(row.settled), row.work, true, true);
    REQUIRE(made);
    CHECK(made->burn == atto(row.burn));
    CHECK(made->driver == atto(row.driver));
    CHECK(made->validator == atto(row.validator));
    REQUIRE(made->workers.size() == row.workers.size());
    unsigned __int128 sum = made->burn.atto + made->driver.atto + made->validator.atto;
    for (size_t i = 0; i < row.workers.size(); ++i) {
      CHECK(made->workers[i] == atto(row.workers[i]));
      sum += made->workers[i].atto;
    }
    CHECK(sum == atto(row.settled).atto);
  }
}

TEST_CASE("whoever is not paid has his part burned") {
  const neuro_amount settled{1'000'000};
  const auto all = split_fee(params, settled, {}, false, false);
  CHECK(all->burn == settled);
  const auto one = split_fee(params, settled, std::vector<work_share>{{10, 0}, {10, 10}}, true, true);
  CHECK(one->workers[0].atto == 0);
  CHECK(one->workers[1].atto == 332'500);
  CHECK(split_fee(params, {0}, {}, true, true)->burn.atto == 0);
  CHECK(split_fee(params, {1}, std::vector<work_share>{{1, 1}}, true, true)->burn.atto == 1);
  CHECK(!split_fee(params, settled, std::vector<work_share>{{1, 2}}, true, true));
  CHECK(!split_fee(params, settled, std::vector<work_share>{{UINT64_MAX, 1}, {UINT64_MAX, 1}}, true, true));
}

TEST_CASE("training rewards are those worked out by hand") {
  CHECK(to_decimal(*training_base(params, 60 * 4096, 10, false, 0)) == "0.3");
  CHECK(training_base(params, 1, 1, false, 0)->atto == 122'070'312'500ULL);
  CHECK(multiplied(*training_base(params, 4095, 7, false, 0), {1'345'943, 1'600'000, 1'087'654, 1'499'999})
            ->atto == 12'293'920'040'635'084ULL);
  CHECK(multiplied(*training_base(params, 4096, 3, true, 7'200), {1'100'000, 1'100'000, 1'000'000, 1'000'000})
            ->atto == 762'300'000'000'000ULL);
  CHECK(!training_base(params, UINT64_MAX, 2, false, 0));
  CHECK(training_base(params, 0, 5, false, 0)->atto == 0);
}

TEST_CASE("freshness falls in steps") {
  CHECK(freshness_ppm(0) == 1'000'000);
  CHECK(freshness_ppm(3'599) == 1'000'000);
  CHECK(freshness_ppm(3'600) == 700'000);
  CHECK(freshness_ppm(86'399) == 700'000);
  CHECK(freshness_ppm(86'400) == 500'000);
  CHECK(freshness_ppm(604'799) == 500'000);
  CHECK(freshness_ppm(604'800) == 300'000);
}

TEST_CASE("role and reputation multiply as specified") {
  CHECK(role_ppm(params, true, true, true) == 1'600'000);
  CHECK(role_ppm(params, false, false, false) == 1'000'000);
  CHECK(reputation_ppm(params, 99, 0, 0) == 1'000'000);
  CHECK(reputation_ppm(params, 100, 0, 0) == 1'100'000);
  CHECK(reputation_ppm(params, 90, 10, 0) == 1'090'000);
  CHECK(reputation_ppm(params, 100, 0, 1) == 1'050'000);
  CHECK(reputation_ppm(params, 0, 0, 0) == 1'000'000);
}

TEST_CASE("scarce layers pay more, as worked out by hand") {
  const auto of = [](std::vector<uint64_t> replicas, uint64_t nodes) {
    return scarcity_ppm(params, replicas, nodes);
  };
  // The target is 3 replicas up to 39 nodes, a tenth of the nodes from 40 on.
  CHECK(of({1}, 1) == 1'333'333);
  CHECK(of({2}, 39) == 1'166'666);
  CHECK(of({3}, 39) == 1'000'000);
  CHECK(of({3}, 40) == 1'125'000);
  CHECK(of({3}, 49) == 1'125'000);
  CHECK(of({1, 2, 3, 4}, 10) == 1'125'000);
  CHECK(of({1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 9}, 30) == 1'257'575);
  CHECK(of({7, 93, 100, 250}, 1'007) == 1'125'000);
  CHECK(of({1}, 1'000'000) == 1'499'995);
  // Nobody holds nothing of a layer that he holds; no layers, no scarcity; enormous numbers stay in range.
  CHECK(of({0}, 1) == of({1}, 1));
  CHECK(of({}, 100) == 1'000'000);
  CHECK(of({UINT64_MAX, 1}, UINT64_MAX) == 1'249'999);
  CHECK(of(std::vector<uint64_t>(65'536, 1), UINT64_MAX) == 1'499'999);
}

TEST_CASE("uptime is paid by the millisecond, truncated to the atto") {
  CHECK(to_decimal(*uptime_base(params, 60'000)) == "0.0001");
  CHECK(uptime_base(params, 1)->atto == 1'666'666'666ULL);
  CHECK(uptime_base(params, 59'999)->atto == 99'998'333'333'333ULL);
  CHECK(uptime_base(params, 0)->atto == 0);
  economics_params dear = params;
  dear.uptime_per_minute = {~static_cast<unsigned __int128>(0)};
  CHECK(!uptime_base(dear, 60'001));
}

TEST_CASE("validators need the stake of their tier") {
  const auto needed = [](uint64_t validators) {
    return required_stake(params, validators).atto / atto_per_neuro;
  };
  CHECK(needed(0) == 0);
  CHECK(needed(2) == 0);
  CHECK(needed(3) == 100);
  CHECK(needed(10) == 100);
  CHECK(needed(11) == 250);
  CHECK(needed(51) == 500);
  CHECK(needed(201) == 1'000);
  CHECK(needed(1'000) == 1'000);
  CHECK(needed(1'001) == 2'500);
}
