#pragma once

#include "actors/ledger/canonical_text.hpp"
#include "kernels/core/sha256.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

inline constexpr std::string_view proof_tag = "neuroshard-proof-v2";
inline constexpr size_t proof_bytes_max = 4'096;
inline constexpr int64_t epoch_us = 60'000'000;

/// Work of one node within a minute (spec/economics.md section 9). Everything that its reward depends on is
/// in it and signed.
struct work_proof {
  kernels::digest chain_id{};
  std::string node_id; ///< 32 hex
  std::string wallet;  ///< address
  int64_t timestamp_us = 0;
  std::string nonce; ///< 32 hex
  uint64_t epoch_id = 0;
  uint64_t uptime_ms = 0; ///< up to timestamp_us
  uint64_t label_tokens = 0;
  uint64_t steps = 0;
  uint64_t step_begin = 0; ///< half open
  uint64_t step_end = 0;
  uint64_t data_samples = 0;
  kernels::digest receipts_root{}; ///< Merkle root of the receipt ids
  uint64_t receipt_count = 0;
  uint64_t layer_begin = 0; ///< half open
  uint64_t layer_end = 0;
  bool has_embedding = false;
  bool has_lm_head = false;
  bool is_async = false;
  uint64_t contribution_age_s = 0;
  std::optional<kernels::digest> model_hash_start; ///< of the last outer step before the first step
  std::optional<kernels::digest> model_hash_end;   ///< of the last outer step after the last step
  std::optional<kernels::digest> gradient_commitment;
  std::optional<kernels::digest> data_hash;
  std::optional<uint64_t> gradient_norm_e6; ///< L2 norm x 10^6; missing when it was not finite
  std::optional<uint64_t> loss_e6;          ///< nats x 10^6; likewise
  uint64_t batch_size = 0;
  uint64_t seq_len = 0;
  std::string architecture_id; ///< 16 hex

  int64_t uptime_begin_us() const { return timestamp_us - static_cast<int64_t>(uptime_ms) * 1'000; }
};

/// How a proof is shown: by its training, else its inference receipts, else its data, else its uptime.
enum class proof_type : uint8_t { forward = 1, training, uptime, data, validation };
const char* to_string(proof_type type) noexcept;
proof_type type_of(const work_proof& proof) noexcept;

/// What is signed. The id of a proof, by which it is known and told from a repetition, is its SHA-256.
std::string canonical_payload(const work_proof& of);
kernels::digest proof_id_of(std::string_view payload);
/// Nothing for any text that canonical_payload does not give for some proof.
std::optional<work_proof> read_proof(std::string_view payload);

} // namespace neuroshard
