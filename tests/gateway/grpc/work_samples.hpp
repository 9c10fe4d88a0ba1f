#pragma once

#include "actors/relay/relay_actor.hpp"
#include "kernels/core/crc32c.hpp"
#include "neuroshard/work.pb.h"

#include <grpcpp/support/byte_buffer.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::test {

/// A tensor with bytes that differ.
inline tensor_handle sample_tensor(kernels::dtype type, std::initializer_list<int64_t> shape,
                                   uint32_t seed = 1) {
  tensor_handle made;
  auto view = kernels::make_tensor(nullptr, type, shape);
  auto bytes = std::make_shared<std::vector<uint8_t>>(view.bytes());
  for (size_t i = 0; i < bytes->size(); ++i)
    (*bytes)[i] = static_cast<uint8_t>((i * 37 + seed) % 60); // no exponent of all ones
  view.data = bytes->data();
  made.view = view;
  made.owner = std::move(bytes);
  return made;
}

inline bool same_tensor(const tensor_handle& a, const tensor_handle& b) {
  if (!a || !b)
    return !a && !b;
  return a.view.type == b.view.type && a.view.rank == b.view.rank && a.view.shape == b.view.shape &&
         std::memcmp(a.view.data, b.view.data, a.view.bytes()) == 0;
}

inline void fill(Tensor& to, DType type, const std::vector<int64_t>& shape, std::string data) {
  to.set_dtype(type);
  to.mutable_shape()->Clear();
  for (const auto dim : shape)
    to.add_shape(dim);
  to.set_codec(CODEC_NONE);
  to.set_crc32c(kernels::crc32c(data.data(), data.size()));
  to.set_data(std::move(data));
}

/// A decode of one token, as a stock client would write it.
inline ForwardRequest plain_forward() {
  ForwardRequest made;
  made.mutable_header()->set_request_id("0123456789abcdef");
  made.mutable_header()->set_session_id(std::string(32, '5'));
  made.mutable_header()->set_architecture_id("00112233aabbccdd");
  made.mutable_header()->set_budget_ms(5'000);
  made.set_mode(FORWARD_MODE_DECODE);
  made.set_layer_begin(1);
  made.set_layer_end(3);
  fill(*made.mutable_hidden(), DTYPE_BF16, {1, 1, 8}, std::string(16, '\x3c'));
  return made;
}

/// `bytes` in slices of `each`; 0: in one.
inline grpc::ByteBuffer in_slices(const std::string& bytes, size_t each = 0) {
  std::vector<grpc::Slice> slices;
  if (each == 0)
    each = std::max<size_t>(bytes.size(), 1);
  for (size_t at = 0; at < bytes.size(); at += each)
    slices.emplace_back(bytes.data() + at, std::min(each, bytes.size() - at));
  return {slices.data(), slices.size()};
}

} // namespace neuroshard::test
