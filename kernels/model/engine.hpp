#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/model/sliced.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

/// Private to kernels/model: the operation table with the shapes of one model, its workspace, and the cutting
/// into slices.
namespace neuroshard::model {

using kernels::code;
using kernels::dtype;
using kernels::make_tensor;
using kernels::result;
using kernels::status;
using kernels::tensor;
using kernels::weight_use;

/// Lays pieces of memory one after another, each aligned to 64 bytes; first counted, then placed into one
/// allocation.
class memory_layout {
public:
  /// The offset of a piece.
  uint64_t add(uint64_t bytes) noexcept {
    const uint64_t at = bytes_;
    bytes_ += (bytes + 63) / 64 * 64;
    return at;
  }
  uint64_t bytes() const noexcept { return bytes_; }

private:
  uint64_t bytes_ = 0;
};

inline void* at_offset(const kernels::buffer_ptr& memory, uint64_t offset) noexcept {
  return static_cast<std::byte*>(memory->address) + offset;
}

/// A buffer of device memory; one of length 0 is legal and has no address.
result<kernels::buffer_ptr> allocate(kernels::device& on, uint64_t bytes);

/// One weight product: what every call of it has in common.
struct product_weight {
  tensor prepared;
  weight_use use = weight_use::train;
  int64_t out_features = 0; ///< N
  int64_t in_features = 0;  ///< K
};

/// Device, queue, workspace and constants of one stage; the functions below enqueue operations on its queue.
/// The workspace is valid within one operation only: the queue keeps operations apart.
class engine {
public:
  static result<std::unique_ptr<engine>> make(kernels::device_ptr device, const architecture& shape,
                                              dtype act, double slice_flops);

  const kernels::backend& ops() const noexcept { return device_->ops(); }
  const kernels::device_ptr& device() const noexcept { return device_; }
  kernels::queue& queue() noexcept { return *queue_; }
  void* q() const noexcept { return queue_->impl(); }
  void* d() const noexcept { return device_->impl(); }
  const architecture& shape() const noexcept { return shape_; }
  dtype act() const noexcept { return act_; }
  size_t act_size() const noexcept { return kernels::size_of(act_); }
  float eps() const noexcept { return eps_; }
  const tensor& cosine() const noexcept { return cosine_; }
  const tensor& sine() const noexcept { return sine_; }
  uint64_t constant_bytes() const noexcept { return tables_->bytes; }
  uint64_t workspace_bytes() const noexcept { return workspace_ ? workspace_->bytes : 0; }

  /// At least `bytes` of scratch; grows only while an operation meets a shape for the first time.
  result<tensor> workspace(uint64_t bytes);

  /// Counts work against the slice; true when the slice is used up (then `co_await end_slice{}`).
  bool spent_flops(double flops) noexcept {
    slice_used_ += flops;
    if (slice_used_ < slice_flops_)
      return false;
    slice_used_ = 0;
    return true;
  }
  /// Memory-bound work: a byte moved costs about as much time as 15 operations of a product.
  bool spent_bytes(double bytes) noexcept { return spent_flops(bytes * 15); }
  double slice_flops() const noexcept { return slice_flops_; }

  // --- products, cut into slices

  /// out[T,N] = x[T,K] W^T, in row panels.
  sliced<status> linear(tensor x, const product_weight& w, tensor out);
  /// dx[T,K] = dy[T,N] W, in row panels.
  sliced<status> linear_backward_input(tensor dy, const product_weight& w, tensor dx);
  /// dw[N,K] += dy[T,N]^T x[T,K], in panels of rows of dw, so that no sum is cut.
  sliced<status> linear_backward_weight(tensor dy, tensor x, tensor dw);

  // --- the rest, one call each

  status prepare(tensor weight, weight_use use, tensor prepared);
  uint64_t prepared_bytes(int64_t n, int64_t k, weight_use use) const {
    return ops().prepared_bytes(d(), n, k, act_, use);
  }
  status rms_norm(tensor x, tensor residual, tensor sum, tensor gain, tensor out, tensor rstd);
  status rms_norm_backward(tensor dy, tensor x, tensor gain, tensor rstd, tensor dresidual, tensor dx,
                           tensor dgain);
  status rope(tensor heads, tensor positions, bool inverse);
  status convert(tensor x, tensor out);
  status fill_zero(tensor t) { return queue_->fill(t.data, 0, t.bytes()); }
  status upload(tensor to, const void* from) { return queue_->copy(to.data, from, to.bytes()); }

private:
  engine() = default;
  int64_t panel_rows(int64_t rows, double flops_per_row) const noexcept;

  kernels::device_ptr device_;
  std::unique_ptr<kernels::queue> queue_;
  architecture shape_;
  dtype act_ = dtype::f32;
  float eps_ = 1e-6F;
  kernels::buffer_ptr tables_;
  tensor cosine_, sine_;
  kernels::buffer_ptr workspace_;
  double slice_flops_ = 0;
  double slice_used_ = 0;
};

/// Waits for the queue when it goes out of scope: what a cancelled coroutine owned may still be read by
/// enqueued copies.
class wait_at_end {
public:
  explicit wait_at_end(engine& e) noexcept : engine_(&e) {}
  ~wait_at_end() { (void)engine_->queue().wait(); }
  wait_at_end(const wait_at_end&) = delete;
  wait_at_end& operator=(const wait_at_end&) = delete;

private:
  engine* engine_;
};

/// Sets a flag for as long as it lives; an operation of a kind that may run once at a time holds one.
class busy_guard {
public:
  explicit busy_guard(bool& flag) noexcept : flag_(&flag) { flag = true; }
  ~busy_guard() { *flag_ = false; }
  busy_guard(const busy_guard&) = delete;
  busy_guard& operator=(const busy_guard&) = delete;

private:
  bool* flag_;
};

/// Host memory for a result, 64-byte aligned.
std::shared_ptr<std::byte[]> host_memory(uint64_t bytes);

} // namespace neuroshard::model
