#pragma once

#include "kernels/core/dtype.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>

namespace neuroshard::kernels {

class device;

/// A piece of device memory. Made by `device::alloc`, freed with its last owner; aligned to at least 64
/// bytes. `address` is valid in the device's own address space only; the host may touch it only when
/// `host_visible`.
struct buffer {
  void* address = nullptr;
  uint64_t bytes = 0;
  device* owner = nullptr; ///< null for memory that the host made (a received message, a mapped file)
  bool host_visible = false;
  std::shared_ptr<void> keep_alive; ///< frees the memory
};
using buffer_ptr = std::shared_ptr<const buffer>;

/// A non-owning, typed, strided view of device memory: what an operation takes. Row-major; strides in
/// elements. An empty view (`data == nullptr`) stands for an operand that is left out.
struct tensor {
  static constexpr int rank_max = 4;

  void* data = nullptr; ///< first element, in the address space of the device
  dtype type = dtype::unspecified;
  int rank = 0;
  std::array<int64_t, rank_max> shape{};
  std::array<int64_t, rank_max> stride{};

  explicit operator bool() const noexcept { return data != nullptr; }
  int64_t elements() const noexcept {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i)
      n *= shape[static_cast<size_t>(i)];
    return n;
  }
  uint64_t bytes() const noexcept { return static_cast<uint64_t>(elements()) * size_of(type); }
  bool contiguous() const noexcept {
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[static_cast<size_t>(i)] != 1 && stride[static_cast<size_t>(i)] != expected)
        return false;
      expected *= shape[static_cast<size_t>(i)];
    }
    return true;
  }
  /// Typed pointer. Unchecked: the caller has looked at `type`.
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
};

/// A contiguous view of `data`. Unchecked sizes: the caller owns enough memory.
inline tensor make_tensor(void* data, dtype type, std::initializer_list<int64_t> shape) noexcept {
  tensor t;
  t.data = data;
  t.type = type;
  for (int64_t n : shape)
    t.shape[static_cast<size_t>(t.rank++)] = n;
  int64_t step = 1;
  for (int i = t.rank - 1; i >= 0; --i) {
    t.stride[static_cast<size_t>(i)] = step;
    step *= t.shape[static_cast<size_t>(i)];
  }
  return t;
}

/// Rows [first, first + count) of the outermost dimension.
inline tensor rows_of(tensor t, int64_t first, int64_t count) noexcept {
  t.data = static_cast<std::byte*>(t.data) + first * t.stride[0] * static_cast<int64_t>(size_of(t.type));
  t.shape[0] = count;
  return t;
}

/// Columns [first, first + count) of the innermost dimension of a matrix; strides unchanged.
inline tensor columns_of(tensor t, int64_t first, int64_t count) noexcept {
  const auto last = static_cast<size_t>(t.rank - 1);
  t.data = static_cast<std::byte*>(t.data) + first * t.stride[last] * static_cast<int64_t>(size_of(t.type));
  t.shape[last] = count;
  return t;
}

} // namespace neuroshard::kernels
