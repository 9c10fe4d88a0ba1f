#include "actors/gradient_exchanger/delta_slice.hpp"

#include "actors/common/error.hpp"
#include "actors/gradient_exchanger/quantize.hpp"
#include "actors/identity/wire.hpp"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace neuroshard {

namespace {

constexpr int zstd_level = 3;
constexpr uint64_t codec_none = 1;
constexpr uint64_t codec_zstd = 2;
constexpr uint64_t varint_bytes_max = 10;

caf::error bad_slice(const char* message) {
  problem what;
  what.message = message;
  what.field = "part_data";
  what.reason = "bad_shape";
  return refuse(errc::invalid_request, std::move(what));
}

std::string compressed(std::string_view raw) {
  std::string out;
  if (raw.empty())
    return out;
  out.resize(ZSTD_compressBound(raw.size()));
  const size_t size = ZSTD_compress(out.data(), out.size(), raw.data(), raw.size(), zstd_level);
  out.resize(ZSTD_isError(size) ? 0 : size);
  return out;
}

/// Bytes once decompressed; false when they are not told, or the field is more or less than one frame.
bool raw_bytes_of(std::string_view field, bool zstd, uint64_t& out) {
  out = field.size();
  if (!zstd || field.empty())
    return true;
  const unsigned long long told = ZSTD_getFrameContentSize(field.data(), field.size());
  if (told == ZSTD_CONTENTSIZE_UNKNOWN || told == ZSTD_CONTENTSIZE_ERROR)
    return false;
  out = told;
  return ZSTD_findFrameCompressedSize(field.data(), field.size()) == field.size();
}

/// `raw_bytes` was checked by read_slice. The view is of `field` itself or of `scratch`.
bool decompress(std::string_view field, bool zstd, uint64_t raw_bytes, std::string& scratch,
                std::string_view& out) {
  out = field;
  if (!zstd || field.empty())
    return true;
  scratch.resize(raw_bytes);
  const size_t made = ZSTD_decompress(scratch.data(), scratch.size(), field.data(), field.size());
  out = scratch;
  return !ZSTD_isError(made) && made == raw_bytes;
}

struct slice_fields {
  delta_slice slice;
  std::array<uint64_t, 4> dims{};
  size_t rank = 0;
  uint64_t encoding = 0;
  uint64_t codec = 0;
  uint64_t block_size = 0;
};

/// A repeated int64 comes packed or one by one.
bool take_dims(const wire::field& from, slice_fields& into) {
  const auto add = [&](uint64_t dim) {
    if (into.rank == into.dims.size())
      return false;
    into.dims[into.rank++] = dim;
    return true;
  };
  if (from.is_number())
    return add(from.value);
  if (!from.is_bytes())
    return false;
  for (auto rest = from.bytes; !rest.empty();) {
    uint64_t dim = 0;
    if (!wire::take_varint(rest, dim) || !add(dim))
      return false;
  }
  return true;
}

bool take_view(const wire::field& from, std::string_view& out) {
  out = from.bytes;
  return from.is_bytes();
}

bool take_slice_field(const wire::field& from, slice_fields& into) {
  switch (from.number) {
  case 1:
    return take_view(from, into.slice.name);
  case 2:
    return take_dims(from, into);
  case 3:
    return wire::take_number(from, into.encoding);
  case 4:
    return take_view(from, into.slice.indices);
  case 5:
    return take_view(from, into.slice.values);
  case 6:
    return wire::take_number(from, into.block_size);
  case 7:
    return take_view(from, into.slice.scales);
  case 8:
    return wire::take_number(from, into.codec);
  case 9:
    return wire::take_number(from, into.slice.first);
  case 10:
    return wire::take_number(from, into.slice.count);
  default:
    return true;
  }
}

bool same_shape(const slice_fields& read, const tensor_shape& of) {
  return std::equal(read.dims.begin(), read.dims.begin() + static_cast<std::ptrdiff_t>(read.rank),
                    of.shape.begin(), of.shape.end(),
                    [](uint64_t a, int64_t b) { return a == static_cast<uint64_t>(b); });
}

/// Whether what the fields hold is what `count` elements need.
bool lengths_fit(slice_fields& read) {
  auto& slice = read.slice;
  if (!raw_bytes_of(slice.indices, slice.zstd, slice.indices_bytes) ||
      !raw_bytes_of(slice.values, slice.zstd, slice.values_bytes))
    return false;
  slice.sent = slice.count;
  if (slice.encoding == delta_encoding::f32)
    return slice.indices_bytes == 0 && slice.scales.empty() && slice.values_bytes == slice.count * 4;
  if (slice.encoding == delta_encoding::dense_i4)
    return read.block_size == quantize_i4.block && slice.indices_bytes == 0 &&
           slice.values_bytes == slice.count / 2 + slice.count % 2 &&
           slice.scales.size() == blocks_of(quantize_i4, slice.count) * 4;
  if (slice.encoding == delta_encoding::topk_i8) {
    slice.sent = slice.values_bytes;
    if (slice.sent > slice.count || slice.indices_bytes < slice.sent ||
        slice.indices_bytes > slice.sent * varint_bytes_max)
      return false;
  } else if (slice.indices_bytes != 0) {
    return false;
  }
  return read.block_size == quantize_i8.block && slice.values_bytes == slice.sent &&
         slice.scales.size() == blocks_of(quantize_i8, slice.sent) * 4;
}

} // namespace

std::string encode_slice(const tensor_shape& of, delta_encoding encoding, uint64_t first,
                         std::span<const float> x, std::span<const uint32_t> picked) {
  std::string indices;
  std::string values;
  std::string scales;
  uint64_t block_size = 0;
  if (encoding == delta_encoding::f32) {
    append_f32(x, values);
  } else if (encoding == delta_encoding::dense_i4) {
    append_i4(x, values, scales);
    block_size = quantize_i4.block;
  } else if (encoding == delta_encoding::dense_i8) {
    append_i8(x, values, scales);
    block_size = quantize_i8.block;
  } else {
    std::vector<float> sent;
    sent.reserve(picked.size());
    uint32_t before = 0;
    for (const uint32_t index : picked) {
      wire::put_varint(indices, index - before);
      before = index;
      sent.push_back(x[index]);
    }
    append_i8(sent, values, scales);
    block_size = quantize_i8.block;
  }
  uint64_t codec = codec_none;
  auto short_indices = compressed(indices);
  auto short_values = compressed(values);
  if (short_indices.empty() == indices.empty() && short_values.empty() == values.empty() &&
      short_indices.size() + short_values.size() < indices.size() + values.size()) {
    indices = std::move(short_indices);
    values = std::move(short_values);
    codec = codec_zstd;
  }
  std::string dims;
  for (const int64_t dim : of.shape)
    wire::put_varint(dims, static_cast<uint64_t>(dim));
  std::string out;
  out.reserve(of.name.size() + dims.size() + indices.size() + values.size() + scales.size() + 96);
  wire::put_bytes(out, 1, of.name);
  wire::put_bytes(out, 2, dims);
  wire::put_unsigned(out, 3, static_cast<uint64_t>(encoding));
  wire::put_bytes(out, 4, indices);
  wire::put_bytes(out, 5, values);
  wire::put_unsigned(out, 6, block_size);
  wire::put_bytes(out, 7, scales);
  wire::put_unsigned(out, 8, codec);
  wire::put_unsigned(out, 9, first);
  wire::put_unsigned(out, 10, x.size());
  return out;
}

caf::expected<delta_slice> read_slice(std::string_view bytes, const unit_layout& layout, delta_encoding unit,
                                      size_t& tensor) {
  slice_fields read;
  if (!wire::read_fields(
          bytes, [&](const wire::field& field) { return take_slice_field(field, read); }, bytes.size()))
    return bad_slice("A slice of a contribution is malformed.");
  auto& slice = read.slice;
  const auto found = std::lower_bound(
      layout.tensors.begin(), layout.tensors.end(), slice.name,
      [](const tensor_shape& of, std::string_view name) { return std::string_view(of.name) < name; });
  if (found == layout.tensors.end() || found->name != slice.name || !same_shape(read, *found))
    return bad_slice("A tensor of a contribution has another name or shape than the unit's.");
  const uint64_t elements = found->elements();
  if (read.encoding != static_cast<uint64_t>(encoding_of(unit, elements)) ||
      (read.codec != codec_none && read.codec != codec_zstd))
    return bad_slice("A slice has another encoding than its contribution, or an unknown codec.");
  slice.encoding = static_cast<delta_encoding>(read.encoding);
  slice.zstd = read.codec == codec_zstd;
  if (slice.first % delta_slice_grain != 0 || slice.first >= elements || slice.count == 0 ||
      slice.count > elements - slice.first || !lengths_fit(read))
    return bad_slice("A slice covers elements that are not there, or has other lengths than it says.");
  tensor = static_cast<size_t>(found - layout.tensors.begin());
  return slice;
}

caf::error decode_slice(const delta_slice& from, std::span<float> out) {
  if (out.size() != from.count)
    return refuse(errc::internal, "A slice was read into memory of another size.");
  std::string value_bytes;
  std::string index_bytes;
  std::string_view values;
  std::string_view indices;
  if (!decompress(from.values, from.zstd, from.values_bytes, value_bytes, values) ||
      !decompress(from.indices, from.zstd, from.indices_bytes, index_bytes, indices))
    return bad_slice("A compressed slice is damaged.");
  switch (from.encoding) {
  case delta_encoding::f32:
    read_f32(values, out);
    return {};
  case delta_encoding::dense_i4:
    read_i4(values, from.scales, out);
    return {};
  case delta_encoding::dense_i8:
    read_i8(values, from.scales, out);
    return {};
  case delta_encoding::topk_i8:
    break;
  }
  std::fill(out.begin(), out.end(), 0.0f);
  std::array<float, quantize_i8.block> block{};
  uint64_t at = 0;
  for (uint64_t begin = 0; begin < from.sent; begin += block.size()) {
    const auto size = static_cast<size_t>(std::min<uint64_t>(block.size(), from.sent - begin));
    read_i8(values.substr(begin, size), from.scales.substr(begin / block.size() * 4, 4),
            std::span(block).first(size));
    for (size_t i = 0; i < size; ++i) {
      uint64_t step = 0;
      if (!wire::take_varint(indices, step) || (step == 0 && begin + i > 0) || step >= from.count ||
          (at += step) >= from.count)
        return bad_slice("The indices of a slice are not ascending within it.");
      out[at] = block[i];
    }
  }
  return indices.empty() ? caf::error{} : bad_slice("A slice has more indices than values.");
}

} // namespace neuroshard
