#pragma once

#include "kernels/core/dtype.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace neuroshard::kernels::cpu {

/// Products of dense blocks by oneDNN, one thread each: c[m,n] f32 = a[m,k] * panels. The primitives are made
/// once per shape and kept; each worker has memory objects of its own, so that any number of workers may
/// execute one primitive at a time.
///
/// `find` is called under the pool's lock, `execute` by the workers between two `find`s.
class onednn_matmul {
public:
  struct primitive;

  onednn_matmul();
  ~onednn_matmul();
  onednn_matmul(const onednn_matmul&) = delete;
  onednn_matmul& operator=(const onednn_matmul&) = delete;

  /// The primitive for a shape, n a multiple of panel_width, or null where oneDNN has no kernel that reads
  /// our panels (below AVX-512): the caller has its own. Valid until the next `trim`.
  primitive* find(dtype act, int64_t m, int64_t n, int64_t k);

  /// Bounds what is kept: forgets all primitives when there are too many. Called between two calls of the
  /// backend.
  void trim();

  /// Bytes of scratch memory that the primitive needs.
  static size_t scratch_bytes(const primitive& p) noexcept;

  /// Runs it. `a` is dense; `b` the first of n / 64 panels; `c` dense. False on an error of the library.
  static bool execute(primitive& p, int worker, const void* a, const void* b, float* c,
                      void* scratch) noexcept;

private:
  struct implementation;
  std::unique_ptr<implementation> impl_;
};

} // namespace neuroshard::kernels::cpu
