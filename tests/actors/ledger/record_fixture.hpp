#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/ledger/merkle.hpp"
#include "actors/ledger/work_proof.hpp"
#include "tests/support/test.hpp"

#include <string>
#include <utility>

namespace neuroshard::testing {

inline node_identity identity_of(const char* token, uint32_t instance = 0) {
  auto made = node_identity::make(*parse_token(token), instance, 1'768'435'000'000);
  REQUIRE(made);
  return std::move(*made);
}

/// One node's minute of training, in order in every respect.
inline work_proof good_proof(const node_identity& node, const kernels::digest& chain_id,
                             const std::string& architecture_id, int64_t now_us) {
  work_proof proof;
  proof.chain_id = chain_id;
  proof.node_id = node.node_id();
  proof.wallet = node.address();
  proof.timestamp_us = now_us - 5'000'000;
  proof.nonce = std::string(32, 'a');
  proof.epoch_id = static_cast<uint64_t>(proof.timestamp_us / epoch_us);
  proof.uptime_ms = 60'000;
  proof.label_tokens = 8'192;
  proof.steps = 4;
  proof.step_begin = 100;
  proof.step_end = 104;
  proof.receipts_root = merkle_root({});
  proof.layer_begin = 0;
  proof.layer_end = 6;
  proof.has_embedding = proof.has_lm_head = true;
  proof.model_hash_start = proof.model_hash_end = kernels::sha256::of(std::string_view("weights"));
  proof.gradient_commitment = kernels::sha256::of(std::string_view("gradient"));
  proof.data_hash = kernels::sha256::of(std::string_view("data"));
  proof.gradient_norm_e6 = 812'345;
  proof.loss_e6 = 5'123'456;
  proof.batch_size = 8;
  proof.seq_len = 256;
  proof.architecture_id = architecture_id;
  return proof;
}

} // namespace neuroshard::testing
