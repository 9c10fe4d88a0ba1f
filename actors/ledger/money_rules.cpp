#include "actors/ledger/money_rules.hpp"

#include <algorithm>

namespace neuroshard::rules {

namespace {

using u128 = unsigned __int128;
constexpr uint64_t bp_whole = 10'000;
constexpr uint64_t slash_weight = 100;
constexpr uint64_t ms_per_minute = 60'000;

} // namespace

std::optional<neuro_amount> transfer_fee(const economics_params& params, neuro_amount amount) {
  auto fee = mul_ratio_up(amount, params.transfer_fee_bp, bp_whole);
  if (fee)
    fee->atto = std::max<u128>(fee->atto, 1);
  return fee;
}

u128 log2_q64(u128 num, u128 den) {
  u128 whole = 0;
  while (den <= num / 2) {
    den *= 2;
    ++whole;
  }
  // Now den <= num < 2 den: the mantissa num / den in [1, 2) with 63 bits after the point, by long division.
  uint64_t mantissa = 1;
  u128 rest = num - den;
  for (int bit = 0; bit < 63; ++bit) {
    rest *= 2;
    mantissa <<= 1;
    if (rest >= den) {
      rest -= den;
      mantissa |= 1;
    }
  }
  // Each squaring doubles the logarithm; where it passes 2, the next bit is 1.
  u128 fraction = 0;
  for (int bit = 0; bit < 64; ++bit) {
    const u128 square = static_cast<u128>(mantissa) * mantissa;
    const bool over = (square >> 127) != 0;
    mantissa = static_cast<uint64_t>(square >> (over ? 64 : 63));
    fraction = fraction << 1 | (over ? 1 : 0);
  }
  return whole << 64 | fraction;
}

uint64_t stake_multiplier_ppm(const economics_params& params, neuro_amount stake) {
  if (stake.atto == 0 || stake < params.min_stake || params.stake_unit.atto == 0)
    return one_ppm;
  const auto sum = checked_add(stake, params.stake_unit);
  if (!sum || (sum->atto >> 126) != 0)
    return one_ppm; // Out of reach: stakes and units are at most 10^12 NEURO.
  return one_ppm +
         static_cast<uint64_t>(log2_q64(sum->atto, params.stake_unit.atto) * params.stake_slope_ppm >> 64);
}

neuro_amount required_stake(const economics_params& params, uint64_t validators) {
  uint64_t needed = 0;
  for (const auto& tier : params.validator_tiers)
    if (validators >= tier.validators)
      needed = tier.stake_neuro;
  return {needed * atto_per_neuro};
}

std::optional<fee_split> split_fee(const economics_params& params, neuro_amount settled,
                                   std::span<const work_share> workers, bool pay_driver, bool pay_validator) {
  fee_split split;
  const auto burn = mul_ratio_up(settled, params.burn_bp, bp_whole);
  if (!burn)
    return std::nullopt;
  const auto rest = checked_sub(settled, *burn);
  if (!rest)
    return std::nullopt;
  const auto part = [&](uint64_t bp) { return *mul_ratio(*rest, bp, bp_whole); }; // bp <= 10,000: it fits
  if (pay_driver)
    split.driver = part(params.driver_bp);
  if (pay_validator)
    split.validator = part(params.validator_bp);
  const neuro_amount pool = part(params.worker_bp);
  uint64_t work = 0;
  for (const auto& worker : workers) {
    if (worker.credited > worker.counted || worker.counted > UINT64_MAX - work)
      return std::nullopt;
    work += worker.counted;
  }
  u128 paid = split.driver.atto + split.validator.atto;
  for (const auto& worker : workers) {
    split.workers.push_back(work == 0 ? neuro_amount{} : *mul_ratio(pool, worker.credited, work));
    paid += split.workers.back().atto;
  }
  split.burn = {settled.atto - paid};
  return split;
}

uint64_t freshness_ppm(uint64_t age_s) {
  constexpr uint64_t hour = 3'600, day = 24 * hour;
  if (age_s < hour)
    return one_ppm;
  if (age_s < day)
    return 700'000;
  return age_s < 7 * day ? 500'000 : 300'000;
}

uint64_t role_ppm(const economics_params& params, bool driver, bool validator, bool training) {
  return one_ppm + (driver ? params.role_driver_ppm : 0) + (validator ? params.role_validator_ppm : 0) +
         (training ? params.role_training_ppm : 0);
}

uint64_t reputation_ppm(const economics_params& params, uint64_t accepted, uint64_t rejected,
                        uint64_t slashes) {
  const u128 proofs = static_cast<u128>(accepted) + rejected;
  if (proofs < params.reputation_min_proofs)
    return one_ppm;
  return one_ppm + static_cast<uint64_t>(static_cast<u128>(params.reputation_ppm) * accepted /
                                         (proofs + static_cast<u128>(slash_weight) * slashes));
}

uint64_t scarcity_ppm(const economics_params& params, std::span<const uint64_t> replicas_of_held_layers,
                      uint64_t nodes) {
  if (replicas_of_held_layers.empty())
    return one_ppm;
  const u128 share = static_cast<u128>(nodes) * params.scarcity_share_bp / bp_whole;
  const u128 target = std::max<u128>({share, params.scarcity_min, 1});
  u128 missing = 0;
  for (const uint64_t replicas : replicas_of_held_layers)
    missing += target - std::clamp<u128>(replicas, 1, target);
  return one_ppm +
         static_cast<uint64_t>(params.scarcity_ppm * missing / (target * replicas_of_held_layers.size()));
}

std::optional<neuro_amount> training_base(const economics_params& params, uint64_t label_tokens,
                                          uint32_t layers, bool is_async, uint64_t age_s) {
  const u128 work = static_cast<u128>(label_tokens) * layers;
  if (work > UINT64_MAX)
    return std::nullopt;
  const auto base = mul_ratio(is_async ? params.async_per_batch : params.training_per_batch,
                              static_cast<uint64_t>(work), params.batch_tokens);
  return base && is_async ? mul_ratio(*base, freshness_ppm(age_s), one_ppm) : base;
}

std::optional<neuro_amount> uptime_base(const economics_params& params, uint64_t uptime_ms) {
  return mul_ratio(params.uptime_per_minute, uptime_ms, ms_per_minute);
}

std::optional<neuro_amount> multiplied(neuro_amount base, const multipliers& by) {
  std::optional<neuro_amount> amount = base;
  for (const uint64_t ppm : {by.stake_ppm, by.role_ppm, by.reputation_ppm, by.scarcity_ppm})
    if (amount)
      amount = mul_ratio(*amount, ppm, one_ppm);
  return amount;
}

} // namespace neuroshard::rules
