#pragma once

#include "actors/ledger/work_proof.hpp"
#include "actors/proof_keeper/gradient_commitment.hpp"
#include "actors/trainer/step_batch.hpp"
#include "kernels/core/status.hpp"
#include "kernels/model/stage.hpp"

#include <string>
#include <string_view>

namespace neuroshard {

/// What came of repeating the first step of a proof.
struct spot_verdict {
  std::string refuted;   ///< why, one word; empty: the proof agrees
  bool repeated = false; ///< the step was run; what follows is known only then
  agreement how = agreement::exact;
  double gradient_distance = 0; ///< relative L2 distance of the sampled values to those of the repeated step
  double norm_distance = 0;     ///< largest relative difference of a unit's norm
  double loss_committed = 0;    ///< nats
  double loss_repeated = 0;
};

/// Reads a revealed preimage and holds it against the proof it belongs to: first its hash (`preimage` when it
/// is another), then its form (`malformed`), then what both tell (`other_weights`, `other_batch`, `loss`).
/// Empty when they agree.
std::string read_revealed(const work_proof& proof, std::string_view preimage, gradient_preimage& to);

/// Repeats the first step of a proof (spec/economics.md section 9, spot check) and compares. `stage` holds
/// the whole model with the weights of `model_hash`, and no gradient; `batch` is cut into the micro-batches
/// that the trainer would cut. The stage's gradient is dropped again. Blocks for one training step. Errors:
/// of the stage; a loss or a gradient that is not finite is `not_finite`.
kernels::result<spot_verdict> spot_check(model::stage& stage, const step_batch& batch,
                                         const kernels::digest& model_hash, const work_proof& proof,
                                         std::string_view preimage, agreement how);

} // namespace neuroshard
