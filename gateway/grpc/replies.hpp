#pragma once

#include "actors/common/clock.hpp"
#include "kernels/core/sha256.hpp"

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace neuroshard::rpc {

/// Recognizes a repeated call (spec/grpc-api.md section 1): the same caller, method, request id and bytes.
/// While the first runs, the second gets its reply; for a minute after it, the stored one. Only good replies
/// are stored: one that failed is run again. Thread safe.
class reply_store {
public:
  struct key {
    std::string caller, method, request_id;
    kernels::digest bytes{};
    friend auto operator<=>(const key&, const key&) = default;
  };
  using answer = std::function<void(const grpc::Status&, const grpc::ByteBuffer&)>;

  explicit reply_store(time_source_ptr time) : time_(std::move(time)) {}

  /// True: this is the first, run it and call done(). False: `answer` has been called, or will be by done().
  bool begin(const key& call, answer on_reply);
  /// The reply of the first; hands it to whoever joined.
  void done(const key& call, const grpc::Status& status, const grpc::ByteBuffer& reply);

  size_t stored_bytes() const;

private:
  struct stored {
    grpc::ByteBuffer reply;
    size_t bytes = 0;
    int64_t until_us = 0;
    std::list<key>::iterator used;
  };
  void drop(std::map<key, stored>::iterator at);

  time_source_ptr time_;
  mutable std::mutex lock_;
  std::map<key, std::vector<answer>> running_;
  std::map<key, stored> replies_;
  std::list<key> by_use_; ///< least recently used first
  size_t bytes_ = 0;
};

} // namespace neuroshard::rpc
