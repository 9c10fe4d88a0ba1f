#include "actors/proof_keeper/proof_checks.hpp"

#include "actors/ledger/merkle.hpp"

#include <array>

namespace neuroshard {

namespace {

constexpr uint64_t uptime_max_ms = 120'000;
constexpr uint64_t training_uptime_min_ms = 10'000;
constexpr uint64_t ms_per_minute = 60'000;
constexpr uint64_t epochs_back = 5;
constexpr uint64_t epochs_ahead = 1;
constexpr int64_t us_per_hour = 3'600'000'000;
/// Beyond these no honest proof of a minute comes near, and products of two of them fit 128 bits easily.
constexpr uint64_t count_max = uint64_t{1} << 48;

using u128 = unsigned __int128;

proof_verdict refuse_proof(proof_check at, const char* reason, bool slashable = false) {
  return {at, reason, slashable};
}

bool trains(const work_proof& proof) {
  return proof.label_tokens > 0 || proof.steps > 0;
}

/// Check 1 beyond what read_proof refuses: fields that contradict each other.
const char* fault_of_form(const work_proof& proof, const proof_rules& rules) {
  if (proof.layer_begin > proof.layer_end || proof.layer_end > rules.num_layers)
    return "layers_out_of_range";
  if (proof.step_begin > proof.step_end || proof.step_end - proof.step_begin != proof.steps)
    return "steps_out_of_range";
  for (const uint64_t each : {proof.label_tokens, proof.steps, proof.step_end, proof.batch_size,
                              proof.seq_len, proof.data_samples, proof.receipt_count})
    if (each > count_max)
      return "out_of_range";
  if ((proof.receipt_count == 0) != (proof.receipts_root == merkle_root({})))
    return "receipts_root";
  if (!proof.is_async && proof.contribution_age_s != 0)
    return "contribution_age";
  return nullptr;
}

/// Check 7, without what needs records.
const char* fault_of_pace(const work_proof& proof, const economics_params& params) {
  if (proof.uptime_ms > uptime_max_ms)
    return "uptime_too_long";
  if (trains(proof) && proof.uptime_ms < training_uptime_min_ms)
    return "uptime_too_short";
  if (u128{proof.steps} * ms_per_minute > u128{params.steps_per_minute} * proof.uptime_ms)
    return "too_many_steps";
  if (u128{proof.data_samples} * ms_per_minute > u128{params.data_samples_per_minute} * proof.uptime_ms)
    return "too_many_samples";
  return nullptr;
}

/// Check 8.
const char* fault_of_training(const work_proof& proof) {
  if (!trains(proof))
    return nullptr;
  if (!proof.gradient_commitment || !proof.data_hash)
    return "no_commitment";
  if (!proof.model_hash_start || !proof.model_hash_end)
    return "no_model_hash";
  if (proof.steps == 0 || proof.label_tokens == 0)
    return "no_steps";
  if (!proof.loss_e6 || *proof.loss_e6 == 0)
    return "loss";
  if (!proof.gradient_norm_e6)
    return "gradient_norm";
  // All that a step can hold: more labels than positions were never computed.
  if (u128{proof.label_tokens} > u128{proof.steps} * proof.batch_size * proof.seq_len)
    return "too_many_tokens";
  return nullptr;
}

/// Check 6: what the proof claims to hold is what the map gave the node.
const char* fault_of_role(const work_proof& proof, proof_records& records) {
  const bool claims = trains(proof) || proof.receipt_count > 0;
  if (!claims && proof.layer_begin == proof.layer_end && !proof.has_embedding && !proof.has_lm_head)
    return nullptr;
  const auto held = records.layers_of(proof.node_id, proof.epoch_id);
  if (!held)
    return "not_in_layer_map";
  if (proof.layer_begin < proof.layer_end && (proof.layer_begin < held->begin || proof.layer_end > held->end))
    return "layers_not_held";
  if (proof.has_embedding && !held->embedding)
    return "embedding_not_held";
  if (proof.has_lm_head && !held->head)
    return "head_not_held";
  return nullptr;
}

} // namespace

const char* to_string(proof_check check) noexcept {
  constexpr std::array<const char*, 10> names = {"passed", "form", "signature",    "freshness", "replay",
                                                 "rate",   "role", "plausibility", "training",  "receipts"};
  return names[static_cast<size_t>(check)];
}

proof_verdict check_proof(const signed_blob& blob, const proof_rules& rules, proof_records& records,
                          std::optional<work_proof>& out) {
  out = read_proof(blob.payload);
  const auto signer = verify_blob(blob, proof_tag, rules.now_us / 1'000);
  const auto signed_by = [&](const work_proof& proof) {
    return signer && signer->node_id == proof.node_id && signer->address == proof.wallet;
  };
  if (!out)
    return refuse_proof(proof_check::form, "malformed");
  const work_proof& proof = *out;
  // A proof for another book is worth nothing here, but may be in order there: nobody is slashed for it.
  if (proof.chain_id != rules.chain_id)
    return refuse_proof(proof_check::form, "other_chain");
  if (proof.architecture_id != rules.architecture_id)
    return refuse_proof(proof_check::form, "other_architecture");
  if (const char* fault = fault_of_form(proof, rules))
    return refuse_proof(proof_check::form, fault, signed_by(proof));

  if (!signer)
    return refuse_proof(proof_check::signature, problem_of(signer.error()).reason == "bad_delegation"
                                                    ? "bad_delegation"
                                                    : "bad_signature");
  if (!signed_by(proof))
    return refuse_proof(proof_check::signature, "other_key");

  const auto max_age_us = static_cast<int64_t>(rules.params.proof_max_age_s) * 1'000'000;
  const auto max_ahead_us = static_cast<int64_t>(rules.params.proof_max_ahead_s) * 1'000'000;
  if (proof.timestamp_us < rules.now_us - max_age_us)
    return refuse_proof(proof_check::freshness, "too_old");
  if (proof.timestamp_us > rules.now_us + max_ahead_us)
    return refuse_proof(proof_check::freshness, "in_the_future");
  const auto now_epoch = static_cast<uint64_t>(rules.now_us / epoch_us);
  if (proof.epoch_id != static_cast<uint64_t>(proof.timestamp_us / epoch_us) ||
      proof.epoch_id + epochs_back < now_epoch || proof.epoch_id > now_epoch + epochs_ahead)
    return refuse_proof(proof_check::freshness, "epoch");

  if (records.knows_proof(proof_id_of(blob.payload)))
    return refuse_proof(proof_check::replay, "replayed");
  if (records.knows_nonce(proof.node_id, proof.nonce))
    return refuse_proof(proof_check::replay, "nonce_reused");

  if (records.accepted_since(proof.node_id, rules.now_us - us_per_hour) >= rules.params.proofs_per_hour)
    return refuse_proof(proof_check::rate, "too_many_proofs");
  if (u128{records.label_tokens_since(proof.node_id, rules.now_us - epoch_us)} + proof.label_tokens >
      rules.params.tokens_per_minute)
    return refuse_proof(proof_check::rate, "too_many_tokens");

  if (const char* fault = fault_of_role(proof, records))
    return refuse_proof(proof_check::role, fault);

  if (const char* fault = fault_of_pace(proof, rules.params))
    return refuse_proof(proof_check::plausibility, fault, proof.uptime_ms > uptime_max_ms);
  if (const auto last = records.last_timestamp_us(proof.node_id); last && proof.uptime_begin_us() < *last)
    return refuse_proof(proof_check::plausibility, "uptime_overlaps", true);
  const held_layers range{proof.layer_begin, proof.layer_end, proof.has_embedding, proof.has_lm_head};
  if (const auto speed = trains(proof) ? records.speed_of(range) : std::nullopt)
    if (proof.label_tokens > speed->tokens_per_step &&
        u128{proof.label_tokens - speed->tokens_per_step} * ms_per_minute * 10'000 >
            u128{speed->tokens_per_minute} * rules.params.speed_slack_bp * proof.uptime_ms)
      return refuse_proof(proof_check::plausibility, "faster_than_measured");

  if (const char* fault = fault_of_training(proof))
    return refuse_proof(proof_check::training, fault, true);

  if (proof.receipt_count > 0 &&
      !records.has_receipts(proof.node_id, proof.receipts_root, proof.receipt_count))
    return refuse_proof(proof_check::receipts, "receipts_differ");
  return {};
}

} // namespace neuroshard
