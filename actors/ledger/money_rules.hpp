#pragma once

#include "actors/ledger/economics_params.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/// The arithmetic of the economy (spec/economics.md): pure functions, no state, no time. Fees and the burn
/// round up, payouts round down, the leftover is burned. Functions answer nothing where a result would not
/// fit.
namespace neuroshard::rules {

inline constexpr uint64_t one_ppm = 1'000'000;

/// Fee of a transfer, paid on top: at least 1 atto.
std::optional<neuro_amount> transfer_fee(const economics_params& params, neuro_amount amount);

/// floor(log2(num / den) x 2^64) for 0 < den <= num < 2^126, by bit-by-bit squaring of a 64-bit mantissa: the
/// same on every machine.
unsigned __int128 log2_q64(unsigned __int128 num, unsigned __int128 den);

/// 1 + slope x log2(1 + stake / unit) in ppm, truncated; 1,000,000 below the minimum stake.
uint64_t stake_multiplier_ppm(const economics_params& params, neuro_amount stake);

/// Stake that a validator needs when there are `validators` of them.
neuro_amount required_stake(const economics_params& params, uint64_t validators);

/// What of a settled amount goes where. The parts sum to the whole.
struct fee_split {
  neuro_amount burn;
  neuro_amount driver;
  std::vector<neuro_amount> workers;
  neuro_amount validator;
};
/// Work of one worker: its part of the workers' share is credited / (sum of counted). credited <= counted.
struct work_share {
  uint64_t counted = 0;
  uint64_t credited = 0;
};
/// `pay_driver` and `pay_validator` false: that part is burned.
std::optional<fee_split> split_fee(const economics_params& params, neuro_amount settled,
                                   std::span<const work_share> workers, bool pay_driver, bool pay_validator);

/// Freshness of an asynchronous contribution by its age.
uint64_t freshness_ppm(uint64_t age_s);
/// 1.0 + what each role adds.
uint64_t role_ppm(const economics_params& params, bool driver, bool validator, bool training);
/// 1 + reputation_ppm x accepted / (accepted + rejected + 100 x slashes); 1.0 with too few proofs.
uint64_t reputation_ppm(const economics_params& params, uint64_t accepted, uint64_t rejected,
                        uint64_t slashes);
/// 1 + the mean over the held layers of scarcity x (T - replicas) / T where replicas fall short of the target
/// T = max(scarcity_min, floor(share x nodes)); truncated once, at the end. A held layer has at least one
/// replica, its holder's. 1.0 without layers.
uint64_t scarcity_ppm(const economics_params& params, std::span<const uint64_t> replicas_of_held_layers,
                      uint64_t nodes);

/// What multiplies a base amount, each step truncating.
struct multipliers {
  uint64_t stake_ppm = one_ppm;
  uint64_t role_ppm = one_ppm;
  uint64_t reputation_ppm = one_ppm;
  uint64_t scarcity_ppm = one_ppm;
};
/// base rate x label tokens x layers / batch_tokens, asynchronous work x its freshness.
std::optional<neuro_amount> training_base(const economics_params& params, uint64_t label_tokens,
                                          uint32_t layers, bool is_async, uint64_t age_s);
/// uptime_per_minute x uptime_ms / 60,000.
std::optional<neuro_amount> uptime_base(const economics_params& params, uint64_t uptime_ms);
std::optional<neuro_amount> multiplied(neuro_amount base, const multipliers& by);

} // namespace neuroshard::rules
