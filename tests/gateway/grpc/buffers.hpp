#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <string>

namespace neuroshard::test {

inline grpc::ByteBuffer buffer_of(const std::string& text) {
  const grpc::Slice slice(text);
  return {&slice, 1};
}

/// Empty when the buffer is none.
inline std::string text_of(const grpc::ByteBuffer& from) {
  grpc::Slice slice;
  return from.DumpToSingleSlice(&slice).ok()
             ? std::string(reinterpret_cast<const char*>(slice.begin()), slice.size())
             : std::string{};
}

} // namespace neuroshard::test
