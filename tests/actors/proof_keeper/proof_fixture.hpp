#pragma once

#include "actors/proof_keeper/proof_checks.hpp"
#include "tests/actors/ledger/record_fixture.hpp"

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
  std::optional<measured_speed> speed;
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
  std::optional<measured_speed> speed_of(const held_layers&) override { return speed; }
  bool has_receipts(const std::string&, const kernels::digest& root, uint64_t count) override {
    const auto found = receipts.find(root);
    return found != receipts.end() && found->second == count;
  }
};

/// In order by these rules.
inline work_proof good_proof(const node_identity& node, const proof_rules& rules) {
  return good_proof(node, rules.chain_id, rules.architecture_id, rules.now_us);
}

} // namespace neuroshard::testing
