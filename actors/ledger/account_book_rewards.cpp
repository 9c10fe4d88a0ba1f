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

constexpr uint64_t steps_max = uint64_t{1} << 62;
constexpr uint64_t label_tokens_max = uint64_t{1} << 48;
constexpr uint32_t layers_max = 65'536;

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

caf::expected<checkpoint_noted> account_book::apply(const note_checkpoint& what) {
  return operate<checkpoint_noted>([&]() -> caf::expected<checkpoint_noted> {
    if (!is_lower_hex(what.architecture_id, 16))
      return refuse_field("architecture_id", "malformed", "An architecture id is 16 hex digits.");
    if (what.step > steps_max)
      return refuse_field("step", "out_of_range", "The step is out of range.");
    return checkpoint_noted{
        store_->note_checkpoint(what.architecture_id, what.model_hash, what.step, now_us_)};
  });
}

caf::expected<reward_result> account_book::apply(const reward_training& what) {
  return operate<reward_result>([&]() -> caf::expected<reward_result> {
    if (what.node_id != options_.identity->node_id()) {
      problem not_ours;
      not_ours.message = "A node mints for its own work only.";
      not_ours.field = "node_id";
      return refuse(errc::forbidden, std::move(not_ours));
    }
    if (!is_lower_hex(what.architecture_id, 16))
      return refuse_field("architecture_id", "malformed", "An architecture id is 16 hex digits.");
    if (!what.proof_id.empty() && !is_lower_hex(what.proof_id, 64))
      return refuse_field("proof_id", "malformed", "A proof id is 64 hex digits.");
    if (what.step_begin >= what.step_end || what.step_end > steps_max)
      return refuse_field("step_end", "out_of_range", "The range of steps is empty or out of range.");
    if (what.label_tokens == 0 || what.label_tokens > label_tokens_max || what.layers > layers_max)
      return refuse_field("label_tokens", "out_of_range", "Label tokens or layers are out of range.");
    if (what.scarcity_ppm < rules::one_ppm || what.scarcity_ppm > rules::one_ppm + params().scarcity_ppm)
      return refuse_field("scarcity_ppm", "out_of_range", "The scarcity multiplier is out of range.");

    reward_row row;
    row.type = reward_type::training;
    row.node_id = what.node_id;
    row.proof_id = what.proof_id;
    row.architecture_id = what.architecture_id;
    row.model_hash = what.model_hash_start;
    row.step_begin = what.step_begin;
    row.step_end = what.step_end;
    row.label_tokens = what.label_tokens;
    row.layers = what.layers;
    row.created_us = now_us_;
    if (const auto old = store_->same_claim(row))
      return reward_result{true,        old->transaction_id, old->amount, old->steps_rewarded,
                           old->capped, old->matures_us};
    if (!store_->knows_checkpoint(what.architecture_id, what.model_hash_start)) {
      problem unknown;
      unknown.message = "No checkpoint on disk has this model hash.";
      unknown.field = "model_hash_start";
      unknown.reason = "unknown_checkpoint";
      return refuse(errc::failed_precondition, std::move(unknown));
    }

    const auto free = free_ranges(what.step_begin, what.step_end, store_->overlapping(row));
    for (const auto& range : free)
      row.steps_rewarded += range.end - range.begin;
    if (row.steps_rewarded == 0)
      return reward_result{};
    // The tokens of a clipped claim are those of its share of the steps, rounded down.
    const auto tokens = mul_ratio({what.label_tokens}, row.steps_rewarded, what.step_end - what.step_begin);
    const auto base = rules::training_base(params(), static_cast<uint64_t>(tokens->atto), what.layers,
                                           what.is_async, what.contribution_age_s);
    const int64_t month_us = static_cast<int64_t>(params().reputation_days) * us_per_day;
    const auto proofs = store_->count_proofs(now_us_ - month_us);
    rules::multipliers by;
    by.stake_ppm = rules::stake_multiplier_ppm(params(), own().staked);
    by.role_ppm = rules::role_ppm(params(), what.driver, what.validator, true);
    by.reputation_ppm = rules::reputation_ppm(params(), proofs.accepted, proofs.rejected, proofs.slashes);
    by.scarcity_ppm = what.scarcity_ppm;
    const auto full = base ? rules::multiplied(*base, by) : std::nullopt;
    if (!full)
      return refuse_field("label_tokens", "overflow", "The reward does not fit.");

    // Caps: of one proof, and of what the wallet is minted on a UTC day. Fees earned are not minted.
    const int32_t today = day_of(now_us_);
    neuro_amount minted_today;
    for (const auto type :
         {reward_type::uptime, reward_type::training, reward_type::data, reward_type::validation})
      minted_today.atto += store_->reward_day(today, type).amount.atto; // Each at most the cap of a day.
    const auto left = [](neuro_amount cap, neuro_amount used) {
      return checked_sub(cap, used).value_or(neuro_amount{});
    };
    row.base = *base;
    row.amount = std::min({*full, left(params().max_per_proof, store_->rewarded_for_proof(what.proof_id)),
                           left(params().max_per_wallet_day, minted_today)});
    row.capped = row.amount < *full;
    row.matures_us = now_us_ + static_cast<int64_t>(params().maturity_s) * us_per_second;

    uint64_t seq = 0;
    if (row.amount.atto == 0) {
      row.state = reward_state::matured; // Nothing to come; the steps count as rewarded.
    } else {
      posting_set postings;
      postings.mint(row.amount).add(wallet_, account_part::pending, row.amount);
      reference_list refs = {{"type", to_string(row.type)},
                             {"architecture", row.architecture_id},
                             {"model", kernels::to_hex(row.model_hash)},
                             {"steps", std::to_string(row.step_begin) + "-" + std::to_string(row.step_end)}};
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
      auto day = store_->reward_day(today, row.type);
      day.amount.atto += row.amount.atto;
      ++day.proofs;
      store_->save_reward_day(today, row.type, day);
    }
    store_->insert_reward(row, own().id, seq, free);
    return reward_result{false,      row.transaction_id, row.amount, row.steps_rewarded,
                         row.capped, row.matures_us};
  });
}

caf::error account_book::release_due() {
  for (const auto& row : store_->open_unstakes()) {
    if (start_of_day(row.release_day) > now_us_)
      continue;
    posting_set postings;
    postings.take(wallet_, account_part::pending, row.amount)
        .add(wallet_, account_part::available, row.amount);
    const auto made = record({transaction_kind::unstake_release,
                              wallet_,
                              wallet_,
                              row.amount,
                              {},
                              {},
                              {},
                              {{"unstake", row.transaction_id}},
                              {}},
                             postings);
    if (!made)
      return made.error();
    store_->end_unstake(row.id, made->seq);
  }
  for (const auto& row : store_->pending_rewards()) {
    if (row.matures_us > now_us_)
      break; // They are sorted by their time.
    posting_set postings;
    postings.take(wallet_, account_part::pending, row.amount)
        .add(wallet_, account_part::available, row.amount);
    const auto made = record({transaction_kind::reward_mature,
                              wallet_,
                              wallet_,
                              row.amount,
                              {},
                              {},
                              {},
                              {{"reward", row.transaction_id}},
                              {}},
                             postings);
    if (!made)
      return made.error();
    store_->end_reward(row.id, reward_state::matured, made->seq);
  }
  return store_->fault();
}

} // namespace neuroshard
