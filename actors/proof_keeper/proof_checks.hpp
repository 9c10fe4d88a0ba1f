#pragma once

#include "actors/identity/node_identity.hpp"
#include "actors/ledger/economics_params.hpp"
#include "actors/ledger/work_proof.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace neuroshard {

/// The checks of spec/economics.md section 9, in their order; the first that fails decides.
enum class proof_check : uint8_t {
  passed,
  form,
  signature,
  freshness,
  replay,
  rate,
  role,
  plausibility,
  training,
  receipts
};
const char* to_string(proof_check check) noexcept;

/// Layers that the layer map gave a node, half open.
struct held_layers {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool embedding = false;
  bool head = false;
};

/// How fast a range of layers trains. A step counts when it ends: a minute may hold one that was begun before
/// it.
struct measured_speed {
  uint64_t tokens_per_minute = 0;
  uint64_t tokens_per_step = 0;
};

/// What a checker knows beside the proof. Counts are over accepted proofs only.
class proof_records {
public:
  virtual ~proof_records() = default;
  virtual bool knows_proof(const kernels::digest& id) = 0;
  virtual bool knows_nonce(const std::string& node_id, const std::string& nonce) = 0;
  virtual uint64_t accepted_since(const std::string& node_id, int64_t since_us) = 0;
  virtual uint64_t label_tokens_since(const std::string& node_id, int64_t since_us) = 0;
  /// Of the node's latest accepted proof.
  virtual std::optional<int64_t> last_timestamp_us(const std::string& node_id) = 0;
  /// Nothing for a node that is not in the layer map of that epoch.
  virtual std::optional<held_layers> layers_of(const std::string& node_id, uint64_t epoch_id) = 0;
  /// What the checker measured, or the network map states, for this range; nothing: not known.
  virtual std::optional<measured_speed> speed_of(const held_layers& range) = 0;
  /// Whether receipts of this node with both signatures, in no other proof, have this root and number.
  virtual bool has_receipts(const std::string& node_id, const kernels::digest& root, uint64_t count) = 0;
};

/// Against what proofs are judged.
struct proof_rules {
  const economics_params& params;
  kernels::digest chain_id{};
  std::string architecture_id; ///< 16 hex
  uint64_t num_layers = 0;
  int64_t now_us = 0;
};

struct proof_verdict {
  proof_check failed = proof_check::passed;
  std::string reason; ///< one word for programs, empty when passed: `malformed`, `too_old`, `replayed`, ...
  /// The bytes that the node signed for this book refute themselves (section 6): its stake answers for it.
  bool slashable = false;
  bool accepted() const noexcept { return failed == proof_check::passed; }
};

/// Judges a proof; nothing is recorded. `blob` holds the payload as received. `out` gets the proof as far as
/// it could be read.
proof_verdict check_proof(const signed_blob& blob, const proof_rules& rules, proof_records& records,
                          std::optional<work_proof>& out);

} // namespace neuroshard
