#pragma once

#include "actors/gradient_exchanger/unit_values.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

/// One slice of one tensor of a pseudo-gradient: message DeltaTensor of spec/grpc-api.md section 3.
namespace neuroshard {

/// DeltaEncoding of the wire.
enum class delta_encoding : uint8_t { f32 = 1, dense_i8 = 2, topk_i8 = 3, dense_i4 = 4 };

inline constexpr uint64_t delta_dense_below = 1'024; ///< tensors of fewer elements are sent as f32
inline constexpr uint64_t delta_slice_grain = 256;   ///< every slice begins at a multiple of it

/// What a tensor of so many elements is sent as.
constexpr delta_encoding encoding_of(delta_encoding unit, uint64_t elements) noexcept {
  return elements < delta_dense_below ? delta_encoding::f32 : unit;
}

/// A slice as read: views into the part it came in, lengths checked against `count`, nothing decompressed.
struct delta_slice {
  std::string_view name;
  delta_encoding encoding = delta_encoding::f32;
  bool zstd = false;
  std::string_view indices;
  std::string_view values;
  std::string_view scales;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t sent = 0;          ///< values in it: count, or fewer with top-k
  uint64_t indices_bytes = 0; ///< once decompressed
  uint64_t values_bytes = 0;  ///< once decompressed
};

/// The bytes of a DeltaTensor that covers elements [first, first + x.size()) of the tensor. `picked`: with
/// topk_i8 the indices to be sent, ascending, within the slice; otherwise empty. `x` is finite. Indices and
/// values are compressed (zstd level 3) where both together become shorter.
std::string encode_slice(const tensor_shape& of, delta_encoding encoding, uint64_t first,
                         std::span<const float> x, std::span<const uint32_t> picked);

/// Reads a DeltaTensor of the unit's encoding. Name, shape, encoding, range and all lengths must be those of
/// a tensor of the layout, whose position is written to `tensor`; allocates nothing. Refusal:
/// invalid_request with reason `bad_shape`.
caf::expected<delta_slice> read_slice(std::string_view bytes, const unit_layout& layout, delta_encoding unit,
                                      size_t& tensor);

/// Dequantizes into out[count], elements that were not sent become 0. Allocates at most 14 bytes an element
/// of the slice. Refusal: invalid_request, `bad_shape`: what is compressed is damaged, or an index is not
/// ascending within the slice.
caf::error decode_slice(const delta_slice& from, std::span<float> out);

} // namespace neuroshard
