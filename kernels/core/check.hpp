#pragma once

#include "kernels/core/backend.hpp"

/// The checks of every operation's arguments, shared by all backends so that a bad call is refused alike
/// everywhere. They read shapes, types, strides and host parameters, never device memory, and answer
/// code::invalid_argument with one line that names the operation and the operand. A call that passes may
/// still have zero rows.
namespace neuroshard::kernels {

/// What a backend asks for beyond the published shapes: its own sizes for this call.
struct needed_bytes {
  uint64_t prepared = 0;  ///< of the prepared weight (backend::prepared_bytes)
  uint64_t workspace = 0; ///< of the scratch memory (backend::*_workspace)
};

status check(const prepare_weight_args& a, const needed_bytes& needed);
status check(const linear_args& a, const needed_bytes& needed);
status check(const linear_backward_input_args& a, const needed_bytes& needed);
status check(const linear_backward_weight_args& a, const needed_bytes& needed);
status check(const embedding_args& a);
status check(const embedding_backward_args& a, const needed_bytes& needed);
status check(const rms_norm_args& a);
status check(const rms_norm_backward_args& a, const needed_bytes& needed);
status check(const rope_args& a);
status check(const attention_args& a, const needed_bytes& needed);
status check(const attention_backward_args& a, const needed_bytes& needed);
status check(const kv_append_args& a);
status check(const paged_attention_args& a, const needed_bytes& needed);
status check(const swiglu_args& a);
status check(const swiglu_backward_args& a);
status check(const cross_entropy_args& a, const needed_bytes& needed);
status check(const sample_args& a, const needed_bytes& needed);
status check(const adamw_args& a);
status check(const grad_norm_args& a, const needed_bytes& needed);
status check(const clip_factor_args& a);
status check(const convert_args& a);
status check(const add_args& a);

/// The sizes of a raw copy or fill: an address wherever there are bytes.
status check_copy(const void* to, const void* from, uint64_t bytes);

} // namespace neuroshard::kernels
