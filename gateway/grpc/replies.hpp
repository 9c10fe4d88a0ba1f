#pragma once

#include "actors/common/clock.hpp"
#include "kernels/core/sha256.hpp"

#include <caf/error.hpp>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard::rpc {

/// Recognizes a repeated call (spec/grpc-api.md section 1): the same caller, method, request id and bytes.
/// While the first runs, the second gets its reply; for a minute after it, the stored one. Only good replies
/// are stored: one that failed is run again. The bytes are hashed only when there is something to compare:
/// another call with the same id, or a reply to be stored. Thread safe.
class reply_store {
public:
  struct key {
    std::string caller, method, request_id;
    friend auto operator<=>(const key&, const key&) = default;
  };
  /// The reply, or, where the error is set, why there is none.
  using answer = std::function<void(const caf::error&, const grpc::ByteBuffer&)>;

  /// A call that runs.
  class running {
  public:
    running(key call, grpc::ByteBuffer request) : call_(std::move(call)), request_(std::move(request)) {}
    const kernels::digest& digest();

  private:
    friend class reply_store;
    const key call_;
    const grpc::ByteBuffer request_;
    std::once_flag hashed_;
    kernels::digest digest_{};
    std::vector<answer> joined_;
  };
  using ticket = std::shared_ptr<running>;

  explicit reply_store(time_source_ptr time) : time_(std::move(time)) {}

  /// A ticket: this is the first, run it and call done(). Null: `answer` has been called, or will be by
  /// done(). `request` shares its bytes.
  ticket begin(const key& call, const grpc::ByteBuffer& request, answer on_reply);
  /// The reply of the first; hands it to whoever joined.
  void done(const ticket& first, const caf::error& why, const grpc::ByteBuffer& reply);

  size_t stored_bytes() const;

private:
  using whole_key = std::pair<key, kernels::digest>;
  struct stored {
    grpc::ByteBuffer reply;
    size_t bytes = 0;
    int64_t until_us = 0;
    std::list<whole_key>::iterator used;
  };
  using replies = std::map<whole_key, stored>;
  void drop(replies::iterator at);
  bool known(const key& call) const;

  time_source_ptr time_;
  mutable std::mutex lock_;
  std::multimap<key, ticket> running_;
  replies replies_;
  std::list<whole_key> by_use_; ///< least recently used first
  size_t bytes_ = 0;
};

/// SHA-256 of the bytes as received.
kernels::digest digest_of(const grpc::ByteBuffer& bytes);

} // namespace neuroshard::rpc
