#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/cpu/compute_pool.hpp"
#include "kernels/cpu/cpu_isa.hpp"
#include "kernels/cpu/onednn_matmul.hpp"
#include "kernels/cpu/row_kernels.hpp"
#include "kernels/cpu/tile_kernels.hpp"

#include <exception>
#include <new>

/// What the CPU backend's operations share. Internal to kernels/cpu.
namespace neuroshard::kernels::cpu {

/// An open device. Its queues refer to it.
struct cpu_device {
  cpu_device(isa chosen, bool with_onednn, int threads)
      : level(chosen), library(with_onednn), amx(with_onednn && has_amx_bf16()),
        rows(row_kernels_for(chosen)), exponentials(exponential_kernels_for(chosen)),
        f32(tile_kernels_for(dtype::f32, chosen)), half(tile_kernels_for(dtype::bf16, chosen)),
        pool(threads) {}

  const tile_kernels& tiles(dtype act) const noexcept { return act == dtype::bf16 ? half : f32; }

  isa level;
  bool library; ///< oneDNN may be used: no cap below what it would detect itself
  bool amx;     ///< oneDNN multiplies bf16 with AMX
  const row_kernels& rows;
  const exponential_kernels& exponentials;
  const tile_kernels& f32;
  const tile_kernels& half;
  compute_pool pool;
  onednn_matmul products;
};

struct cpu_queue {
  cpu_device* on;
};

inline cpu_device& device_of(void* queue) noexcept {
  return *static_cast<cpu_queue*>(queue)->on;
}

/// Runs one operation under the pool's lock; whatever the libraries throw becomes a status.
template <class Body>
status run_locked(cpu_device& device, const Body& body) noexcept {
  try {
    const compute_pool::lock held(device.pool);
    return body();
  } catch (const std::bad_alloc&) {
    return {code::out_of_memory, "the system has no memory for the operation"};
  } catch (const std::exception& e) {
    return {code::internal, std::string("the operation failed: ") + e.what()};
  }
}

/// Calls fn(first, last) in parallel for pieces of [0, rows), each of about `bytes_per_tile` by shape alone.
template <class Function>
void for_row_tiles(cpu_device& device, int64_t rows, int64_t bytes_per_row, const Function& fn,
                   int64_t bytes_per_tile = 64 * 1024) {
  const int64_t step = std::max<int64_t>(1, bytes_per_tile / std::max<int64_t>(1, bytes_per_row));
  device.pool.parallel_for(divide_up(rows, step),
                           [&](int64_t tile, int) { fn(tile * step, std::min(rows, (tile + 1) * step)); });
}

/// c[m,n] (+)= a[m,k] * panels.
struct product_args {
  dtype act = dtype::f32;
  const void* a = nullptr;
  int64_t lda = 0; ///< elements
  const void* b = nullptr;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  void* out = nullptr;
  dtype out_type = dtype::f32;
  int64_t ldo = 0;
  bool accumulate = false;
  /// f32 sums only: a is stored as [k, m], and lda lies between two k.
  bool transposed = false;
};

/// Under the pool's lock.
status run_product(cpu_device& device, const product_args& p);

// ops_linear.cpp
uint64_t prepared_bytes(void* device, int64_t n, int64_t k, dtype act, weight_use use);
uint64_t linear_workspace(void* device, const linear_args& a);
uint64_t linear_backward_input_workspace(void* device, const linear_backward_input_args& a);
uint64_t linear_backward_weight_workspace(void* device, const linear_backward_weight_args& a);
status prepare_weight(void* queue, const prepare_weight_args& a);
status linear(void* queue, const linear_args& a);
status linear_backward_input(void* queue, const linear_backward_input_args& a);
status linear_backward_weight(void* queue, const linear_backward_weight_args& a);

// ops_rowwise.cpp
uint64_t embedding_backward_workspace(void* device, const embedding_backward_args& a);
uint64_t rms_norm_backward_workspace(void* device, const rms_norm_backward_args& a);
uint64_t cross_entropy_workspace(void* device, const cross_entropy_args& a);
uint64_t sample_workspace(void* device, const sample_args& a);
uint64_t grad_norm_workspace(void* device, const grad_norm_args& a);
status embedding(void* queue, const embedding_args& a);
status embedding_backward(void* queue, const embedding_backward_args& a);
status rms_norm(void* queue, const rms_norm_args& a);
status rms_norm_backward(void* queue, const rms_norm_backward_args& a);
status rope(void* queue, const rope_args& a);
status swiglu(void* queue, const swiglu_args& a);
status swiglu_backward(void* queue, const swiglu_backward_args& a);
status cross_entropy(void* queue, const cross_entropy_args& a);
status sample(void* queue, const sample_args& a);
status adamw(void* queue, const adamw_args& a);
status grad_norm(void* queue, const grad_norm_args& a);
status clip_factor(void* queue, const clip_factor_args& a);
status convert(void* queue, const convert_args& a);
status add(void* queue, const add_args& a);

// ops_attention.cpp, ops_attention_backward.cpp, ops_paged_attention.cpp
uint64_t attention_workspace(void* device, const attention_args& a);
uint64_t attention_backward_workspace(void* device, const attention_backward_args& a);
uint64_t paged_attention_workspace(void* device, const paged_attention_args& a);
status attention(void* queue, const attention_args& a);
status attention_backward(void* queue, const attention_backward_args& a);
status kv_append(void* queue, const kv_append_args& a);
status paged_attention(void* queue, const paged_attention_args& a);

} // namespace neuroshard::kernels::cpu
