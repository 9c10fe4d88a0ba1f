#pragma once

#include "actors/common/error.hpp"
#include "neuroshard/types.pb.h"

#include <caf/expected.hpp>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

/// Messages with tensors, without protobuf touching the tensors' bytes: they are found in the message as it
/// was received, and sent from where they lie.
namespace neuroshard::rpc {

/// Of a message without its tensors' data.
inline constexpr size_t small_bytes_max = 4 * 1024 * 1024;

/// A Tensor as received: `data` is what the message's own slices hold.
struct wire_tensor {
  Tensor head; ///< all but `data`
  std::vector<grpc::Slice> data;
  size_t bytes = 0;
};

/// A field of bytes as received, where the message's own slices hold it.
struct wire_bytes {
  std::vector<grpc::Slice> data;
  size_t bytes = 0;
};

struct wire_message {
  std::string small; ///< every field that is no tensor and no large bytes, for protobuf to parse
  std::map<uint32_t, wire_tensor> tensors;
  std::map<uint32_t, wire_bytes> bytes;
};

/// A field of a message that is not as it must be: invalid_request, reason `malformed`.
caf::error malformed(const char* field, const char* message);

/// Takes a message apart; the fields `tensor_fields` are Tensors, `bytes_fields` large bytes. Copies small
/// fields alone, and no more than small_bytes_max of them. Refuses what protobuf would not parse, groups, and
/// a tensor or large bytes that are there twice.
caf::expected<wire_message> take_apart(const grpc::ByteBuffer& from, std::span<const uint32_t> tensor_fields,
                                       std::span<const uint32_t> bytes_fields = {});

/// Puts a message together of protobuf's bytes and of tensors.
class message_writer {
public:
  /// `small`: a serialized message without its tensors.
  explicit message_writer(std::string small) : open_(std::move(small)) {}

  /// `head`: the Tensor without its data; `data` lies where `owner` keeps it until the message is sent.
  void add_tensor(uint32_t field, const Tensor& head, std::span<const uint8_t> data,
                  std::shared_ptr<const void> owner);
  /// A field of bytes, likewise from where they lie.
  void add_bytes(uint32_t field, std::span<const uint8_t> data, std::shared_ptr<const void> owner);
  grpc::ByteBuffer finish();

private:
  void close();
  void add_data(std::span<const uint8_t> data, std::shared_ptr<const void> owner);

  std::string open_; ///< bytes since the last slice
  std::vector<grpc::Slice> slices_;
};

} // namespace neuroshard::rpc
