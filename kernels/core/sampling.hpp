#pragma once

#include "kernels/core/backend.hpp"

#include <cstdint>
#include <span>

/// The sampler's algorithm for one row, as every backend that runs on the host uses it and the others must
/// match it.
namespace neuroshard::kernels {

/// Ids that are never drawn: PAD, BOS and UNK (spec/model.md, section 7).
constexpr bool never_drawn(uint32_t id) noexcept {
  return id == 0 || id == 1 || id == 3;
}

/// An id that may still be drawn, with its weight. Scratch of `sample_row`.
struct candidate {
  float weight;
  uint32_t id;
};

struct sampled {
  int32_t id;
  float logprob; ///< of the unmodified distribution over the ids that may be drawn; finite or -inf, never NaN
};

/// Draws one id from a row of logits. In this order: mask; temperature (0: argmax, lowest id on ties); top-k
/// (ties at the edge kept by lower id); softmax in f32; top-p (the smallest prefix in descending order whose
/// sum reaches p, at least one); inverse CDF in ascending id order with u = Philox4x32-10(key seed, counter
/// step), 53 bits.
///
/// A NaN counts as -inf. Where some logits are +inf, they share the probability alike; where all are -inf,
/// all ids that may be drawn do.
///
/// `scratch` holds at least `valid_vocab` entries. Precondition: `check(sample_args)` has passed. The draw
/// costs a few passes over the row and sorts no more than 64 candidates; without `with_logprob` it costs one
/// pass less, and logprob is 0.
sampled sample_row(std::span<const float> logits, const sample_params& params, std::span<candidate> scratch,
                   bool with_logprob = true) noexcept;

} // namespace neuroshard::kernels
