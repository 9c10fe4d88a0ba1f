#include "gateway/grpc/replies.hpp"

#include <utility>

namespace neuroshard::rpc {

namespace {

constexpr size_t reply_bytes_max = 64 * 1024;
constexpr size_t all_bytes_max = 64 * 1024 * 1024;
constexpr int64_t kept_us = 60'000'000;
/// What a stored reply costs beside its bytes: key, nodes of map and list.
constexpr size_t overhead_bytes = 512;

} // namespace

bool reply_store::begin(const key& call, answer on_reply) {
  grpc::ByteBuffer again;
  {
    const std::lock_guard hold{lock_};
    if (const auto at = running_.find(call); at != running_.end()) {
      at->second.push_back(std::move(on_reply));
      return false;
    }
    const auto at = replies_.find(call);
    if (at == replies_.end() || time_->steady_us() >= at->second.until_us) {
      if (at != replies_.end())
        drop(at);
      running_.emplace(call, std::vector<answer>{});
      return true;
    }
    by_use_.splice(by_use_.end(), by_use_, at->second.used);
    again = at->second.reply;
  }
  on_reply(grpc::Status::OK, again);
  return false;
}

void reply_store::done(const key& call, const grpc::Status& status, const grpc::ByteBuffer& reply) {
  std::vector<answer> joined;
  {
    const std::lock_guard hold{lock_};
    if (const auto at = running_.find(call); at != running_.end()) {
      joined = std::move(at->second);
      running_.erase(at);
    }
    const int64_t now_us = time_->steady_us();
    while (!by_use_.empty()) {
      const auto oldest = replies_.find(by_use_.front());
      if (now_us < oldest->second.until_us && bytes_ + reply.Length() + overhead_bytes <= all_bytes_max)
        break;
      drop(oldest);
    }
    if (status.ok() && reply.Length() <= reply_bytes_max && !replies_.contains(call)) {
      const size_t bytes = reply.Length() + overhead_bytes;
      replies_[call] = {reply, bytes, now_us + kept_us, by_use_.insert(by_use_.end(), call)};
      bytes_ += bytes;
    }
  }
  for (const auto& one : joined)
    one(status, reply);
}

void reply_store::drop(std::map<key, stored>::iterator at) {
  bytes_ -= at->second.bytes;
  by_use_.erase(at->second.used);
  replies_.erase(at);
}

size_t reply_store::stored_bytes() const {
  const std::lock_guard hold{lock_};
  return bytes_;
}

} // namespace neuroshard::rpc
