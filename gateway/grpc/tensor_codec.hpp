#pragma once

#include "actors/common/tensor_handle.hpp"
#include "gateway/grpc/wire.hpp"

#include <caf/expected.hpp>

#include <cstdint>

/// Tensors on the wire and the actors' handles (spec/grpc-api.md section 3, Tensor).
namespace neuroshard::rpc {

inline constexpr uint64_t tensor_bytes_max = 64ULL * 1024 * 1024; ///< uncompressed

enum class tensor_kind : uint8_t {
  values, ///< activations, gradients, logits: floating, no NaN, no infinity
  numbers ///< token ids, positions, labels: i32
};

/// The tensor in host memory, its checksum compared. It refers to the message's bytes where these are in one
/// piece and lie as their type needs; otherwise they are copied, once. Refusals: invalid_request, naming
/// `field`.
caf::expected<tensor_handle> read_tensor(const wire_tensor& from, tensor_kind kind, const char* field);

/// Adds a handle's bytes to a message, from where they lie. Nothing is added for an empty handle. Refusal:
/// internal, for a tensor that is not contiguous in host memory and ready, or larger than a message may be.
caf::error write_tensor(const tensor_handle& from, uint32_t field, message_writer& to);

} // namespace neuroshard::rpc
