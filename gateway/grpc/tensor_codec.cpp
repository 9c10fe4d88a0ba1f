#include "gateway/grpc/tensor_codec.hpp"

#include "kernels/core/crc32c.hpp"
#include "kernels/core/finite.hpp"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t buffer_alignment = 64;
/// Fits the first cache with what it is copied to: the checks then read what is there.
constexpr size_t checked_at_once = 12 * 1024;
/// What a frame may ask zstd to look back, whatever its size: its usual levels ask for 8 MiB at most.
constexpr int window_log_min = 23;

struct buffer_deleter {
  void operator()(uint8_t* at) const noexcept { ::operator delete[](at, std::align_val_t{buffer_alignment}); }
};
using host_buffer = std::unique_ptr<uint8_t[], buffer_deleter>;

host_buffer make_buffer(size_t bytes) {
  return host_buffer{static_cast<uint8_t*>(
      ::operator new[](std::max<size_t>(bytes, 1), std::align_val_t{buffer_alignment}, std::nothrow))};
}

/// Checksum and finiteness of bytes that come in pieces.
class running_check {
public:
  running_check(kernels::dtype type, bool finite) : type_(type), check_finite_(finite) {}

  /// `at`: the bytes that follow, whole elements but for the last call of a tensor.
  void add(const uint8_t* at, size_t bytes) {
    crc_ = kernels::crc32c(at, bytes, crc_);
    if (check_finite_)
      finite_ = kernels::all_finite(type_, at, bytes) && finite_;
  }
  caf::error end(uint32_t crc, const char* field) const {
    if (crc != crc_)
      return malformed(field, "The checksum of the tensor's bytes is another.");
    if (!finite_)
      return malformed(field, "The tensor holds a value that is not finite.");
    return {};
  }

private:
  kernels::dtype type_;
  bool check_finite_;
  uint32_t crc_ = 0;
  bool finite_ = true;
};

/// Puts the pieces into one buffer, checking as it goes.
void gather(const std::vector<grpc::Slice>& from, uint8_t* to, running_check& check) {
  size_t filled = 0, checked = 0;
  for (const auto& piece : from)
    for (size_t at = 0; at < piece.size();) {
      const size_t count = std::min(piece.size() - at, checked_at_once);
      std::memcpy(to + filled, piece.begin() + at, count);
      at += count;
      filled += count;
      const size_t whole = (filled - checked) / 8 * 8;
      check.add(to + checked, whole);
      checked += whole;
    }
  check.add(to + checked, filled - checked);
}

/// Exactly `bytes` bytes of one frame: a bomb stops at the first byte too many.
bool inflate(const std::vector<grpc::Slice>& from, uint8_t* to, size_t bytes) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context{ZSTD_createDCtx(), ZSTD_freeDCtx};
  if (!context)
    return false;
  const int window_log = std::max(window_log_min, static_cast<int>(std::bit_width(bytes)));
  if (ZSTD_isError(ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, window_log)))
    return false;
  ZSTD_outBuffer out{to, bytes, 0};
  size_t wanted = 1; // 0: the frame is complete
  for (const auto& piece : from) {
    ZSTD_inBuffer in{piece.begin(), piece.size(), 0};
    while (in.pos < in.size) {
      if (wanted == 0)
        return false;
      const size_t in_before = in.pos, out_before = out.pos;
      wanted = ZSTD_decompressStream(context.get(), &out, &in);
      if (ZSTD_isError(wanted) || (wanted != 0 && in.pos == in_before && out.pos == out_before))
        return false;
    }
  }
  // What is full may have bytes to come; zstd says so only when asked for them.
  while (wanted != 0) {
    ZSTD_inBuffer none{nullptr, 0, 0};
    const size_t before = out.pos;
    wanted = ZSTD_decompressStream(context.get(), &out, &none);
    if (ZSTD_isError(wanted) || (wanted != 0 && out.pos == before))
      return false;
  }
  return out.pos == bytes;
}

/// The view without its data; nothing where shape and type are not what a tensor has.
caf::expected<kernels::tensor> view_of(const Tensor& head, tensor_kind kind, const char* field) {
  if (!DType_IsValid(head.dtype()) || head.dtype() == DTYPE_UNSPECIFIED)
    return malformed(field, "This element type is not known.");
  kernels::tensor view;
  view.type = static_cast<kernels::dtype>(head.dtype());
  const bool floating = view.type == kernels::dtype::f32 || view.type == kernels::dtype::bf16 ||
                        view.type == kernels::dtype::f16;
  if (kind == tensor_kind::values ? !floating : view.type != kernels::dtype::i32)
    return malformed(field, "The tensor has another element type than it must.");
  if (head.shape_size() < 1 || head.shape_size() > kernels::tensor::rank_max)
    return malformed(field, "A tensor has one to four dimensions.");
  uint64_t bytes = kernels::size_of(view.type);
  for (const int64_t dim : head.shape()) {
    if (dim < 1 || static_cast<uint64_t>(dim) > tensor_bytes_max / bytes)
      return malformed(field, "A tensor's dimensions are at least 1, its bytes at most 64 MiB.");
    bytes *= static_cast<uint64_t>(dim);
    view.shape[static_cast<size_t>(view.rank++)] = dim;
  }
  int64_t step = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.stride[static_cast<size_t>(i)] = step;
    step *= view.shape[static_cast<size_t>(i)];
  }
  return view;
}

} // namespace

caf::expected<tensor_handle> read_tensor(const wire_tensor& from, tensor_kind kind, const char* field) {
  const auto view = view_of(from.head, kind, field);
  if (!view)
    return view.error();
  tensor_handle made;
  made.view = *view;
  const auto bytes = static_cast<size_t>(view->bytes());
  running_check check{view->type, kind == tensor_kind::values};
  switch (from.head.codec()) {
  case CODEC_NONE: {
    if (from.bytes != bytes)
      return malformed(field, "The tensor has not as many bytes as its shape says.");
    if (from.data.size() == 1) {
      // A short slice holds its bytes in itself: only the one that stays has the address.
      auto kept = std::make_shared<const grpc::Slice>(from.data.front());
      if (reinterpret_cast<uintptr_t>(kept->begin()) % kernels::size_of(view->type) == 0) {
        check.add(kept->begin(), bytes);
        made.view.data = const_cast<uint8_t*>(kept->begin());
        made.owner = std::move(kept);
        break;
      }
    }
    auto copied = make_buffer(bytes);
    if (!copied)
      return refuse(errc::overloaded, "There is no memory for the tensor.");
    gather(from.data, copied.get(), check);
    made.view.data = copied.get();
    made.owner = std::shared_ptr<const uint8_t[]>{std::move(copied)};
    break;
  }
  case CODEC_ZSTD: {
    auto inflated = make_buffer(bytes);
    if (!inflated)
      return refuse(errc::overloaded, "There is no memory for the tensor.");
    if (!inflate(from.data, inflated.get(), bytes))
      return malformed(field, "The tensor's bytes do not decompress to as many as its shape says.");
    check.add(inflated.get(), bytes);
    made.view.data = inflated.get();
    made.owner = std::shared_ptr<const uint8_t[]>{std::move(inflated)};
    break;
  }
  default:
    return malformed(field, "This codec is not known.");
  }
  if (auto wrong = check.end(from.head.crc32c(), field))
    return wrong;
  return made;
}

caf::error write_tensor(const tensor_handle& from, uint32_t field, message_writer& to) {
  if (!from)
    return {};
  const auto& view = from.view;
  if (!from.on_host() || (from.ready && !from.ready->done()) || !view.contiguous() || view.rank < 1 ||
      view.rank > kernels::tensor::rank_max || view.bytes() > tensor_bytes_max ||
      !DType_IsValid(static_cast<int>(view.type)) || view.type == kernels::dtype::unspecified)
    return refuse(errc::internal, "a tensor to be sent is not in host memory, or too large");
  const std::span<const uint8_t> data{static_cast<const uint8_t*>(view.data),
                                      static_cast<size_t>(view.bytes())};
  Tensor head;
  head.set_dtype(static_cast<DType>(view.type));
  for (int i = 0; i < view.rank; ++i)
    head.add_shape(view.shape[static_cast<size_t>(i)]);
  head.set_codec(CODEC_NONE);
  head.set_crc32c(kernels::crc32c(data.data(), data.size()));
  to.add_tensor(field, head, data, from.owner);
  return {};
}

} // namespace neuroshard::rpc
