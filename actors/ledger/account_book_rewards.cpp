// Minting for training done here, and what matures or is released with time (spec/economics.md sections 5 and
// 9).
#include "actors/identity/keys.hpp"
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/money_rules.hpp"
#include "actors/ledger/posting_set.hpp"
#include "actors/ledger/utc_date.hpp"

#include <algorithm>

namespace neuroshard {

namespace {

/// What of [begin, end) lies outside the taken ranges, which are ascending and may reach beyond it.
std::vector<step_range> free_ranges(uint64_t begin, uint64_t end, const std::vector<step_range>& taken) {
  std::vector<step_range> free;
  uint64_t at = begin;
  for (const auto& range : taken) {
    if (range.begin > at)
      free.push_back({at, std::min(range.begin, end)});
    at = std::max(at, range.end);
  }
  if (at < end)
    free.push_back({at, end});
  return free;
}

} // namespace

caf::error refuse_unknown_checkpoint() {
  problem unknown;
  unknown.message = "No checkpoint on disk has this model hash.";
  unknown.field = "model_hash_start";
  unknown.reason = "unknown_checkpoint";
  return refuse(errc::failed_precondition, std::move(unknown));
}

caf::expected<checkpoint_noted> account_book::apply(const note_checkpoint& what) {
  return operate<checkpoint_noted>([&]() -> caf::expected<checkpoint_noted> {
    if (!is_lower_hex(what.architecture_id, 16))
      return refuse_field("architecture_id", "malformed", "An architecture id is 16 hex digits.");
    if (what.step > steps_max)
      return refuse_field("step", "out_of_range", "The step is out of range.");
    return checkpoint_noted{
        store().note_checkpoint(what.architecture_id, what.model_hash, what.step, now_us_)};
  });
}

uint64_t account_book::earning::steps_rewarded() const {
  uint64_t steps = 0;
  for (const auto& part : rewarded)
    steps += part.step_end - part.step_begin;
  return steps;
}

rules::multipliers account_book::multipliers(bool driver, bool validator, bool training,
                                             uint64_t scarcity_ppm) {
  const int64_t month_us = static_cast<int64_t>(params().reputation_days) * us_per_day;
  const auto proofs = store().count_proofs(now_us_ - month_us);
  rules::multipliers by;
  by.stake_ppm = rules::stake_multiplier_ppm(params(), own().staked);
  by.role_ppm = rules::role_ppm(params(), driver, validator, training);
  by.reputation_ppm = rules::reputation_ppm(params(), proofs.accepted, proofs.rejected, proofs.slashes);
  by.scarcity_ppm = scarcity_ppm;
  return by;
}

caf::error account_book::weigh_training(earning& of, bool is_async, uint64_t age_s,
                                        const rules::multipliers& by) {
  of.type = reward_type::training;
  uint64_t steps = 0;
  for (const auto& segment : of.claimed) {
    steps += segment.step_end - segment.step_begin;
    const auto taken = store().overlapping(options_.identity->node_id(), of.architecture_id, segment);
    for (const auto& range : free_ranges(segment.step_begin, segment.step_end, taken))
      of.rewarded.push_back({segment.model_hash, range.begin, range.end});
  }
  if (of.rewarded.empty())
    return store().fault();
  // The tokens of a clipped claim are those of its share of the steps, rounded down.
  const auto tokens = mul_ratio({of.label_tokens}, of.steps_rewarded(), steps);
  const auto base =
      rules::training_base(params(), static_cast<uint64_t>(tokens->atto), of.layers, is_async, age_s);
  const auto full = base ? rules::multiplied(*base, by) : std::nullopt;
  if (!full)
    return refuse_field("label_tokens", "overflow", "The reward does not fit.");
  of.base = *base;
  of.full = *full;
  return store().fault();
}

caf::expected<reward_row> account_book::mint(const earning& of, const std::string& proof_id) {
  reward_row row;
  row.type = of.type;
  row.node_id = options_.identity->node_id();
  row.proof_id = proof_id;
  row.architecture_id = of.architecture_id;
  if (!of.claimed.empty()) {
    row.model_hash = of.claimed.front().model_hash;
    row.step_begin = of.claimed.front().step_begin;
    row.step_end = of.claimed.back().step_end;
  }
  row.label_tokens = of.label_tokens;
  row.layers = of.layers;
  row.steps_rewarded = of.steps_rewarded();
  row.base = of.base;
  row.created_us = now_us_;
  row.matures_us = now_us_ + static_cast<int64_t>(params().maturity_s) * us_per_second;

  // Caps: of one proof, and of what the wallet is minted on a UTC day. Fees earned are not minted.
  const int32_t today = day_of(now_us_);
  neuro_amount minted_today;
  for (const auto type :
       {reward_type::uptime, reward_type::training, reward_type::data, reward_type::validation})
    minted_today.atto += store().reward_day(today, type).amount.atto; // Each at most the cap of a day.
  const auto left = [](neuro_amount cap, neuro_amount used) {
    return checked_sub(cap, used).value_or(neuro_amount{});
  };
  neuro_amount of_proof;
  for (const auto& other : store().rewards_of_proof(proof_id))
    of_proof.atto += other.amount.atto; // At most the cap of a proof.
  row.amount = std::min(
      {of.full, left(params().max_per_proof, of_proof), left(params().max_per_wallet_day, minted_today)});
  row.capped = row.amount < of.full;

  uint64_t seq = 0;
  if (row.amount.atto == 0) {
    row.state = reward_state::matured; // Nothing to come; the steps count as rewarded.
  } else {
    posting_set postings;
    postings.mint(row.amount).add(wallet_, account_part::pending, row.amount);
    reference_list refs = {{"type", to_string(row.type)}};
    if (!of.claimed.empty())
      refs.emplace_back("architecture", row.architecture_id);
    for (const auto& segment : of.claimed) {
      refs.emplace_back("model", kernels::to_hex(segment.model_hash));
      refs.emplace_back("steps", std::to_string(segment.step_begin) + "-" + std::to_string(segment.step_end));
    }
    if (!row.proof_id.empty())
      refs.emplace_back("proof", row.proof_id);
    const auto made = record({transaction_kind::reward,
                              std::string(mint_account),
                              wallet_,
                              row.amount,
                              {},
                              {},
                              {},
                              std::move(refs),
                              history_type::reward},
                             postings);
    if (!made)
      return made.error();
    seq = made->seq;
    row.transaction_id = kernels::to_hex(made->id);
    auto day = store().reward_day(today, row.type);
    day.amount.atto += row.amount.atto;
    ++day.proofs;
    store().save_reward_day(today, row.type, day);
  }
  store().insert_reward(row, own().id, seq, of.rewarded);
  return row;
}

caf::error account_book::release_due() {
  for (const auto& row : store().open_unstakes()) {
    if (start_of_day(row.release_day) > now_us_)
      continue;
    posting_set postings;
    postings.take(wallet_, account_part::pending, row.left())
        .add(wallet_, account_part::available, row.left());
    const auto made = record({transaction_kind::unstake_release,
                              wallet_,
                              wallet_,
                              row.left(),
                              {},
                              {},
                              {},
                              {{"unstake", row.transaction_id}},
                              {}},
                             postings);
    if (!made)
      return made.error();
    store().end_unstake(row.id, made->seq);
  }
  for (const auto& row : store().pending_rewards()) {
    if (row.matures_us > now_us_)
      break; // They are sorted by their time.
    posting_set postings;
    postings.take(wallet_, account_part::pending, row.left())
        .add(wallet_, account_part::available, row.left());
    const auto made = record({transaction_kind::reward_mature,
                              wallet_,
                              wallet_,
                              row.left(),
                              {},
                              {},
                              {},
                              {{"reward", row.transaction_id}},
                              {}},
                             postings);
    if (!made)
      return made.error();
    store().end_reward(row.id, reward_state::matured, made->seq);
  }
  return store().fault();
}

} // namespace neuroshard
