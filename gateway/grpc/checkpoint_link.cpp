#include "gateway/grpc/checkpoint_link.hpp"

#include "gateway/grpc/channels.hpp"
#include "gateway/grpc/checkpoint_codec.hpp"
#include "gateway/grpc/limits.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "gateway/grpc/status.hpp"
#include "neuroshard/work.grpc.pb.h"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <grpcpp/support/client_callback.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <utility>

namespace neuroshard::rpc {

namespace {

using checkpoint_link_interface =
    grpc_checkpoint_link_actor::extend<caf::reacts_to<call_end_ptr>, caf::reacts_to<tick_atom>>;

constexpr auto stream_look = std::chrono::milliseconds(500);
constexpr size_t streams_under_way_max = 16;

/// A stream to or from a peer. gRPC calls it on its threads, and it has the link go on; the link alone starts
/// the next operation. It holds the call open until it is let go.
class client_stream {
public:
  virtual ~client_stream() = default;
  /// Ends the call; the first reason counts.
  void give_up(caf::error why) {
    if (!fault_)
      fault_ = std::move(why);
    context_.TryCancel();
    let_go();
  }
  void let_go() {
    if (held_.exchange(false))
      remove_hold();
  }
  /// Nothing has moved for longer than the peer may be silent.
  bool silent(int64_t now_us) const { return awaits_peer_ && now_us - heard_us_ > silence_ms_ * 1'000; }
  caf::error fault_;

protected:
  void post(std::function<void()> what) {
    caf::anon_send(link_, call_end_ptr{std::make_shared<const std::function<void()>>(std::move(what))});
  }
  virtual void remove_hold() = 0;
  void awaits_peer() {
    heard_us_ = time_->steady_us();
    awaits_peer_ = true;
  }

public:
  grpc::ClientContext context_;
  channel_pool::connection over_;
  caf::actor link_;
  time_source_ptr time_;
  int64_t silence_ms_ = 0;
  std::atomic<bool> held_{true};
  std::atomic<bool> awaits_peer_{false};
  std::atomic<int64_t> heard_us_{0};
  std::function<void(const grpc::Status&)> done_; ///< on the link
};

class download_stream final : public client_stream,
                              public grpc::ClientReadReactor<CheckpointChunk>,
                              public std::enable_shared_from_this<download_stream> {
public:
  void start() {
    me_ = shared_from_this();
    NeuroShard::NewStub(over_.channel)->async()->GetCheckpoint(&context_, &request_, this);
    AddHold();
    awaits_peer();
    StartRead(&message_);
    StartCall();
  }
  void next() {
    if (!held_)
      return;
    awaits_peer();
    StartRead(&message_);
  }
  void OnReadDone(bool came) override {
    awaits_peer_ = false;
    if (!came)
      return let_go();
    post([me = shared_from_this()] { me->on_message_(); });
  }
  void OnDone(const grpc::Status& status) override {
    post([me = std::exchange(me_, nullptr), status] { me->done_(status); });
  }
  void remove_hold() override { RemoveHold(); }

  GetCheckpointRequest request_;
  CheckpointChunk message_;
  std::function<void()> on_message_; ///< on the link
  uint64_t bytes_ = 0;

private:
  std::shared_ptr<download_stream> me_; ///< until gRPC is done
};

class upload_stream final : public client_stream,
                            public grpc::ClientWriteReactor<CheckpointChunk>,
                            public std::enable_shared_from_this<upload_stream> {
public:
  void start() {
    me_ = shared_from_this();
    NeuroShard::NewStub(over_.channel)->async()->PutCheckpoint(&context_, &response_, this);
    AddHold();
    awaits_peer();
    StartWrite(&message_);
    StartCall();
  }
  void send() {
    if (!held_)
      return;
    awaits_peer();
    StartWrite(&message_);
  }
  /// There is no more; the peer's answer follows.
  void finish() {
    if (!held_)
      return;
    awaits_peer();
    StartWritesDone();
    let_go();
  }
  void OnWriteDone(bool sent) override {
    awaits_peer_ = false;
    if (!sent)
      return let_go();
    post([me = shared_from_this()] { me->on_sent_(); });
  }
  void OnDone(const grpc::Status& status) override {
    post([me = std::exchange(me_, nullptr), status] { me->done_(status); });
  }
  void remove_hold() override { RemoveHold(); }

  CheckpointChunk message_;
  PutCheckpointResponse response_;
  std::function<void()> on_sent_; ///< on the link
  uint64_t offset_ = 0;
  bool last_ = false;

private:
  std::shared_ptr<upload_stream> me_;
};

struct checkpoint_link_state {
  static inline const char* name = "checkpoint_link";
  using pointer = checkpoint_link_interface::stateful_pointer<checkpoint_link_state>;

  pointer self = nullptr;
  link_options options;
  std::unique_ptr<channel_pool> channels;
  uint64_t next_call = 0;
  std::map<uint64_t, std::shared_ptr<client_stream>> running;
  bool draining = false;

  ~checkpoint_link_state() {
    for (const auto& [id, stream] : running)
      stream->give_up(refuse(errc::cancelled, "The link has ended."));
  }

  caf::error may_begin() const {
    if (draining)
      return refuse(errc::draining, "The node is stopping.");
    if (running.size() >= streams_under_way_max)
      return refuse(errc::overloaded, "Too many checkpoints are under way.");
    return {};
  }

  void prepare(client_stream& stream, const peer_address& to, uint32_t budget_ms, Header& header) {
    header.set_request_id(random_hex(*options.random, 16));
    header.set_budget_ms(budget_ms);
    stream.context_.AddMetadata("ns-protocol", std::to_string(protocol_version));
    stream.context_.AddMetadata("ns-network", options.network);
    if (!options.certificate)
      stream.context_.AddMetadata("ns-node-id", options.own_node_id);
    stream.over_ = channels->to(to, channel_use::bulk);
    stream.link_ = caf::actor_cast<caf::actor>(self);
    stream.time_ = options.time;
    stream.silence_ms_ = budget_ms;
  }

  caf::result<checkpoint_download_end> download(peer_call<checkpoint_download>& call) {
    if (auto refused = may_begin())
      return refused;
    const auto stream = std::make_shared<download_stream>();
    write(call.what.what, stream->request_);
    prepare(*stream, call.to, call.budget_ms, *stream->request_.mutable_header());
    auto promise = self->make_response_promise<checkpoint_download_end>();
    const uint64_t id = next_call++;
    running.emplace(id, stream);
    auto* const raw = stream.get(); // the stream owns what is called here
    stream->done_ = [this, id, raw, promise](const grpc::Status& status) mutable {
      running.erase(id);
      if (raw->fault_)
        promise.deliver(std::move(raw->fault_));
      else if (!status.ok())
        promise.deliver(error_of(status, raw->context_));
      else
        promise.deliver(checkpoint_download_end{raw->bytes_});
    };
    stream->on_message_ = [this, raw, sink = call.what.sink, download_id = call.what.download_id] {
      hand_on(raw->shared_from_this(), sink, download_id);
    };
    stream->start();
    return promise;
  }

  /// One message to the sink; the next is read when it is done with this one.
  void hand_on(const std::shared_ptr<download_stream>& stream, const checkpoint_sink_actor& sink,
               uint64_t download_id) {
    checkpoint_part part;
    part.download_id = download_id;
    if (stream->message_.has_manifest()) {
      auto manifest = read_manifest(stream->message_);
      if (!manifest)
        return stream->give_up(std::move(manifest.error()));
      part.manifest = std::move(*manifest);
    }
    auto chunk = take_chunk(stream->message_);
    if (!chunk)
      return stream->give_up(std::move(chunk.error()));
    part.chunk = std::move(*chunk);
    if (part.chunk.data)
      stream->bytes_ += part.chunk.data->size();
    self->request(sink, caf::infinite, std::move(part))
        .then([stream] { stream->next(); }, [stream](caf::error& why) { stream->give_up(std::move(why)); });
  }

  caf::result<put_checkpoint_reply> upload(peer_call<checkpoint_upload>& call) {
    if (auto refused = may_begin())
      return refused;
    const auto stream = std::make_shared<upload_stream>();
    auto& message = stream->message_;
    write(call.what.manifest, *message.mutable_manifest());
    message.mutable_header()->set_architecture_id(call.what.architecture_id);
    prepare(*stream, call.to, call.budget_ms, *message.mutable_header());
    stream->offset_ = call.what.offset;
    stream->last_ = call.what.manifest_only;
    auto promise = self->make_response_promise<put_checkpoint_reply>();
    const uint64_t id = next_call++;
    running.emplace(id, stream);
    auto* const raw = stream.get();
    stream->done_ = [this, id, raw, promise](const grpc::Status& status) mutable {
      running.erase(id);
      // A peer that has it already, or wants no more, answers before the last byte.
      if (raw->fault_)
        return void(promise.deliver(std::move(raw->fault_)));
      if (!status.ok())
        return void(promise.deliver(error_of(status, raw->context_)));
      auto reply = read(raw->response_);
      if (reply)
        promise.deliver(std::move(*reply));
      else
        promise.deliver(std::move(reply.error()));
    };
    stream->on_sent_ = [this, raw, source = call.what.source, stream_id = call.what.stream_id] {
      send_next(raw->shared_from_this(), source, stream_id);
    };
    stream->start();
    return promise;
  }

  void send_next(const std::shared_ptr<upload_stream>& stream, const checkpoint_chunks_actor& source,
                 uint64_t stream_id) {
    if (stream->last_)
      return stream->finish();
    self->request(source, caf::infinite, read_chunk{stream_id, stream->offset_})
        .then(
            [stream](const checkpoint_chunk& chunk) {
              stream->message_.Clear();
              if (auto wrong = write(chunk, CODEC_NONE, stream->message_))
                return stream->give_up(std::move(wrong));
              stream->offset_ += chunk.data->size();
              stream->last_ = chunk.last;
              stream->send();
            },
            [stream](caf::error& why) { stream->give_up(std::move(why)); });
  }

  void look() {
    const int64_t now_us = options.time->steady_us();
    for (const auto& [id, stream] : running)
      if (stream->silent(now_us)) {
        problem what;
        what.message = "The peer was silent for too long.";
        what.reason = "silence";
        stream->give_up(refuse(errc::timeout, std::move(what)));
      }
    channels->close_idle();
  }
};

checkpoint_link_interface::behavior_type grpc_checkpoint_link(checkpoint_link_state::pointer self,
                                                              link_options options) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.channels = std::make_unique<channel_pool>(state.options.certificate, state.options.time);
  self->delayed_send(self, stream_look, tick_atom_v);
  return {
      [self](peer_call<checkpoint_download>& call) { return self->state.download(call); },
      [self](peer_call<checkpoint_upload>& call) { return self->state.upload(call); },
      [self](drain_atom) {
        self->state.draining = true;
        for (const auto& [id, stream] : self->state.running)
          stream->give_up(refuse(errc::draining, "The node is stopping."));
      },
      [self](status_atom) -> actor_status {
        return {self->state.name,
                actor_status::health::ok,
                "",
                {{"channels", std::to_string(self->state.channels->size())},
                 {"streams", std::to_string(self->state.running.size())}}};
      },
      [](const call_end_ptr& end) { (*end)(); },
      [self](tick_atom) {
        self->state.look();
        self->delayed_send(self, stream_look, tick_atom_v);
      },
  };
}

} // namespace

grpc_checkpoint_link_actor spawn_checkpoint_link(caf::actor_system& system, link_options options) {
  return system.spawn(grpc_checkpoint_link, std::move(options));
}

} // namespace neuroshard::rpc
