#pragma once

#include "actors/common/money.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/ledger/epoch_content.hpp"
#include "actors/ledger/work_proof.hpp"
#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace neuroshard {

/// A proof as it is kept; `reward` is the sum of its rewards.
struct proof_row {
  kernels::digest id{};
  std::string node_id;
  std::string wallet;
  proof_type type{};
  std::optional<uint64_t> first_layer;
  int64_t timestamp_us = 0;
  std::string nonce;
  uint64_t epoch_id = 0;
  int64_t uptime_begin_us = 0;
  bool accepted = false;
  std::string reason; ///< why it was refused
  neuro_amount reward;
  signed_blob proof;
};
/// What was answered when a proof was recorded.
struct proof_answer {
  neuro_amount reward;
  uint64_t steps_rewarded = 0;
  bool capped = false;
};
/// Whether a kept proof counts.
struct proof_standing {
  proof_type type{};
  bool accepted = false;
  std::string refuted; ///< by what, after it was accepted; otherwise empty
  neuro_amount reward;
};
struct held_receipt {
  bool own = false; ///< this node did the work
  bool confirmed = false;
  bool in_proof = false;
  std::string driver_wallet;
};
struct epoch_row {
  uint64_t id = 0;
  kernels::digest previous_hash{};
  kernels::digest hash{};
  int64_t start_us = 0;
  int64_t end_us = 0;
  uint64_t last_seq = 0;
  signed_blob signed_record; ///< payload, key and signature; a book's epochs need no delegation
};

/// Proofs, their commitments and the epochs: a part of ledger_store, under its rules.
class proof_store {
public:
  virtual ~proof_store() = default;

  /// Of a proof of this book's own node; nothing when it is not known.
  virtual std::optional<proof_answer> answer(const kernels::digest& proof_id) = 0;
  virtual bool knows_nonce(const std::string& node_id, const std::string& nonce) = 0;
  virtual void insert(const proof_row& row) = 0;
  virtual std::optional<proof_standing> standing(const kernels::digest& proof_id) = 0;
  /// `left`: what of its reward stays.
  virtual void refute(const kernels::digest& proof_id, const proof_standing& as_it_stands,
                      const std::string& reason, neuro_amount left) = 0;

  virtual std::optional<held_receipt> receipt(const kernels::digest& receipt_id) = 0;
  virtual void put_receipt(const kernels::digest& receipt_id, const kernels::digest& proof_id) = 0;

  virtual uint64_t count_commitments() = 0;
  /// Asked again, it is kept from now on.
  virtual void keep_commitment(const kernels::digest& commitment, const std::string& preimage,
                               int64_t now_us) = 0;
  virtual void put_commitment(const kernels::digest& commitment, const kernels::digest& proof_id) = 0;
  /// Those that no proof began with go after two hours already.
  virtual void forget_commitments(int64_t before_us) = 0;

  /// The last closed epoch.
  virtual std::optional<epoch_link> last_epoch() = 0;
  virtual std::optional<uint64_t> next_minute(const epoch_link& after) = 0;
  virtual epoch_content content(uint64_t epoch_id, const epoch_link& after) = 0;
  virtual void insert_epoch(const epoch_row& row) = 0;
};

} // namespace neuroshard
