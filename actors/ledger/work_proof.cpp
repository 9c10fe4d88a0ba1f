#include "actors/ledger/work_proof.hpp"

#include "actors/identity/keys.hpp"

#include <algorithm>
#include <limits>

namespace neuroshard {

const char* to_string(proof_type type) noexcept {
  switch (type) {
  case proof_type::forward:
    return "forward";
  case proof_type::training:
    return "training";
  case proof_type::uptime:
    return "uptime";
  case proof_type::data:
    return "data";
  case proof_type::validation:
    return "validation";
  }
  return "";
}

proof_type type_of(const work_proof& proof) noexcept {
  if (proof.label_tokens > 0)
    return proof_type::training;
  if (proof.receipt_count > 0)
    return proof_type::forward;
  return proof.data_samples > 0 ? proof_type::data : proof_type::uptime;
}

std::string canonical_payload(const work_proof& of) {
  return canonical_writer(proof_tag)
      .bytes("chain_id", std::span<const uint8_t>(of.chain_id))
      .text("node_id", of.node_id)
      .text("wallet", of.wallet)
      .number("timestamp_us", static_cast<uint64_t>(of.timestamp_us))
      .text("nonce", of.nonce)
      .number("epoch_id", of.epoch_id)
      .number("uptime_ms", of.uptime_ms)
      .number("label_tokens", of.label_tokens)
      .number("steps", of.steps)
      .number("step_begin", of.step_begin)
      .number("step_end", of.step_end)
      .number("data_samples", of.data_samples)
      .bytes("receipts_root", std::span<const uint8_t>(of.receipts_root))
      .number("receipt_count", of.receipt_count)
      .number("layer_begin", of.layer_begin)
      .number("layer_end", of.layer_end)
      .number("has_embedding", uint64_t{of.has_embedding})
      .number("has_lm_head", uint64_t{of.has_lm_head})
      .number("is_async", uint64_t{of.is_async})
      .number("contribution_age_s", of.contribution_age_s)
      .bytes("model_hash_start", of.model_hash_start)
      .bytes("model_hash_end", of.model_hash_end)
      .bytes("gradient_commitment", of.gradient_commitment)
      .bytes("data_hash", of.data_hash)
      .number("gradient_norm_e6", of.gradient_norm_e6)
      .number("loss_e6", of.loss_e6)
      .number("batch_size", of.batch_size)
      .number("seq_len", of.seq_len)
      .text("architecture_id", of.architecture_id)
      .payload();
}

kernels::digest proof_id_of(std::string_view payload) {
  return kernels::sha256::of(payload);
}

std::optional<work_proof> read_proof(std::string_view payload) {
  if (payload.size() > proof_bytes_max)
    return std::nullopt;
  canonical_reader in(payload, proof_tag);
  work_proof made;
  made.chain_id = in.digest("chain_id");
  made.node_id = in.text("node_id");
  made.wallet = in.text("wallet");
  const uint64_t timestamp = in.number("timestamp_us");
  made.nonce = in.text("nonce");
  made.epoch_id = in.number("epoch_id");
  made.uptime_ms = in.number("uptime_ms");
  made.label_tokens = in.number("label_tokens");
  made.steps = in.number("steps");
  made.step_begin = in.number("step_begin");
  made.step_end = in.number("step_end");
  made.data_samples = in.number("data_samples");
  made.receipts_root = in.digest("receipts_root");
  made.receipt_count = in.number("receipt_count");
  made.layer_begin = in.number("layer_begin");
  made.layer_end = in.number("layer_end");
  made.has_embedding = in.flag("has_embedding");
  made.has_lm_head = in.flag("has_lm_head");
  made.is_async = in.flag("is_async");
  made.contribution_age_s = in.number("contribution_age_s");
  made.model_hash_start = in.optional_digest("model_hash_start");
  made.model_hash_end = in.optional_digest("model_hash_end");
  made.gradient_commitment = in.optional_digest("gradient_commitment");
  made.data_hash = in.optional_digest("data_hash");
  made.gradient_norm_e6 = in.optional_number("gradient_norm_e6");
  made.loss_e6 = in.optional_number("loss_e6");
  made.batch_size = in.number("batch_size");
  made.seq_len = in.number("seq_len");
  made.architecture_id = in.text("architecture_id");
  // Times and durations are added and multiplied later: far from where that could overflow.
  constexpr uint64_t time_max = std::numeric_limits<int64_t>::max() / 4;
  if (!in.done() || timestamp > time_max || made.uptime_ms > time_max / 1'000 ||
      !is_lower_hex(made.node_id, 32) || !is_lower_hex(made.nonce, 32) ||
      !is_lower_hex(made.architecture_id, 16) || parse_address(made.wallet) != made.wallet)
    return std::nullopt;
  made.timestamp_us = static_cast<int64_t>(timestamp);
  return made;
}

} // namespace neuroshard
