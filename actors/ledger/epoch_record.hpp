#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/ledger/work_proof.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

inline constexpr std::string_view epoch_tag = "neuroshard-epoch-v1";

/// What a book holds of one minute (spec/economics.md section 10); signed by its node. Empty minutes have
/// none: the link is to the last closed one, the first to the chain id.
struct epoch_record {
  kernels::digest chain_id{};
  uint64_t epoch_id = 0;
  kernels::digest prev_epoch_hash{};
  int64_t start_us = 0;
  int64_t end_us = 0;
  kernels::digest params_hash{};
  std::optional<kernels::digest> model_hash_start;
  std::optional<kernels::digest> model_hash_end;
  kernels::digest proofs_root{};
  uint64_t proof_count = 0;
  kernels::digest receipts_root{};
  std::string total_reward; ///< atto in decimal
  uint64_t total_batches = 0;
  std::optional<uint64_t> average_loss_e6;
  kernels::digest commitments_root{};
  std::optional<kernels::digest> layer_map_hash;
  kernels::digest tx_root{};
  uint64_t last_seq = 0;
  kernels::digest last_row_hash{};
};

std::string canonical_payload(const epoch_record& of);
std::optional<epoch_record> read_epoch(std::string_view payload);
inline kernels::digest epoch_hash_of(std::string_view payload) {
  return kernels::sha256::of(payload);
}

/// What a chain of epochs is compared with; a check of an exported chain alone leaves the functions empty.
struct epoch_evidence {
  kernels::digest chain_id{};
  public_key node_key{};
  std::function<std::optional<kernels::digest>(uint64_t seq)> row_hash;
  std::function<kernels::digest(uint64_t epoch_id)> proofs_root;
  std::function<kernels::digest(uint64_t first_seq, uint64_t last_seq)> tx_root;
};

/// Checks epochs one after the other, oldest first.
class epoch_chain_check {
public:
  explicit epoch_chain_check(epoch_evidence evidence) : evidence_(std::move(evidence)) {}
  /// What is wrong with the next epoch of the chain, one sentence; empty: nothing.
  std::string next(std::string_view payload, const kernels::digest& hash, const signature& sig);

private:
  epoch_evidence evidence_;
  std::optional<epoch_record> last_;
  kernels::digest last_hash_{};
};

} // namespace neuroshard
