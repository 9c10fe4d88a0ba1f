#pragma once

#include "bench/model/bench_support.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace neuroshard::bench {

/// Seconds of one core: of a micro-batch, forward and backward, and of the optimizer's step.
struct part_time {
  double microbatch = 0, apply = 0;
};
struct model_times {
  part_time embed, layer, head;
};

/// Measures each part alone with one thread. A micro-batch is `rows` x `seq` tokens.
model_times measure_parts(const model::architecture& shape, kernels::dtype compute, int64_t rows,
                          int64_t seq);

/// Seconds that stage `index` of those that `cuts` make takes for a step of so many micro-batches.
double stage_seconds(const model_times& times, const std::vector<int64_t>& cuts, size_t index,
                     int microbatches);

/// Where `layers` are cut for so many stages, so that the slowest is as fast as can be: stages + 1 ascending
/// numbers from 0 to `layers`. The embedding is with the first stage, the head with the last, which alone may
/// have no layer besides.
std::vector<int64_t> best_cuts(const model_times& times, int64_t layers, size_t stages, int microbatches);

} // namespace neuroshard::bench
