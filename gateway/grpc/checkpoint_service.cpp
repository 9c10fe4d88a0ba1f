#include "gateway/grpc/checkpoint_service.hpp"

#include "gateway/grpc/checkpoint_codec.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/unary.hpp"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

namespace neuroshard::rpc {

namespace {

/// What both directions share: who calls, the watch over silence, the end. At any time one thing is awaited,
/// an actor's answer or gRPC's, so what a stream knows needs no lock.
template <class Reactor>
class stream_call : public Reactor, public std::enable_shared_from_this<stream_call<Reactor>> {
public:
  stream_call(service_parts& parts, grpc::CallbackServerContext& context)
      : parts_(parts), context_(context), silence_ms_(parts.stream_silence_ms) {}
  ~stream_call() override = default;

  void OnDone() final {
    const auto last = std::exchange(me_, nullptr);
    {
      const std::lock_guard hold{lock_};
      over_ = true;
      alarm_.reset();
    }
    closed();
    if (!counted_as_.empty())
      parts_.limits.leave(counted_as_);
  }

protected:
  /// Keeps the stream alive until gRPC is done with it, and lets its caller in.
  caf::error begin() {
    me_ = this->shared_from_this();
    heard();
    watch();
    auto from = caller_of(context_, parts_);
    if (!from)
      return std::move(from.error());
    if (parts_.counters)
      parts_.counters->rpc_calls.fetch_add(1, std::memory_order_relaxed);
    if (const auto wait_ms = parts_.limits.enter(from->counted_as, call_class::other)) {
      problem refused;
      refused.message = "Too many calls.";
      refused.reason = "rate";
      refused.details.emplace_back("retry_after_ms", static_cast<int64_t>(*wait_ms));
      return refuse(errc::rate_limited, std::move(refused));
    }
    counted_as_ = from->counted_as;
    from_ = std::move(from->end);
    return from_.node_id.empty() ? announce_first() : caf::error{};
  }
  void heard() { heard_us_ = parts_.time->steady_us(); }

  void end(const caf::error& why) {
    if (!why)
      return this->Finish(grpc::Status::OK);
    auto status = answer_with(why, context_);
    const auto reason = problem_of(why).reason;
    if (reason == "protocol" || reason == "unimplemented")
      status = {grpc::StatusCode::UNIMPLEMENTED, status.error_message()};
    else if (reason == "offset")
      status = {grpc::StatusCode::OUT_OF_RANGE, status.error_message()};
    this->Finish(std::move(status));
  }

  /// Asks an actor; `then` hears its answer exactly once, also when nobody answers any more.
  template <class Reply, class Handle, class Request>
  void ask(const Handle& to, Request what, std::function<void(caf::expected<Reply>)> then) {
    struct awaited {
      std::shared_ptr<stream_call> alive;
      std::function<void(caf::expected<Reply>)> then;
      ~awaited() {
        if (then)
          then(refuse(errc::unavailable, "The node is stopping."));
      }
    };
    auto waiting = std::make_shared<awaited>();
    waiting->alive = this->shared_from_this();
    waiting->then = std::move(then);
    parts_.submit(std::make_shared<actor_call<Reply, Handle, Request>>(
        to, std::move(what), std::chrono::milliseconds(silence_ms_),
        [waiting = std::move(waiting)](caf::expected<Reply> reply) {
          if (const auto hears = std::exchange(waiting->then, nullptr))
            hears(std::move(reply));
        }));
  }
  template <class Handle, class Message>
  void tell(const Handle& to, Message message) {
    parts_.submit(std::make_shared<http::tell_call<Handle, Message>>(to, std::move(message)));
  }
  virtual void closed() = 0;

  service_parts& parts_;
  grpc::CallbackServerContext& context_;
  connection_end from_;

private:
  void watch() {
    const std::lock_guard hold{lock_};
    if (over_)
      return;
    alarm_ = std::make_unique<grpc::Alarm>();
    const auto period = std::chrono::milliseconds(std::max<int64_t>(silence_ms_ / 4, 10));
    alarm_->Set(std::chrono::system_clock::now() + period, [weak = this->weak_from_this()](bool expired) {
      if (const auto stream = expired ? weak.lock() : nullptr)
        stream->look();
    });
  }
  /// Ends a stream whose peer neither sends nor takes anything.
  void look() {
    if (is_silent()) {
      const std::lock_guard hold{lock_};
      if (!over_)
        context_.TryCancel();
      return;
    }
    watch();
  }
  bool is_silent() {
    const std::lock_guard hold{lock_};
    return !over_ && parts_.time->steady_us() - heard_us_ > silence_ms_ * 1'000;
  }

  std::shared_ptr<stream_call> me_; ///< until gRPC is done
  std::string counted_as_;
  const int64_t silence_ms_;
  std::atomic<int64_t> heard_us_{0};
  std::recursive_mutex lock_; ///< cancelling may end the stream on the way
  bool over_ = false;
  std::unique_ptr<grpc::Alarm> alarm_;
};

class get_call final : public stream_call<grpc::ServerWriteReactor<CheckpointChunk>> {
public:
  using stream_call::stream_call;

  void start(const GetCheckpointRequest& request) {
    if (auto refused = begin())
      return end(refused);
    if (!parts_.checkpoints)
      return end(unimplemented());
    if (auto left = time_left(context_, &request.header()); !left)
      return end(left.error());
    auto call = read(request);
    if (!call)
      return end(call.error());
    codec_ = call->codec;
    offset_ = call->what.offset;
    ask<checkpoint_opened>(parts_.checkpoints, open_checkpoint{std::move(call->what), from_},
                           [this](caf::expected<checkpoint_opened> opened) { this->opened(opened); });
  }
  void OnWriteDone(bool sent) override {
    heard();
    if (!sent || context_.IsCancelled())
      return end(refuse(errc::cancelled, "The peer has gone."));
    if (last_)
      return end({});
    next();
  }

private:
  void opened(caf::expected<checkpoint_opened>& opened) {
    if (!opened)
      return end(opened.error());
    stream_id_ = opened->stream_id;
    last_ = stream_id_ == 0;
    rpc::write(opened->manifest, *message_.mutable_manifest());
    message_.set_offset(offset_);
    message_.set_codec(codec_);
    message_.set_last(last_);
    StartWrite(&message_);
  }
  void next() {
    ask<checkpoint_chunk>(parts_.checkpoints, read_chunk{stream_id_, offset_},
                          [this](caf::expected<checkpoint_chunk> chunk) {
                            if (!chunk)
                              return end(chunk.error());
                            message_.Clear();
                            if (auto wrong = write(*chunk, codec_, message_))
                              return end(wrong);
                            offset_ += chunk->data->size();
                            last_ = chunk->last;
                            if (last_) // before the peer sees the end, and may ask for the next
                              closed();
                            StartWrite(&message_);
                          });
  }
  void closed() override {
    if (stream_id_ != 0)
      tell(parts_.checkpoints, close_checkpoint{std::exchange(stream_id_, 0)});
  }

  CheckpointChunk message_;
  Codec codec_ = CODEC_NONE;
  uint64_t stream_id_ = 0;
  uint64_t offset_ = 0;
  bool last_ = false;
};

class put_call final : public stream_call<grpc::ServerReadReactor<CheckpointChunk>> {
public:
  put_call(service_parts& parts, grpc::CallbackServerContext& context, PutCheckpointResponse& response)
      : stream_call(parts, context), response_(response) {}

  void start() {
    if (auto refused = begin())
      return end(refused);
    if (!parts_.uploads)
      return end(unimplemented());
    StartRead(&message_);
  }
  void OnReadDone(bool came) override {
    heard();
    if (context_.IsCancelled())
      return end(refuse(errc::cancelled, "The peer has gone."));
    if (!came)
      return finish_upload();
    if (!begun_)
      return first();
    take();
  }

private:
  void first() {
    if (auto left = time_left(context_, &message_.header()); !left)
      return end(left.error());
    auto manifest = read_manifest(message_);
    if (!manifest)
      return end(manifest.error());
    begun_ = true;
    ask<upload_begun>(parts_.uploads, begin_upload{std::move(*manifest), from_},
                      [this](caf::expected<upload_begun> begun) {
                        if (!begun)
                          return end(begun.error());
                        upload_id_ = begun->upload_id;
                        if (upload_id_ != 0)
                          return take();
                        put_checkpoint_reply reply;
                        reply.status = put_status::already_have;
                        reply.checkpoint_id = begun->checkpoint_id;
                        reply.received_bytes = reply.resume_offset = begun->resume_offset;
                        write(reply, response_);
                        end({});
                      });
  }
  /// The bytes of a message; the first one may have none.
  void take() {
    auto chunk = take_chunk(message_);
    if (!chunk)
      return end(chunk.error());
    if (!chunk->data)
      return StartRead(&message_);
    ask<done_reply>(parts_.uploads, upload_chunk{upload_id_, std::move(*chunk)},
                    [this](const caf::expected<done_reply>& taken) {
                      if (!taken)
                        return end(taken.error());
                      StartRead(&message_);
                    });
  }
  void finish_upload() {
    if (!begun_)
      return end(malformed("manifest", "The first message of a checkpoint has its manifest."));
    ask<put_checkpoint_reply>(parts_.uploads, end_upload{std::exchange(upload_id_, 0)},
                              [this](caf::expected<put_checkpoint_reply> reply) {
                                if (!reply)
                                  return end(reply.error());
                                write(*reply, response_);
                                end({});
                              });
  }
  void closed() override {
    if (upload_id_ != 0)
      tell(parts_.uploads, abort_upload{upload_id_});
  }

  PutCheckpointResponse& response_;
  CheckpointChunk message_;
  bool begun_ = false;
  uint64_t upload_id_ = 0;
};

} // namespace

grpc::ServerWriteReactor<CheckpointChunk>* serve_get_checkpoint(service_parts& parts,
                                                                grpc::CallbackServerContext* context,
                                                                const GetCheckpointRequest* request) {
  const auto call = std::make_shared<get_call>(parts, *context);
  call->start(*request);
  return call.get();
}

grpc::ServerReadReactor<CheckpointChunk>* serve_put_checkpoint(service_parts& parts,
                                                               grpc::CallbackServerContext* context,
                                                               PutCheckpointResponse* response) {
  const auto call = std::make_shared<put_call>(parts, *context, *response);
  call->start();
  return call.get();
}

} // namespace neuroshard::rpc
