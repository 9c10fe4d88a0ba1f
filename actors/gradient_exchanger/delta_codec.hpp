#pragma once

#include "actors/gradient_exchanger/delta_slice.hpp"

#include <caf/expected.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

/// A unit's pseudo-gradient as the parts that travel: messages DeltaPart of DeltaTensors (spec/grpc-api.md,
/// ExchangeGradient; encodings: spec/training.md section 5). No actor.
namespace neuroshard {

/// The bytes of a DeltaPart, as its author made them; stored and passed on unchanged.
using delta_part = std::shared_ptr<const std::string>;

inline constexpr size_t delta_part_bytes_max = size_t{64} << 20;
inline constexpr size_t delta_part_bytes_min = 8'192; ///< below it not every slice fits
inline constexpr size_t delta_parts_max = 4'096;

struct delta_options {
  delta_encoding encoding = delta_encoding::dense_i8;
  double top_k_ratio = 0.1;
  size_t part_bytes_max = delta_part_bytes_max;
};

/// Makes the parts of one contribution. `values(tensor, out)` writes u, the pseudo-gradient with the stored
/// residual added, of one tensor after the other; held at a time are the largest tensor (twice with top-k),
/// one slice, and the finished parts. Refusals: invalid_request with reason `not_finite`; `bad_options` for a
/// layout, ratio or size out of bounds; `too_many_parts`; what `values` refuses.
caf::expected<std::vector<delta_part>>
encode_delta(const unit_layout& layout, const delta_options& how,
             const std::function<caf::error(size_t tensor, std::span<float> out)>& values);

/// A contribution whose parts are all there: a checked table of slices over the parts' own bytes, which it
/// keeps. Dequantized one tensor at a time. Safe to read from several threads.
class delta_reader final : public value_source {
public:
  /// Checks that the parts hold exactly the layout: names, shapes, encodings, slices ascending without a gap,
  /// every length; decompresses nothing. Its table is bounded by the layout, whatever the bytes say: a slice
  /// for every begun 256 elements at most. Refusal: invalid_request with reason `bad_shape`.
  static caf::expected<delta_reader> open(std::shared_ptr<const unit_layout> layout, delta_encoding encoding,
                                          std::vector<delta_part> parts,
                                          size_t part_bytes_max = delta_part_bytes_max);

  /// Overwrites out[elements of that tensor] with the dequantized values. Refusal: invalid_request with
  /// reason `bad_shape` when what is compressed is damaged or indices do not ascend.
  caf::error read(size_t tensor, std::span<float> out) const override;

  const unit_layout& layout() const noexcept { return *layout_; }
  const std::vector<delta_part>& parts() const noexcept { return parts_; }

private:
  delta_reader() = default;
  std::shared_ptr<const unit_layout> layout_;
  std::vector<delta_part> parts_;
  std::vector<std::vector<delta_slice>> slices_; ///< by tensor
};

/// The k = max(1, floor(ratio n)) elements of greatest magnitude, ties to the lower index; ascending indices.
std::vector<uint64_t> largest_magnitudes(std::span<const float> x, double ratio);

} // namespace neuroshard
