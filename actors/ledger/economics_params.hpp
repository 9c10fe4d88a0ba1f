#pragma once

#include "actors/common/money.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard {

/// From `validators` validators on, `stake` NEURO is asked of a new one.
struct validator_tier {
  uint64_t validators = 0;
  uint64_t stake_neuro = 0;
  friend bool operator==(const validator_tier&, const validator_tier&) = default;
};

/// Every constant of the economy; each member is the key of its name under `economics.` (spec/network.md
/// section 9). Amounts in atto,
/// `_bp` in 1/10,000, `_ppm` in 1/1,000,000, `_s` in seconds, `_days` in days.
struct economics_params {
  neuro_amount price_per_token{atto_per_neuro / 10'000};
  uint64_t transfer_fee_bp = 10;
  neuro_amount min_stake{1'000 * atto_per_neuro};
  neuro_amount max_stake{10'000'000 * atto_per_neuro};
  uint64_t min_lock_days = 7;
  uint64_t max_lock_days = 365;
  uint64_t default_lock_days = 30;
  uint64_t cooldown_days = 7;
  neuro_amount stake_unit{1'000 * atto_per_neuro};
  uint64_t stake_slope_ppm = 100'000;
  std::vector<validator_tier> validator_tiers{{0, 0},    {3, 100},    {11, 250},
                                              {51, 500}, {201, 1000}, {1001, 2500}};
  uint64_t burn_bp = 500;
  uint64_t driver_bp = 1'500;
  uint64_t worker_bp = 7'000;
  uint64_t validator_bp = 1'500;
  neuro_amount uptime_per_minute{atto_per_neuro / 10'000};
  neuro_amount training_per_batch{5 * atto_per_neuro / 10'000};
  neuro_amount async_per_batch{3 * atto_per_neuro / 10'000};
  uint64_t batch_tokens = 4'096;
  neuro_amount data_per_sample{atto_per_neuro / 100'000};
  uint64_t data_samples_per_minute = 1'000;
  uint64_t role_driver_ppm = 200'000;
  uint64_t role_validator_ppm = 300'000;
  uint64_t role_training_ppm = 100'000;
  uint64_t reputation_ppm = 100'000;
  uint64_t reputation_days = 30;
  uint64_t reputation_min_proofs = 100;
  uint64_t scarcity_ppm = 500'000;
  uint64_t scarcity_min = 3;
  uint64_t scarcity_share_bp = 1'000;
  neuro_amount max_per_proof{100 * atto_per_neuro};
  neuro_amount max_per_wallet_day{10'000 * atto_per_neuro};
  uint64_t maturity_s = 600;
  uint64_t reservation_s = 600;
  uint64_t proof_max_age_s = 300;
  uint64_t proof_max_ahead_s = 60;
  uint64_t proofs_per_hour = 120;
  uint64_t tokens_per_minute = 1'000'000;
  uint64_t steps_per_minute = 2'000;
  uint64_t speed_slack_bp = 12'000;
  neuro_amount slash_invalid_proof{10 * atto_per_neuro};
  neuro_amount slash_conflict{1'000 * atto_per_neuro};
  bool slash_spot_check = false;
  neuro_amount slash_spot_check_amount{1'000 * atto_per_neuro};

  friend bool operator==(const economics_params&, const economics_params&) = default;
};

/// Calls visit(key, member) for every member, in the order of the canonical text. Members are neuro_amount,
/// uint64_t, bool or std::vector<validator_tier>; `params` may be const or not.
template <class Params, class Visitor>
void for_each_param(Params& params, Visitor&& visit);

/// The first key whose value is out of its range, with what is allowed; empty when all are in order. Ranges:
/// amounts 0 - 10^12 NEURO, shares 0 - 10,000, ppm 0 - 10^7, days, seconds and counts 1 - 10^6; the three
/// shares of a fee sum to 10,000.
struct params_fault {
  std::string key;
  std::string allowed;
};
params_fault check_params(const economics_params& params);

/// Canonical text: the domain tag `neuroshard-params-v1`, then key=value lines (integers, amounts in atto,
/// tiers as n:s.n:s).
std::string canonical_params(const economics_params& params);
/// Reads canonical_params; false when the text is not one.
bool read_canonical_params(std::string_view text, economics_params& out);
/// SHA-256 of the canonical text: `economics_hash` of NodeInfo, `params_hash` of the genesis record and of
/// epochs.
kernels::digest params_hash(const economics_params& params);

template <class Params, class Visitor>
void for_each_param(Params& p, Visitor&& visit) {
#define NEUROSHARD_PARAM(name) visit(std::string_view(#name), p.name)
  NEUROSHARD_PARAM(price_per_token);
  NEUROSHARD_PARAM(transfer_fee_bp);
  NEUROSHARD_PARAM(min_stake);
  NEUROSHARD_PARAM(max_stake);
  NEUROSHARD_PARAM(min_lock_days);
  NEUROSHARD_PARAM(max_lock_days);
  NEUROSHARD_PARAM(default_lock_days);
  NEUROSHARD_PARAM(cooldown_days);
  NEUROSHARD_PARAM(stake_unit);
  NEUROSHARD_PARAM(stake_slope_ppm);
  NEUROSHARD_PARAM(validator_tiers);
  NEUROSHARD_PARAM(burn_bp);
  NEUROSHARD_PARAM(driver_bp);
  NEUROSHARD_PARAM(worker_bp);
  NEUROSHARD_PARAM(validator_bp);
  NEUROSHARD_PARAM(uptime_per_minute);
  NEUROSHARD_PARAM(training_per_batch);
  NEUROSHARD_PARAM(async_per_batch);
  NEUROSHARD_PARAM(batch_tokens);
  NEUROSHARD_PARAM(data_per_sample);
  NEUROSHARD_PARAM(data_samples_per_minute);
  NEUROSHARD_PARAM(role_driver_ppm);
  NEUROSHARD_PARAM(role_validator_ppm);
  NEUROSHARD_PARAM(role_training_ppm);
  NEUROSHARD_PARAM(reputation_ppm);
  NEUROSHARD_PARAM(reputation_days);
  NEUROSHARD_PARAM(reputation_min_proofs);
  NEUROSHARD_PARAM(scarcity_ppm);
  NEUROSHARD_PARAM(scarcity_min);
  NEUROSHARD_PARAM(scarcity_share_bp);
  NEUROSHARD_PARAM(max_per_proof);
  NEUROSHARD_PARAM(max_per_wallet_day);
  NEUROSHARD_PARAM(maturity_s);
  NEUROSHARD_PARAM(reservation_s);
  NEUROSHARD_PARAM(proof_max_age_s);
  NEUROSHARD_PARAM(proof_max_ahead_s);
  NEUROSHARD_PARAM(proofs_per_hour);
  NEUROSHARD_PARAM(tokens_per_minute);
  NEUROSHARD_PARAM(steps_per_minute);
  NEUROSHARD_PARAM(speed_slack_bp);
  NEUROSHARD_PARAM(slash_invalid_proof);
  NEUROSHARD_PARAM(slash_conflict);
  NEUROSHARD_PARAM(slash_spot_check);
  NEUROSHARD_PARAM(slash_spot_check_amount);
#undef NEUROSHARD_PARAM
}

} // namespace neuroshard
