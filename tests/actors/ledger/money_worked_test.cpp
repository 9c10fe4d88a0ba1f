// Every line below was worked out by worked_values.py with exact fractions, without any of the node's code.
#include "actors/ledger/money_rules.hpp"

#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::rules;

namespace {

const economics_params defaults;

} // namespace

TEST_CASE("fees agree with exact fractions") {
  const struct {
    const char *amount, *fee;
  } rows[] = {
      {"1", "1"},
      {"999", "1"},
      {"1000", "1"},
      {"1001", "2"},
      {"1999", "2"},
      {"2000", "2"},
      {"2001", "3"},
      {"250000000000000000000", "250000000000000000"},
      {"250000000000000000001", "250000000000000001"},
      {"100000000000000000000000007", "100000000000000000000001"},
      {"123456789012345678901234567", "123456789012345678901235"},
      {"61386558989539", "61386558990"},
      {"47482338707189014918", "47482338707189015"},
      {"749967893862216099400612716", "749967893862216099400613"},
      {"79765941936", "79765942"},
      {"3542090", "3543"},
      {"143463599811262702", "143463599811263"},
  };
  for (const auto& row : rows) {
    CAPTURE(std::string(row.amount));
    const auto fee = transfer_fee(defaults, *from_atto_text(row.amount));
    REQUIRE(fee);
    CHECK(to_atto_text(*fee) == row.fee);
  }
}

TEST_CASE("reputation agrees with exact fractions") {
  const struct {
    uint64_t accepted, rejected, slashes, ppm;
  } rows[] = {
      {0, 99, 0, 1000000},    {99, 0, 0, 1000000},    {100, 0, 0, 1100000},    {99, 1, 0, 1099000},
      {0, 100, 0, 1000000},   {33, 67, 0, 1033000},   {100, 0, 1, 1050000},    {5183, 17, 0, 1099673},
      {5183, 17, 3, 1094236}, {43200, 0, 0, 1100000}, {43199, 1, 12, 1097295}, {1, 99, 43200, 1000000},
  };
  for (const auto& row : rows) {
    CAPTURE(row.accepted);
    CAPTURE(row.slashes);
    CHECK(reputation_ppm(defaults, row.accepted, row.rejected, row.slashes) == row.ppm);
  }
}

TEST_CASE("what roles add is a sum") {
  const struct {
    bool driver, validator, training;
    uint64_t ppm;
  } rows[] = {
      {false, false, false, 1000000}, {true, false, false, 1200000}, {false, true, false, 1300000},
      {true, true, false, 1500000},   {false, false, true, 1100000}, {true, false, true, 1300000},
      {false, true, true, 1400000},   {true, true, true, 1600000},
  };
  for (const auto& row : rows)
    CHECK(role_ppm(defaults, row.driver, row.validator, row.training) == row.ppm);
}

TEST_CASE("scarcity agrees with exact fractions") {
  const struct {
    std::vector<uint64_t> replicas;
    uint64_t nodes, ppm;
  } rows[] = {
      {{3, 2, 1, 2, 1, 2, 1}, 7, 1214285},
      {{2, 2, 1}, 1, 1222222},
      {{3, 1, 2, 3, 3, 2, 3, 2, 3, 1, 1, 2}, 1, 1138888},
      {{1}, 1, 1333333},
      {{1617}, 54321, 1351159},
      {{9, 5, 2}, 137, 1294871},
      {{6, 3, 7}, 99, 1203703},
      {{17, 13, 18, 4, 17, 9, 14}, 137, 1071428},
      {{4, 3, 3}, 31, 1000000},
      {{94, 6459, 3402}, 54321, 1226067},
      {{7}, 99, 1111111},
      {{3}, 29, 1000000},
  };
  for (const auto& row : rows) {
    CAPTURE(row.nodes);
    CAPTURE(row.ppm);
    CHECK(scarcity_ppm(defaults, row.replicas, row.nodes) == row.ppm);
  }
}

TEST_CASE("uptime agrees with exact fractions") {
  const struct {
    uint64_t milliseconds;
    const char* amount;
  } rows[] = {
      {1, "1666666666"},           {2, "3333333333"},          {3, "5000000000"},
      {59, "98333333333"},         {1000, "1666666666666"},    {59999, "99998333333333"},
      {60000, "100000000000000"},  {60001, "100001666666666"}, {119999, "199998333333333"},
      {120000, "200000000000000"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.milliseconds);
    CHECK(to_atto_text(*uptime_base(defaults, row.milliseconds)) == row.amount);
  }
}

TEST_CASE("whole rewards agree with exact fractions, cut at each step") {
  const struct {
    uint64_t tokens;
    uint32_t layers;
    bool is_async;
    uint64_t age_s;
    multipliers by;
    const char* amount;
  } rows[] = {
      {7822385, 23, true, 86399, {1313372, 1600000, 1094236, 1166666}, "24745238620316098218"},
      {9888105, 4, false, 0, {1313372, 1300000, 1094236, 1166666}, "10523780059014149660"},
      {9943385, 39, true, 86399, {1158496, 1300000, 1100000, 1166666}, "38426897914239883414"},
      {6193376, 39, true, 3600, {1313372, 1300000, 1100000, 1166666}, "27134494342287640364"},
      {9550565, 44, true, 0, {1313372, 1600000, 1100000, 1309523}, "93165817607691505122"},
      {4519416, 16, true, 86399, {1158496, 1600000, 1094236, 1309523}, "9846917491755513510"},
      {1627766, 7, true, 86399, {1313372, 1600000, 1100000, 1166666}, "1575419882702891662"},
      {2840119, 6, true, 86399, {1158496, 1600000, 1094236, 1166666}, "2067374693982713028"},
      {3775341, 8, false, 0, {1158496, 1300000, 1100000, 1166666}, "7125795349636647523"},
      {5706094, 42, false, 0, {1313372, 1600000, 1100000, 1166666}, "78894228041654933551"},
  };
  for (const auto& row : rows) {
    CAPTURE(row.tokens);
    const auto base = training_base(defaults, row.tokens, row.layers, row.is_async, row.age_s);
    REQUIRE(base);
    const auto amount = multiplied(*base, row.by);
    REQUIRE(amount);
    CHECK(to_atto_text(*amount) == row.amount);
  }
}
