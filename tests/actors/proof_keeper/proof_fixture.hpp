#pragma once

#include "actors/proof_keeper/merkle.hpp"
#include "actors/proof_keeper/proof_checks.hpp"
#include "tests/support/test.hpp"

#include <map>
#include <memory>
#include <set>
#include <string>

namespace neuroshard::testing {

/// Records as a test wants them; a proof is recorded with `accept`.
struct scripted_records final : proof_records {
  std::set<kernels::digest> ids;
  std::set<std::string> nonces;
  uint64_t accepted = 0;
  uint64_t tokens = 0;
  std::optional<int64_t> last_us;
  std::optional<held_layers> held = held_layers{0, 6, true, true};
  std::optional<uint64_t> speed;
  std::map<kernels::digest, uint64_t> receipts;

  void accept(const work_proof& proof, std::string_view payload) {
    ids.insert(proof_id_of(payload));
    nonces.insert(proof.node_id + proof.nonce);
    ++accepted;
    tokens += proof.label_tokens;
    last_us = proof.timestamp_us;
  }

  bool knows_proof(const kernels::digest& id) override { return ids.count(id) > 0; }
  bool knows_nonce(const std::string& node_id, const std::string& nonce) override {
    return nonces.count(node_id + nonce) > 0;
  }
  uint64_t accepted_since(const std::string&, int64_t) override { return accepted; }
  uint64_t label_tokens_since(const std::string&, int64_t) override { return tokens; }
  std::optional<int64_t> last_timestamp_us(const std::string&) override { return last_us; }
  std::optional<held_layers> layers_of(const std::string&, uint64_t) override { return held; }
  std::optional<uint64_t> tokens_per_minute(const held_layers&) override { return speed; }
  bool has_receipts(const std::string&, const kernels::digest& root, uint64_t count) override {
    const auto found = receipts.find(root);
    return found != receipts.end() && found->second == count;
  }
};

inline node_identity identity_of(const char* token, uint32_t instance = 0) {
  auto made = node_identity::make(*parse_token(token), instance, 1'768'435'000'000);
  REQUIRE(made);
  return std::move(*made);
}

/// One node's minute of training, in order in every respect.
inline work_proof good_proof(const node_identity& node, const proof_rules& rules) {
  work_proof proof;
  proof.chain_id = rules.chain_id;
  proof.node_id = node.node_id();
  proof.wallet = node.address();
  proof.timestamp_us = rules.now_us - 5'000'000;
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
  proof.architecture_id = rules.architecture_id;
  return proof;
}

} // namespace neuroshard::testing
