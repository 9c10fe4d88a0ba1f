#pragma once

#include "actors/checkpointer/checkpoint_reader.hpp"
#include "actors/proof_keeper/spot_check.hpp"
#include "kernels/core/backend.hpp"
#include "kernels/text/data_loader.hpp"

#include <cstdint>
#include <string>

namespace neuroshard {

/// What a node repeats its own steps with: as its layer worker and trainer are made.
struct repeat_setup {
  std::string checkpoints; ///< a wallet's folder of checkpoints, or the folder of all wallets' folders
  model::architecture architecture;
  kernels::device_ptr device;
  kernels::dtype compute = kernels::dtype::f32;
  agreement how = agreement::exact;
  const text::data_loader* data = nullptr; ///< of the node that made the proof
  uint32_t vocab_size = 0;
  std::string tokenizer_hash; ///< 64 hex
  uint32_t microbatches = 1;
  uint64_t positions_max = 4096; ///< of a micro-batch
};

/// The directory of the checkpoint that a proof's first step began with: of its weights and its step. Errors:
/// `unavailable` says which condition of a spot check is missing.
kernels::result<std::string> find_start(const std::string& checkpoints, const work_proof& proof);

/// A stage of the whole model with the weights of a checkpoint, every byte of which is compared with its
/// checksum, and a gradient of zero.
kernels::result<std::unique_ptr<model::stage>> load_stage(const checkpoint_reader& from,
                                                          const repeat_setup& how, int64_t tokens_max);

/// Finds the checkpoint that a proof begins with, draws the batch of its first step, and repeats it. Reads
/// only. Blocks for as long as loading and one step take. Errors: `unavailable` when a condition is missing,
/// and those of reading, of the device, and of the stage.
kernels::result<spot_verdict> repeat_proof(const work_proof& proof, std::string_view preimage,
                                           const repeat_setup& how);

} // namespace neuroshard
