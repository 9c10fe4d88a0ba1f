#include "gateway/grpc/replies.hpp"

#include <utility>
#include <vector>

namespace neuroshard::rpc {

namespace {

constexpr size_t reply_bytes_max = 64 * 1024;
constexpr size_t all_bytes_max = 64 * 1024 * 1024;
constexpr int64_t kept_us = 60'000'000;
/// What a stored reply costs beside its bytes: key, nodes of map and list.
constexpr size_t overhead_bytes = 768;

} // namespace

kernels::digest digest_of(const grpc::ByteBuffer& bytes) {
  kernels::sha256 hash;
  std::vector<grpc::Slice> slices;
  if (bytes.Valid() && bytes.Dump(&slices).ok())
    for (const auto& slice : slices)
      hash.update(slice.begin(), slice.size());
  return hash.finish();
}

const kernels::digest& reply_store::running::digest() {
  std::call_once(hashed_, [this] { digest_ = digest_of(request_); });
  return digest_;
}

bool reply_store::known(const key& call) const {
  if (running_.contains(call))
    return true;
  const auto stored = replies_.lower_bound({call, kernels::digest{}});
  return stored != replies_.end() && stored->first.first == call;
}

reply_store::ticket reply_store::begin(const key& call, const grpc::ByteBuffer& request, answer on_reply) {
  const auto made = std::make_shared<running>(call, request);
  {
    const std::lock_guard hold{lock_};
    if (!known(call)) {
      running_.emplace(call, made);
      return made;
    }
  }
  const auto bytes = made->digest(); // away from the lock
  grpc::ByteBuffer again;
  {
    const std::lock_guard hold{lock_};
    const auto [first, last] = running_.equal_range(call);
    for (auto at = first; at != last; ++at)
      if (at->second->digest() == bytes) {
        at->second->joined_.push_back(std::move(on_reply));
        return nullptr;
      }
    const auto at = replies_.find({call, bytes});
    if (at == replies_.end() || time_->steady_us() >= at->second.until_us) {
      if (at != replies_.end())
        drop(at);
      running_.emplace(call, made);
      return made;
    }
    by_use_.splice(by_use_.end(), by_use_, at->second.used);
    again = at->second.reply;
  }
  on_reply({}, again);
  return nullptr;
}

void reply_store::done(const ticket& first, const caf::error& why, const grpc::ByteBuffer& reply) {
  const size_t length = why ? 0 : reply.Length();
  const bool kept = !why && length <= reply_bytes_max;
  if (kept)
    first->digest();
  std::vector<answer> joined;
  {
    const std::lock_guard hold{lock_};
    const auto [from, to] = running_.equal_range(first->call_);
    for (auto at = from; at != to; ++at)
      if (at->second == first) {
        running_.erase(at);
        break;
      }
    joined = std::move(first->joined_);
    const int64_t now_us = time_->steady_us();
    while (!by_use_.empty()) {
      const auto oldest = replies_.find(by_use_.front());
      if (now_us < oldest->second.until_us && bytes_ + length + overhead_bytes <= all_bytes_max)
        break;
      drop(oldest);
    }
    whole_key whole{first->call_, kept ? first->digest() : kernels::digest{}};
    if (kept && !replies_.contains(whole)) {
      const size_t bytes = length + overhead_bytes;
      replies_[whole] = {reply, bytes, now_us + kept_us, by_use_.insert(by_use_.end(), whole)};
      bytes_ += bytes;
    }
  }
  for (const auto& one : joined)
    one(why, reply);
}

void reply_store::drop(replies::iterator at) {
  bytes_ -= at->second.bytes;
  by_use_.erase(at->second.used);
  replies_.erase(at);
}

size_t reply_store::stored_bytes() const {
  const std::lock_guard hold{lock_};
  return bytes_;
}

} // namespace neuroshard::rpc
