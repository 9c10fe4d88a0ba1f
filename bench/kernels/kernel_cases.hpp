#pragma once

#include "kernels/core/backend.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

/// What kernel_bench measures: one entry per operation, shape and type.
namespace neuroshard::bench {

using kernels::dtype;
using kernels::tensor;

/// Buffers of one call on one device, filled with numbers drawn from a seed, so that two devices hold the
/// same.
class workbench {
public:
  workbench(kernels::device_ptr on, uint64_t seed) : on_(std::move(on)), state_(seed) {}

  /// Uniform in [-scale, scale].
  tensor numbers(dtype type, std::initializer_list<int64_t> shape, float scale = 1);
  tensor constant(dtype type, std::initializer_list<int64_t> shape, float value);
  /// i32, uniform below n.
  tensor indices(int64_t count, int64_t n);
  /// i32: first, first + 1, ... and again from `first` after `period`.
  tensor counting(int64_t count, int64_t period, int64_t first = 0);
  tensor bytes(uint64_t count);

  const kernels::device_ptr& on() const noexcept { return on_; }
  const kernels::backend& ops() const noexcept { return on_->ops(); }
  void* device() const noexcept { return on_->impl(); }

private:
  tensor make(dtype type, std::initializer_list<int64_t> shape);
  uint32_t next() noexcept;

  kernels::device_ptr on_;
  uint64_t state_;
  std::vector<kernels::buffer_ptr> kept_;
};

/// Rows of an f32 table that a call reads or changes in no order.
struct random_rows {
  tensor ids;   ///< i32 [rows]
  tensor table; ///< f32 [n, width]
  tensor dense; ///< f32 [rows, width]: what the plain copy goes to or comes from
  int64_t width = 0;
  bool scatter = false; ///< from `dense` into the table
};

/// Blocks of a paged cache that a call reads, as its block tables name them: all of K and of V.
struct cache_blocks {
  tensor tables; ///< i32 [caches, blocks]
  tensor keys;   ///< [n, 16, heads, size]
  tensor values;
};

/// A call that can be repeated, with what it writes.
struct prepared_call {
  std::function<kernels::status(kernels::queue&)> run;
  std::vector<tensor> outputs; ///< compared with the reference; may be views of a part
  random_rows rows{};          ///< width 0: it has none
  cache_blocks blocks{};       ///< tables.data null: it has none
};

enum class bound : uint8_t { matrix, copy, read };

struct bench_case {
  std::string op;
  std::string shape; ///< which model, and the sizes
  dtype type = dtype::f32;
  bound limit = bound::copy; ///< which peak the operation is compared with
  double work = 0;           ///< floating-point operations, or bytes that must be read and written
  double footprint = 0; ///< bytes of one set of operands: sets rotate, so that they do not stay in the cache
  int64_t rows = 0;
  int64_t error_rows = 0; ///< rows of the smaller call that is compared with the reference
  std::function<prepared_call(workbench&, int64_t rows)> make;
  /// Matrix products: the same by oneDNN alone, with its own threads; seconds of one call. Empty for other
  /// operations.
  std::function<std::function<void()>(int threads)> library;
};

void add_product_cases(std::vector<bench_case>& to);
void add_memory_cases(std::vector<bench_case>& to);

/// oneDNN alone: out[m,n] = a[m,k] * b[k,n], weights in the layout it likes best; transposed_a reads a stored
/// as [k,m] and adds to out (the gradient of a weight). The answer runs one product.
std::function<void()> library_product(dtype type, dtype out, int64_t m, int64_t n, int64_t k,
                                      bool transposed_a, int threads);

struct machine_peaks {
  double bf16 = 0; ///< GFLOP/s of a large oneDNN product
  double f32 = 0;
  double copy = 0; ///< GB/s read and written together
  double read = 0; ///< GB/s
};
machine_peaks measure_peaks(int threads);

} // namespace neuroshard::bench
