#pragma once

#include "bench/model/bench_support.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard::bench {

/// One process of a pipeline, told in words on the command line of this program.
struct stage_plan {
  std::string shape;
  bool bf16 = true;
  std::vector<int64_t> cuts; ///< see best_cuts
  size_t index = 0;
  uint32_t rows = 2; ///< of a micro-batch
  uint32_t seq = 256;
  uint32_t microbatches = 16;
  std::string folder; ///< certificates of all stages, and the corpus
  std::string corpus;

  size_t stages() const noexcept { return cuts.size() - 1; }
  std::vector<std::string> words() const;
};
/// Of the arguments after the first; ends the program where they are others.
stage_plan stage_plan_of(const std::vector<std::string>& words);

/// The shapes of this bench: "S" of bench_support, and "deep", whose head is a small part.
model::architecture pipeline_shape(const std::string& name);

/// Makes the certificates that the stages' processes read.
void make_certificates(const std::string& folder, size_t stages);

/// Runs until its standard input ends. With several stages it is pinned to one core, which computes and moves
/// bytes alike; alone it has all. It prints its port, and is told all ports in a line; then it answers
///   run N   on the first stage: trains N steps; "seconds tokens"
///   seen    "compute seconds of this stage, processor seconds of this process"
///   count   from now on bytes are counted; "bytes" counted since the last time, of requests this node has
///           sent and of their replies, as serialized
int run_stage(const stage_plan& plan);

} // namespace neuroshard::bench
