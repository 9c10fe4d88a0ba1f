// What the model test does with work: proofs, receipts, offences.
#include "actors/ledger/merkle.hpp"
#include "tests/actors/ledger/model_run.hpp"

#include <algorithm>

namespace neuroshard::testing {

namespace {

constexpr size_t remembered = 24;

template <class Row>
void remember(std::vector<Row>& in, Row what) {
  if (in.size() >= remembered)
    in.erase(in.begin());
  in.push_back(std::move(what));
}

} // namespace

/// A part of a proof's reward, as the caps leave it.
plain_book::u128 model_run::mint(const std::string& proof, u128 full, u128 of_proof) {
  const u128 amount = std::min(full, plain.cap(of_proof));
  plain.minted += amount;
  plain.minted_on[plain.today()] += amount;
  if (amount > 0) {
    plain.rewards.push_back({amount, plain.now_us + 600 * plain_book::second, proof});
    ++plain.transactions;
  }
  return amount;
}

/// A confirmed receipt for work of this node that another wallet drove.
digest model_run::work_for_other() {
  const auto& driver = helpers[below(helpers.size())];
  const auto blob =
      signed_by(*options.identity,
                work_for(*options.identity, driver, "session-" + std::to_string(random()), 2, 1 + below(99)));
  const auto kept = book->apply(record_receipt{blob, countersigned_by(driver, blob)});
  REQUIRE(kept);
  REQUIRE(kept->confirmed);
  plain.last_work_us = plain.now_us;
  return kept->receipt_id;
}

/// Ranges of steps that overlap at random, until a checkpoint's steps are paid and the next one is noted;
/// with or without uptime, roles, receipts. Now and then an old proof again.
void model_run::prove() {
  const auto hash = [](uint64_t number) { return digest_of("model " + std::to_string(number)); };
  if (!plain.model_noted || one_in(400)) {
    if (plain.model_noted) {
      ++plain.model;
      plain.paid_steps.assign(plain_book::steps_of_model, false);
    }
    REQUIRE(book->apply(note_checkpoint{architecture, hash(plain.model), plain.model}));
    plain.model_noted = true;
  }
  if (!plain.proofs.empty() && one_in(8)) {
    const auto& old = plain.proofs[below(plain.proofs.size())];
    const auto again = book->apply(old.what);
    REQUIRE(again);
    REQUIRE(again->replayed);
    REQUIRE(again->proof_id == old.id);
    REQUIRE(again->reward.atto == old.reward);
    REQUIRE(again->steps_rewarded == old.steps);
    ++replays;
    return;
  }
  const uint64_t begin = below(plain_book::steps_of_model - 30), steps = 1 + below(30),
                 layers = 1 + below(120);
  auto proof = training(begin, begin + steps, 1 + below(3'000'000) * 1'000, layers, hash(plain.model));
  proof.timestamp_us = plain.now_us;
  proof.epoch_id = static_cast<uint64_t>(plain.now_us / epoch_us);
  proof.has_embedding = one_in(2);
  proof.has_lm_head = one_in(3);
  const bool trained = !one_in(6), foreign = one_in(50);
  if (!trained)
    proof.label_tokens = proof.steps = proof.step_begin = proof.step_end = 0;
  if (foreign)
    proof.model_hash_start = hash(plain.model + 1);
  if (one_in(2))
    proof.uptime_ms = below(120'001);
  std::vector<digest> receipts;
  if (one_in(6))
    receipts.push_back(work_for_other());
  proof.receipts_root = merkle_root(receipts);
  proof.receipt_count = receipts.size();
  auto what = recorded(proof);
  what.receipts = receipts;
  what.scarcity_ppm = one_in(2) ? 1'000'000 : 1'000'000 + below(500'001);
  const auto got = book->apply(what);
  if (foreign && trained) {
    REQUIRE(!got);
    REQUIRE(reason_of(got.error()) == "unknown_checkpoint");
    return;
  }
  REQUIRE(got);
  REQUIRE(!got->replayed);
  // The multipliers are those of before this proof.
  const uint64_t role = 10 + (proof.has_embedding ? 2 : 0) + (proof.has_lm_head ? 3 : 0) + (trained ? 1 : 0);
  u128 earned = 0;
  uint64_t fresh = 0;
  bool capped = false;
  const u128 uptime = proof.uptime_ms > 0 && (plain.staked > 0 || !receipts.empty())
                          ? plain.multiplied(plain_book::worth_of_uptime(proof.uptime_ms), role,
                                             what.scarcity_ppm, options.params)
                          : 0;
  u128 worth = 0;
  for (uint64_t step = proof.step_begin; step < proof.step_end; ++step) {
    fresh += plain.paid_steps[step] ? 0 : 1;
    plain.paid_steps[step] = true;
  }
  if (fresh > 0)
    worth = plain.multiplied(plain_book::worth(proof.label_tokens, proof.steps, fresh, layers), role,
                             what.scarcity_ppm, options.params);
  for (const u128 full : {uptime, worth}) {
    const u128 part = mint(got->proof_id, full, earned);
    capped = capped || part < full;
    earned += part;
  }
  REQUIRE(got->steps_rewarded == fresh);
  REQUIRE(got->reward.atto == earned);
  REQUIRE(got->capped == capped);
  plain.last_work_us = plain.now_us;
  plain.all_proofs.push_back({proof.timestamp_us, true, got->proof_id});
  remember(plain.proofs, {what, got->proof_id, earned, fresh, false, 0, 0});
}

/// The keeper refused it: kept, earns nothing, counts against the reputation.
void model_run::refuse_proof() {
  auto proof = training(1, 3, 4'096, 1, digest_of("any"));
  proof.timestamp_us = plain.now_us;
  proof.epoch_id = static_cast<uint64_t>(plain.now_us / epoch_us);
  const auto got = book->apply(recorded(proof, "rate"));
  REQUIRE(got);
  REQUIRE(got->reward.atto == 0);
  plain.all_proofs.push_back({proof.timestamp_us, false, got->proof_id});
  REQUIRE(reason_of(book->apply(void_reward{got->proof_id, "loss"}).error()) == "refused");
}

void model_run::void_one() {
  if (plain.proofs.empty())
    return;
  auto& which = plain.proofs[below(plain.proofs.size())];
  const auto voided = book->apply(void_reward{which.id, one_in(2) ? "loss" : "gradient"});
  REQUIRE(voided);
  REQUIRE(voided->known_before == which.refuted);
  if (!which.refuted) {
    std::erase_if(plain.rewards, [&](const auto& each) {
      const bool its = each.proof == which.id;
      which.burned += its ? each.amount : 0;
      plain.transactions += its ? 1 : 0;
      return its;
    });
    plain.burned += which.burned;
    which.refuted = true;
    for (auto& each : plain.all_proofs)
      each.accepted = each.accepted && each.id != which.id;
  } else {
    ++replays;
  }
  REQUIRE(voided->burned.atto == which.burned);
  REQUIRE(voided->matured.atto == which.matured);
}

/// Mostly small ones; a conflict costs a stake.
void model_run::offend() {
  if (!plain.offences.empty() && one_in(5)) {
    const auto& old = plain.offences[below(plain.offences.size())];
    const auto again = book->apply(old.what);
    REQUIRE(again);
    REQUIRE(again->known_before);
    REQUIRE(again->transaction_id == old.transaction);
    REQUIRE(again->slashed.atto == old.slashed);
    ++replays;
    return;
  }
  const bool other = one_in(6);
  const auto which = one_in(12)  ? offence_class::conflict
                     : one_in(4) ? offence_class::failed_spot_check
                                 : offence_class::refuted_proof;
  const record_offence what{which, options.identity->node_id(), other ? a_friend() : me(),
                            "evidence " + std::to_string(random())};
  const auto got = book->apply(what);
  REQUIRE(got);
  REQUIRE(!got->known_before);
  const auto last = plain.last_slash_us.find(which);
  const int64_t cooldown = (which == offence_class::conflict ? 24 : 1) * 3'600 * plain_book::second;
  const bool slashes = !other && which != offence_class::failed_spot_check &&
                       (last == plain.last_slash_us.end() || plain.now_us - last->second >= cooldown);
  const u128 taken = slashes ? plain.slash((which == offence_class::conflict ? 1'000 : 10) * unit) : 0;
  if (slashes) {
    plain.slashes.push_back(plain.now_us);
    plain.last_slash_us[which] = plain.now_us;
  }
  REQUIRE(got->slashed.atto == taken);
  REQUIRE(got->transaction_id.empty() == !slashes);
  remember(plain.offences, {what, got->transaction_id, taken});
}

/// Another node's receipt for a part in one of this node's generations; sent twice now and then.
void model_run::drive_others() {
  const uint64_t number = some_id();
  const auto& helper = helpers[below(helpers.size())];
  auto& kept = plain.receipts[{number, helper.address()}];
  const bool known = !kept.receipt_id.empty();
  if (!known) {
    const auto what = work_for(helper, *options.identity, id_of(number), 1 + static_cast<uint32_t>(below(8)),
                               1 + below(200));
    kept.worker_blob = signed_by(helper, what);
    kept.driver_blob = countersigned_by(*options.identity, kept.worker_blob);
    kept.address = helper.address();
    kept.work = what.work();
  }
  const auto got = book->apply(record_receipt{kept.worker_blob, kept.driver_blob});
  REQUIRE(got);
  REQUIRE(got->known_before == known);
  REQUIRE(got->confirmed);
  kept.receipt_id = kernels::to_hex(got->receipt_id);
  if (!known)
    plain.last_work_us = plain.now_us;
}

} // namespace neuroshard::testing
