#pragma once

#include "kernels/core/backend.hpp"

/// The portable backend's operations: plain loops in the order of the formulas, sums in f32 unless the
/// contract says f64. They are the specification that the fast backends are tested against, so they are
/// written to be read. Each does all of its work before it returns; a queue is no more than a name.
namespace neuroshard::kernels::reference {

/// Reads and writes the elements of a tensor of f32 or bf16 as f32; a store rounds to nearest even.
class elements {
public:
  explicit elements(const tensor& t) noexcept : t_(t) {}

  float get(int64_t i) const noexcept { return load(i * t_.stride[0]); }
  float get(int64_t i, int64_t j) const noexcept { return load(i * t_.stride[0] + j * t_.stride[1]); }
  float get(int64_t i, int64_t j, int64_t k) const noexcept {
    return load(i * t_.stride[0] + j * t_.stride[1] + k * t_.stride[2]);
  }
  void set(int64_t i, int64_t j, float value) const noexcept {
    store(i * t_.stride[0] + j * t_.stride[1], value);
  }
  void set(int64_t i, int64_t j, int64_t k, float value) const noexcept {
    store(i * t_.stride[0] + j * t_.stride[1] + k * t_.stride[2], value);
  }
  float load(int64_t offset) const noexcept {
    return t_.type == dtype::bf16 ? to_f32(t_.as<bf16>()[offset]) : t_.as<float>()[offset];
  }
  void store(int64_t offset, float value) const noexcept {
    if (t_.type == dtype::bf16)
      t_.as<bf16>()[offset] = to_bf16(value);
    else
      t_.as<float>()[offset] = value;
  }

private:
  tensor t_;
};

/// The i32 indices of a rank-1 operand.
inline int64_t index_at(const tensor& t, int64_t i) noexcept {
  return t.as<int32_t>()[i * t.stride[0]];
}

// memory.cpp: devices, memory, queues, events
int device_count();
status open(const device_options& options, void** device);
void close(void* device);
void info(void* device, device_info& out);
status alloc(void* device, uint64_t bytes, void** address);
void free(void* device, void* address, uint64_t bytes);
status open_queue(void* device, void** queue);
void close_queue(void* queue);
status copy(void* queue, void* to, const void* from, uint64_t bytes);
status fill(void* queue, void* to, uint8_t value, uint64_t bytes);
status wait(void* queue);
status make_event(void* device, void** event);
void destroy_event(void* event);
status record(void* queue, void* event);
status wait_event(void* queue, void* event);
bool query(void* event);

// linear.cpp
uint64_t prepared_bytes(void* device, int64_t n, int64_t k, dtype act, weight_use use);
uint64_t linear_workspace(void* device, const linear_args& a);
uint64_t linear_backward_input_workspace(void* device, const linear_backward_input_args& a);
uint64_t linear_backward_weight_workspace(void* device, const linear_backward_weight_args& a);
status prepare_weight(void* queue, const prepare_weight_args& a);
status linear(void* queue, const linear_args& a);
status linear_backward_input(void* queue, const linear_backward_input_args& a);
status linear_backward_weight(void* queue, const linear_backward_weight_args& a);

// elementwise.cpp
uint64_t embedding_backward_workspace(void* device, const embedding_backward_args& a);
status embedding(void* queue, const embedding_args& a);
status embedding_backward(void* queue, const embedding_backward_args& a);
status rope(void* queue, const rope_args& a);
status swiglu(void* queue, const swiglu_args& a);
status swiglu_backward(void* queue, const swiglu_backward_args& a);
status convert(void* queue, const convert_args& a);
status add(void* queue, const add_args& a);

// norm.cpp
uint64_t rms_norm_backward_workspace(void* device, const rms_norm_backward_args& a);
status rms_norm(void* queue, const rms_norm_args& a);
status rms_norm_backward(void* queue, const rms_norm_backward_args& a);

// attention.cpp
uint64_t attention_workspace(void* device, const attention_args& a);
uint64_t attention_backward_workspace(void* device, const attention_backward_args& a);
status attention(void* queue, const attention_args& a);
status attention_backward(void* queue, const attention_backward_args& a);

// paged_attention.cpp
uint64_t paged_attention_workspace(void* device, const paged_attention_args& a);
status kv_append(void* queue, const kv_append_args& a);
status paged_attention(void* queue, const paged_attention_args& a);

// loss.cpp
uint64_t cross_entropy_workspace(void* device, const cross_entropy_args& a);
status cross_entropy(void* queue, const cross_entropy_args& a);

// sample.cpp
uint64_t sample_workspace(void* device, const sample_args& a);
status sample(void* queue, const sample_args& a);

// optimizer.cpp
uint64_t grad_norm_workspace(void* device, const grad_norm_args& a);
status adamw(void* queue, const adamw_args& a);
status grad_norm(void* queue, const grad_norm_args& a);
status clip_factor(void* queue, const clip_factor_args& a);

} // namespace neuroshard::kernels::reference
