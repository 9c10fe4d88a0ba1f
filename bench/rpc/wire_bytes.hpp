#pragma once

#include "actors/common/error.hpp"
#include "gateway/grpc/exchange_codec.hpp"
#include "gateway/grpc/work_codec.hpp"

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace neuroshard::bench {

/// Bytes of a message as the gateway serializes it, without framing: `write` of its codec, which the
/// including source brings. Ends the program where it cannot be written.
template <class... Message>
uint64_t wire_bytes(const Message&... what) {
  grpc::ByteBuffer bytes;
  if (auto wrong = rpc::write(what..., bytes)) {
    std::fprintf(stderr, "%s\n", problem_of(wrong).message.c_str());
    std::exit(1);
  }
  return bytes.Length();
}

} // namespace neuroshard::bench
