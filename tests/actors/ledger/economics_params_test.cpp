#include "actors/ledger/economics_params.hpp"

#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;

TEST_CASE("the defaults are in order and read back from their canonical text") {
  const economics_params params;
  CHECK(check_params(params).key.empty());
  economics_params back;
  back.price_per_token = {7};
  back.validator_tiers.clear();
  REQUIRE(read_canonical_params(canonical_params(params), back));
  CHECK(back == params);
  CHECK(canonical_params(params).starts_with(
      "neuroshard-params-v1\nprice_per_token=100000000000000\ntransfer_fee_bp=10\n"));
}

TEST_CASE("every parameter is part of the hash") {
  const auto plain = params_hash({});
  int changed = 0;
  economics_params probe;
  for_each_param(probe, [&](std::string_view key, auto& value) {
    CAPTURE(std::string(key));
    const auto before = value;
    using value_type = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<value_type, neuro_amount>)
      value.atto += 1;
    else if constexpr (std::is_same_v<value_type, bool>)
      value = !value;
    else if constexpr (std::is_same_v<value_type, uint64_t>)
      value += 1;
    else
      value.back().stake_neuro += 1;
    CHECK(params_hash(probe) != plain);
    value = before;
    ++changed;
  });
  CHECK(changed == 44);
  CHECK(params_hash(probe) == plain);
}

TEST_CASE("a value out of its range names its key") {
  const auto fault = [](auto change) {
    economics_params params;
    change(params);
    return check_params(params).key;
  };
  CHECK(fault([](auto& p) {
          p.price_per_token.atto = static_cast<unsigned __int128>(1'000'000'000'001) * atto_per_neuro;
        }) == "price_per_token");
  CHECK(fault([](auto& p) { p.transfer_fee_bp = 10'001; }) == "transfer_fee_bp");
  CHECK(fault([](auto& p) { p.stake_slope_ppm = 10'000'001; }) == "stake_slope_ppm");
  CHECK(fault([](auto& p) { p.maturity_s = 0; }) == "maturity_s");
  CHECK(fault([](auto& p) { p.driver_bp = 1'501; }) == "worker_bp");
  CHECK(fault([](auto& p) { p.validator_tiers.clear(); }) == "validator_tiers");
  CHECK(fault([](auto& p) { p.validator_tiers = {{0, 0}, {3, 100}, {3, 200}}; }) == "validator_tiers");
  CHECK(fault([](auto& p) { p.min_stake = {20'000'000 * atto_per_neuro}; }) == "max_stake");
  CHECK(fault([](auto& p) { p.default_lock_days = 6; }) == "default_lock_days");
}

TEST_CASE("a canonical text that is cut or changed does not read") {
  const std::string text = canonical_params({});
  economics_params out;
  for (size_t cut = 0; cut < text.size(); ++cut)
    CHECK(!read_canonical_params(std::string_view(text).substr(0, cut), out));
  CHECK(!read_canonical_params(text + "x", out));
  std::string swapped = text;
  swapped.replace(swapped.find("burn_bp"), 7, "bern_bp");
  CHECK(!read_canonical_params(swapped, out));
}
