// Proofs of this node's work: kept, and paid for once (spec/economics.md section 9).
#include "actors/ledger/account_book.hpp"
#include "actors/ledger/merkle.hpp"
#include "actors/ledger/posting_set.hpp"

#include <algorithm>
#include <set>

namespace neuroshard {

namespace {

constexpr size_t preimage_bytes_max = 1024 * 1024;
/// Those of a day's proofs, and of the last hours' pieces of work that none began with.
constexpr uint64_t commitments_max = 8'192;
constexpr size_t refused_bytes_max = 256;
constexpr size_t segments_max = 1'024;
constexpr size_t receipts_max = 16'384;

caf::error refuse_foreign(const char* field, const char* message) {
  problem what;
  what.message = message;
  what.field = field;
  return refuse(errc::forbidden, std::move(what));
}

proof_row row_of(const record_proof& what, const work_proof& proof, const digest& id) {
  proof_row row;
  row.id = id;
  row.node_id = proof.node_id;
  row.wallet = proof.wallet;
  row.type = type_of(proof);
  if (proof.layer_begin < proof.layer_end)
    row.first_layer = proof.layer_begin;
  row.timestamp_us = proof.timestamp_us;
  row.nonce = proof.nonce;
  row.epoch_id = proof.epoch_id;
  row.uptime_begin_us = proof.uptime_begin_us();
  row.accepted = what.refused.empty();
  row.reason = what.refused;
  row.proof = what.proof;
  return row;
}

} // namespace

caf::expected<commitment_kept> account_book::apply(const keep_commitment& what) {
  return operate<commitment_kept>([&]() -> caf::expected<commitment_kept> {
    if (what.preimage.empty() || what.preimage.size() > preimage_bytes_max)
      return refuse_field("preimage", "out_of_range", "A preimage has 1 byte to 1 MiB.");
    auto& proofs = store().proofs();
    if (proofs.count_commitments() >= commitments_max) {
      proofs.forget_commitments(now_us_ - commitments_kept_us);
      if (proofs.count_commitments() >= commitments_max)
        return refuse(errc::overloaded, "Too many gradient commitments are kept.");
    }
    const digest commitment = kernels::sha256::of(std::string_view(what.preimage));
    proofs.keep_commitment(commitment, what.preimage, now_us_);
    return commitment_kept{commitment};
  });
}

caf::expected<proof_result> account_book::apply(const record_proof& what) {
  return operate<proof_result>([&]() -> caf::expected<proof_result> {
    const auto proof = read_proof(what.proof.payload);
    if (!proof)
      return refuse_field("proof", "malformed", "These bytes are no proof.");
    // An id is of the payload alone: a signature can be given another form, a proof cannot.
    const digest id = proof_id_of(what.proof.payload);
    const std::string name = kernels::to_hex(id);
    auto& proofs = store().proofs();
    if (const auto old = proofs.answer(id))
      return proof_result{true, name, old->reward, old->steps_rewarded, old->capped};
    if (auto failed = check_signer(what, *proof))
      return failed;
    if (proofs.knows_nonce(proof->node_id, proof->nonce))
      return refuse_field("nonce", "replayed", "Another proof of this node has this nonce.");

    proof_row row = row_of(what, *proof, id);
    proof_result result{false, name, {}, 0, false};
    if (row.accepted) {
      if (auto failed = check_work(what, *proof))
        return failed;
      const auto worked_for_others = check_receipts(what, *proof);
      if (!worked_for_others)
        return worked_for_others.error();
      const auto parts = weigh(what, *proof, *worked_for_others);
      if (!parts)
        return parts.error();
      for (const auto& part : *parts) {
        const auto reward = mint(part, name);
        if (!reward)
          return reward.error();
        row.reward.atto += reward->amount.atto; // At most the cap of a proof.
        result.steps_rewarded += reward->steps_rewarded;
        result.capped = result.capped || reward->capped;
      }
      result.reward = row.reward;
    }
    proofs.insert(row);
    if (!row.accepted)
      return result;
    looked_at_epoch_ = std::min(looked_at_epoch_, static_cast<int64_t>(proof->epoch_id) - 1);
    for (const auto& receipt : what.receipts)
      proofs.put_receipt(receipt, id);
    if (proof->gradient_commitment)
      proofs.put_commitment(*proof->gradient_commitment, id);
    return result;
  });
}

caf::error account_book::check_signer(const record_proof& what, const work_proof& proof) {
  if (what.refused.size() > refused_bytes_max)
    return refuse_field("refused", "too_long", "The reason of a refusal is longer than 256 bytes.");
  if (proof.chain_id != chain_id_)
    return refuse_foreign("chain_id", "This proof is of another book.");
  if (proof.node_id != options_.identity->node_id() || proof.wallet != wallet_)
    return refuse_foreign("node_id", "A node records and mints for its own work only.");
  // The delegation of a node key has to have been in force when the proof was made.
  const auto signer = verify_blob(what.proof, proof_tag, proof.timestamp_us / 1'000);
  if (!signer || signer->node_id != proof.node_id || signer->address != wallet_)
    return refuse_foreign("signature", "This proof is not signed by this node.");
  return {};
}

caf::error account_book::check_work(const record_proof& what, const work_proof& proof) {
  if (proof.epoch_id != static_cast<uint64_t>(proof.timestamp_us / epoch_us) ||
      proof.epoch_id > static_cast<uint64_t>(now_us_ / epoch_us) + 1)
    return refuse_field("epoch_id", "out_of_range", "This is not the epoch of the proof's time.");
  if (last_epoch_ && proof.timestamp_us < last_epoch_->end_us) {
    problem closed;
    closed.message = "The epoch of this proof is closed.";
    closed.field = "epoch_id";
    closed.reason = "epoch_closed";
    return refuse(errc::failed_precondition, std::move(closed));
  }
  if (what.scarcity_ppm < rules::one_ppm || what.scarcity_ppm > rules::one_ppm + params().scarcity_ppm)
    return refuse_field("scarcity_ppm", "out_of_range", "The scarcity multiplier is out of range.");
  if (proof.layer_begin > proof.layer_end || proof.layer_end > layers_max)
    return refuse_field("layer_end", "out_of_range", "The range of layers is out of range.");
  if (proof.step_begin > proof.step_end || proof.step_end > steps_max ||
      proof.steps != proof.step_end - proof.step_begin || (proof.label_tokens == 0) != (proof.steps == 0))
    return refuse_field("step_end", "out_of_range", "The range of steps is empty or out of range.");
  if (proof.label_tokens > label_tokens_max)
    return refuse_field("label_tokens", "out_of_range", "The number of label tokens is out of range.");

  const auto wrong = [] {
    return refuse_field("segments", "mismatch",
                        "The segments are not the proof's steps from its first model hash on.");
  };
  if (what.segments.size() > segments_max)
    return refuse_field("segments", "too_many", "A proof has at most 1,024 segments.");
  uint64_t at = proof.step_begin;
  for (const auto& segment : what.segments) {
    if (segment.step_begin != at || segment.step_end <= segment.step_begin)
      return wrong();
    at = segment.step_end;
  }
  if (at != proof.step_end)
    return wrong();
  if (what.segments.empty())
    return {};
  if (!proof.model_hash_start || *proof.model_hash_start != what.segments.front().model_hash)
    return wrong();
  if (!store().knows_checkpoint(proof.architecture_id, *proof.model_hash_start))
    return refuse_unknown_checkpoint();
  return {};
}

/// Whether one of them is counter-signed by another wallet.
caf::expected<bool> account_book::check_receipts(const record_proof& what, const work_proof& proof) {
  if (what.receipts.size() > receipts_max)
    return refuse_field("receipts", "too_many", "A proof has at most 16,384 receipts.");
  if (what.receipts.size() != proof.receipt_count || merkle_root(what.receipts) != proof.receipts_root)
    return refuse_field("receipts", "mismatch", "These are not the receipts of the proof.");
  bool for_others = false;
  std::set<digest> seen;
  for (const auto& id : what.receipts) {
    const auto receipt = store().proofs().receipt(id);
    if (!receipt || !receipt->own || !receipt->confirmed || !seen.insert(id).second)
      return refuse_field("receipts", "unconfirmed",
                          "A receipt of the proof is not held with both signatures.");
    if (receipt->in_proof)
      return refuse_field("receipts", "proven", "A receipt of the proof is in another proof.");
    for_others = for_others || receipt->driver_wallet != wallet_;
  }
  return for_others;
}

caf::expected<std::vector<account_book::earning>>
account_book::weigh(const record_proof& what, const work_proof& proof, bool worked_for_others) {
  // Section 9 adds 0.1 for "training in this proof": a property of the proof, so it holds for each of its
  // parts. Work for others counts in the minute it is proven in, and a book keeps no proof that holds a
  // receipt a second time.
  const bool trained = proof.label_tokens > 0;
  const auto by = multipliers(proof.has_embedding, proof.has_lm_head, trained, what.scarcity_ppm);
  std::vector<earning> parts;
  if (proof.uptime_ms > 0 && (own().staked.atto > 0 || worked_for_others)) {
    earning uptime;
    uptime.type = reward_type::uptime;
    const auto base = rules::uptime_base(params(), proof.uptime_ms);
    const auto full = base ? rules::multiplied(*base, by) : std::nullopt;
    if (!full)
      return refuse_field("uptime_ms", "overflow", "The reward does not fit.");
    uptime.base = *base;
    uptime.full = *full;
    parts.push_back(std::move(uptime));
  }
  if (trained) {
    earning training;
    training.architecture_id = proof.architecture_id;
    training.claimed = what.segments;
    training.label_tokens = proof.label_tokens;
    training.layers = static_cast<uint32_t>(proof.layer_end - proof.layer_begin);
    if (auto failed = weigh_training(training, proof.is_async, proof.contribution_age_s, by))
      return failed;
    if (!training.rewarded.empty())
      parts.push_back(std::move(training));
  }
  // Whatever of it the caps leave will fit into every balance: each is below what was minted.
  neuro_amount sum = totals_.minted;
  for (const auto& part : parts) {
    const auto more = checked_add(sum, std::min(part.full, params().max_per_proof));
    if (!more)
      return refuse_field("proof", "overflow", "The reward does not fit.");
    sum = *more;
  }
  return parts;
}

} // namespace neuroshard
