#include "tests/actors/checkpointer/checkpoint_stream_support.hpp"
#include "tests/gateway/grpc/two_nodes_fixture.hpp"

#include "gateway/grpc/checkpoint_codec.hpp"
#include "gateway/grpc/checkpoint_link.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "neuroshard/work.grpc.pb.h"

#include <grpcpp/create_channel.h>

#include <atomic>
#include <cstdlib>
#include <random>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Two nodes with a server, a link and the checkpoint actors each, without certificates; the first has a
/// checkpoint.
struct checkpoint_peers {
  struct config : caf::actor_system_config {
    config() {
      add_message_types<caf::id_block::neuroshard_common>();
      add_message_types<caf::id_block::neuroshard_status>();
      add_message_types<caf::id_block::neuroshard_peer_manager>();
      add_message_types<caf::id_block::neuroshard_peer_link>();
      add_message_types<caf::id_block::neuroshard_grpc_link>();
      add_message_types<caf::id_block::neuroshard_layer_worker>();
      add_message_types<caf::id_block::neuroshard_relay>();
      add_message_types<caf::id_block::neuroshard_checkpoint_stream>();
      add_message_types<caf::id_block::neuroshard_http>();
      set("scheduler.max-threads", 2);
    }
  };
  struct node {
    served_place place;
    std::shared_ptr<const node_identity> who;
    rpc::grpc_checkpoint_link_actor link;
    checkpoint_server_actor checkpoints;
    checkpoint_receiver_actor receiver;
    std::unique_ptr<rpc::server> server;
    uint16_t port = 0;
    peer_address at() const { return {who->node_id(), "127.0.0.1:" + std::to_string(port), std::nullopt}; }
  };

  config cfg;
  caf::actor_system sys{cfg};
  caf::scoped_actor self{sys};
  std::vector<std::unique_ptr<node>> nodes;
  std::string newest;

  explicit checkpoint_peers(int64_t silence_ms = stream_silence_ms) {
    for (unsigned i = 0; i < 3; ++i)
      join(i, silence_ms);
    newest = nodes[0]->place.write_with_velocity(200, 1);
    nodes[2]->place.write_with_velocity(200, 1);
  }
  ~checkpoint_peers() {
    for (auto& one : nodes) {
      one->server.reset();
      for (const auto& actor :
           {caf::actor_cast<caf::actor>(one->link), caf::actor_cast<caf::actor>(one->checkpoints),
            caf::actor_cast<caf::actor>(one->receiver)})
        self->send_exit(actor, caf::exit_reason::kill);
    }
  }
  void join(unsigned number, int64_t silence_ms) {
    auto made = std::make_unique<node>();
    made->who = make_identity(number);
    made->link = rpc::spawn_checkpoint_link(sys, {std::nullopt, "main", made->who->node_id(),
                                                  std::make_shared<rpc::caller_table>(), system_time(),
                                                  system_random()});
    const auto of_wallet = [](const std::string&) { return true; };
    auto serving = made->place.server_options();
    serving.same_wallet = of_wallet;
    made->checkpoints =
        sys.spawn<caf::detached>(checkpoint_server, std::move(serving), made->who, system_time());
    auto receiving = made->place.receiver_options();
    receiving.same_wallet = of_wallet;
    receiving.silence_ms = static_cast<uint32_t>(silence_ms);
    made->receiver =
        sys.spawn<caf::detached>(checkpoint_receiver, std::move(receiving),
                                 checkpoint_receiver_parts{caf::actor_cast<checkpoint_link_actor>(made->link),
                                                           system_time(), system_random()});
    auto parts =
        std::make_unique<rpc::service_parts>(sys, peer_manager_actor{}, std::make_shared<rpc::caller_table>(),
                                             "main", true, nullptr, system_time());
    parts->checkpoints = made->checkpoints;
    parts->uploads = made->receiver;
    parts->stream_silence_ms = silence_ms;
    made->port = free_port();
    auto server = rpc::server::start({"127.0.0.1", made->port, std::nullopt}, std::move(parts));
    REQUIRE(static_cast<bool>(server));
    made->server = std::move(*server);
    nodes.push_back(std::move(made));
  }
  template <class Reply, class Handle, class Request>
  std::pair<std::optional<Reply>, caf::error> ask(const Handle& whom, Request what) {
    std::pair<std::optional<Reply>, caf::error> end;
    auto asked = self->request(whom, std::chrono::seconds(60), std::move(what));
    if constexpr (std::is_same_v<Reply, caf::unit_t>)
      asked.receive([&] { end.first = caf::unit; }, [&](caf::error& why) { end.second = std::move(why); });
    else
      asked.receive([&](Reply& reply) { end.first = std::move(reply); },
                    [&](caf::error& why) { end.second = std::move(why); });
    return end;
  }
  uint64_t streams(const node& of) {
    const auto now = ask<actor_status>(of.checkpoints, status_atom_v);
    return std::stoull(now.first->values[0].second);
  }
  fetch_units wish() const {
    fetch_units what;
    what.candidates = {nodes[0]->at()};
    what.version = 2;
    what.expected = nodes[0]->place.announced(newest);
    what.include_velocity = true;
    what.include_tokenizer = true;
    return what;
  }
  void check_fetched(const fetched_units& got) {
    const auto weights = tiny_tensors(1);
    for (size_t i = 0; i < weights.size() / 3; ++i) {
      const auto& [name, tensor] = weights[i];
      const auto read = ask<tensor_handle>(nodes[1]->receiver, read_fetched{got.fetch_id, name});
      REQUIRE(read.first);
      const auto* values = read.first->view.as<float>();
      CHECK(std::vector<float>(values, values + tensor.values.size()) == tensor.values);
    }
  }
};

struct impatient_peers : checkpoint_peers {
  impatient_peers() : checkpoint_peers(300) {}
};

/// A client made by hand, as a stranger would.
struct hand_made {
  std::unique_ptr<NeuroShard::Stub> stub;

  explicit hand_made(const checkpoint_peers::node& to)
      : stub(NeuroShard::NewStub(grpc::CreateChannel(to.at().address, grpc::InsecureChannelCredentials()))) {}
  static std::unique_ptr<grpc::ClientContext> context(char peer = 'a') {
    auto made = std::make_unique<grpc::ClientContext>();
    made->AddMetadata("ns-protocol", "1");
    made->AddMetadata("ns-node-id", std::string(32, peer));
    made->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return made;
  }
  static GetCheckpointRequest request() {
    GetCheckpointRequest made;
    made.mutable_header()->set_request_id("0123456789abcdef");
    made.mutable_header()->set_budget_ms(30'000);
    made.set_chunk_bytes(chunk_bytes_min);
    made.set_codec(CODEC_NONE);
    return made;
  }
  struct outcome {
    std::vector<CheckpointChunk> chunks;
    grpc::Status status;
    std::string reason;
  };
  outcome get(const GetCheckpointRequest& what) {
    outcome end;
    const auto call = context();
    auto reader = stub->GetCheckpoint(call.get(), what);
    CheckpointChunk chunk;
    while (reader->Read(&chunk))
      end.chunks.push_back(chunk);
    end.status = reader->Finish();
    const auto& trailing = call->GetServerTrailingMetadata();
    if (const auto at = trailing.find("ns-reason"); at != trailing.end())
      end.reason = std::string(at->second.data(), at->second.size());
    return end;
  }
};

uint32_t stream_test_seed() {
  const char* given = std::getenv("NEUROSHARD_TEST_SEED");
  return given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
}

/// Passes TCP bytes on to a port, and cuts each connection after so many that came back.
struct cutting_proxy {
  int listener = -1;
  uint16_t port = 0;
  uint16_t to = 0;
  std::function<size_t()> after;
  std::atomic<bool> stopping{false};
  std::atomic<int> cut{0};
  std::atomic<int> open{-1}; ///< the connection that passes now; the client keeps it when it is done
  std::thread runs;

  cutting_proxy(uint16_t target, std::function<size_t()> bytes) : to(target), after(std::move(bytes)) {
    listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
    REQUIRE(::listen(listener, 8) == 0);
    REQUIRE(::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size) == 0);
    port = ntohs(at.sin_port);
    runs = std::thread([this] { run(); });
  }
  ~cutting_proxy() {
    stopping = true;
    ::shutdown(listener, SHUT_RDWR);
    if (const int now = open; now >= 0)
      ::shutdown(now, SHUT_RDWR);
    runs.join();
    ::close(listener);
  }
  void run() {
    while (!stopping) {
      const int near = ::accept(listener, nullptr, nullptr);
      if (near < 0)
        return;
      const int far = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in at{};
      at.sin_family = AF_INET;
      at.sin_port = htons(to);
      at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      if (::connect(far, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0) {
        open = far;
        if (!stopping)
          pass(near, far);
        open = -1;
      }
      ::close(near);
      ::close(far);
    }
  }
  void pass(int near, int far) {
    std::thread up([&] {
      char bytes[16'384];
      for (ssize_t n = 0; (n = ::recv(near, bytes, sizeof bytes, 0)) > 0;)
        if (::send(far, bytes, static_cast<size_t>(n), MSG_NOSIGNAL) != n)
          break;
      ::shutdown(far, SHUT_RDWR);
    });
    size_t left = after();
    char bytes[16'384];
    while (left > 0) {
      const ssize_t n = ::recv(far, bytes, std::min(left, sizeof bytes), 0);
      if (n <= 0 || ::send(near, bytes, static_cast<size_t>(n), MSG_NOSIGNAL) != n)
        break;
      left -= static_cast<size_t>(n);
    }
    if (left == 0)
      ++cut;
    ::shutdown(near, SHUT_RDWR);
    ::shutdown(far, SHUT_RDWR);
    up.join();
  }
};

} // namespace

TEST_CASE_FIXTURE(checkpoint_peers, "units go from node to node over gRPC and are what they were") {
  const auto got = ask<fetched_units>(nodes[1]->receiver, wish());
  INFO(problem_of(got.second).message);
  REQUIRE(got.first);
  CHECK(got.first->from == nodes[0]->who->node_id());
  check_fetched(*got.first);
  CHECK(wait_for([&] { return streams(*nodes[0]) == 0; }));
}

TEST_CASE_FIXTURE(
    checkpoint_peers,
    "a connection cut at random bytes costs no byte that was verified, and the end is the same") {
  const auto seed = stream_test_seed();
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937 random(seed);
  int connections = 0;
  cutting_proxy proxy(nodes[0]->port,
                      [&] { return ++connections > 4 ? size_t{100} << 20 : 100'000 + random() % 150'000; });
  auto what = wish();
  what.candidates[0].address = "127.0.0.1:" + std::to_string(proxy.port);
  const auto got = ask<fetched_units>(nodes[1]->receiver, what);
  INFO(problem_of(got.second).message);
  REQUIRE(got.first);
  CHECK(proxy.cut >= 1);
  check_fetched(*got.first);
}

TEST_CASE_FIXTURE(checkpoint_peers, "a candidate that is not there is passed over") {
  auto what = wish();
  what.candidates = {{std::string(32, 'a'), "127.0.0.1:" + std::to_string(free_port()), std::nullopt},
                     nodes[1]->at(),
                     nodes[2]->at()};
  const auto got = ask<fetched_units>(nodes[1]->receiver, what);
  INFO(problem_of(got.second).message);
  REQUIRE(got.first);
  CHECK(got.first->from == nodes[2]->who->node_id());
  CHECK(got.first->refused.size() == 2);
}

TEST_CASE_FIXTURE(checkpoint_peers,
                  "an upload over gRPC asks where to go on, is stored, and is not taken twice") {
  auto& from = *nodes[0];
  open_checkpoint request;
  request.what.chunk_bytes = chunk_bytes_min;
  const auto opened = ask<checkpoint_opened>(from.checkpoints, request);
  REQUIRE(opened.first);
  checkpoint_upload upload;
  upload.manifest = opened.first->manifest;
  upload.source = caf::actor_cast<checkpoint_chunks_actor>(from.checkpoints);
  upload.stream_id = opened.first->stream_id;
  const auto put = [&] {
    auto reply =
        ask<put_checkpoint_reply>(from.link, peer_call<checkpoint_upload>{nodes[1]->at(), upload, 30'000});
    INFO(problem_of(reply.second).message);
    REQUIRE(reply.first);
    return *reply.first;
  };
  upload.manifest_only = true;
  const auto asked = put();
  CHECK(asked.status == put_status::partial);
  CHECK(asked.resume_offset == 0);
  upload.manifest_only = false;
  const auto stored = put();
  CHECK(stored.status == put_status::stored);
  CHECK(stored.checkpoint_id == opened.first->checkpoint_id);
  CHECK(stored.received_bytes == opened.first->total_bytes);
  CHECK(put().status == put_status::already_have);
}

TEST_CASE_FIXTURE(checkpoint_peers,
                  "what cannot be served is refused with the status and the reason of the page") {
  hand_made client{*nodes[0]};
  const auto get = [&](auto change) {
    auto what = hand_made::request();
    change(what);
    return client.get(what);
  };
  const auto whole = get([](auto&) {});
  REQUIRE(whole.status.ok());
  REQUIRE(whole.chunks.size() > 2);
  CHECK(whole.chunks.front().has_manifest());
  CHECK(whole.chunks.back().last());
  const auto packed = get([](auto& w) { w.set_codec(CODEC_ZSTD); });
  REQUIRE(packed.status.ok());
  REQUIRE(packed.chunks.size() == whole.chunks.size());
  CHECK(packed.chunks[1].data().size() < whole.chunks[1].data().size());
  CHECK(packed.chunks[1].sha256() == whole.chunks[1].sha256());
  auto unpacked = packed.chunks[1];
  CHECK(*rpc::take_chunk(unpacked)->data == whole.chunks[1].data());
  const auto expect = [&](auto change, grpc::StatusCode code, const std::string& reason) {
    const auto end = get(change);
    CHECK(end.status.error_code() == code);
    CHECK(end.reason == reason);
  };
  expect([](auto& w) { w.set_version(9); }, grpc::StatusCode::NOT_FOUND, "checkpoint");
  expect([](auto& w) { w.add_units("layer.9"); }, grpc::StatusCode::NOT_FOUND, "unit");
  expect([](auto& w) { w.set_offset(uint64_t{1} << 40); }, grpc::StatusCode::OUT_OF_RANGE, "offset");
  expect([](auto& w) { w.set_chunk_bytes(1); }, grpc::StatusCode::INVALID_ARGUMENT, "chunk_bytes");
  expect([](auto& w) { w.set_codec(CODEC_UNSPECIFIED); }, grpc::StatusCode::INVALID_ARGUMENT, "malformed");
  expect([](auto& w) { w.mutable_header()->set_architecture_id("0123456789abcdef"); },
         grpc::StatusCode::FAILED_PRECONDITION, "architecture");
  expect([](auto& w) { w.mutable_header()->set_budget_ms(0); }, grpc::StatusCode::DEADLINE_EXCEEDED,
         "budget");
  const auto resumed = get([&](auto& w) {
    w.set_offset(chunk_bytes_min);
    w.set_checkpoint_id(checkpoint_id_of(*rpc::read_manifest(whole.chunks[0])));
  });
  REQUIRE(resumed.status.ok());
  CHECK(resumed.chunks.size() == whole.chunks.size() - 1);
  flip_byte(fs::path(nodes[0]->place.folder) / newest / "tensors.bin", 5'000);
  expect([](auto&) {}, grpc::StatusCode::DATA_LOSS, "checkpoint");
}

TEST_CASE_FIXTURE(checkpoint_peers, "a peer has one stream, and one that goes away frees it") {
  hand_made client{*nodes[0]};
  auto call = hand_made::context();
  auto reader = client.stub->GetCheckpoint(call.get(), hand_made::request());
  CheckpointChunk chunk;
  REQUIRE(reader->Read(&chunk));
  CHECK(streams(*nodes[0]) == 1);
  const auto second = client.get(hand_made::request());
  CHECK(second.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(second.reason == "streams");
  call->TryCancel();
  while (reader->Read(&chunk)) {
  }
  CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  CHECK(wait_for([&] { return streams(*nodes[0]) == 0; }));
  CHECK(client.get(hand_made::request()).status.ok());
}

TEST_CASE_FIXTURE(checkpoint_peers, "garbage in an upload is refused") {
  hand_made client{*nodes[1]};
  const auto put = [&](auto fill) {
    const auto call = hand_made::context();
    PutCheckpointResponse reply;
    auto writer = client.stub->PutCheckpoint(call.get(), &reply);
    CheckpointChunk first;
    first.mutable_header()->set_request_id("0123456789abcdef");
    first.mutable_header()->set_budget_ms(30'000);
    if (fill(first))
      writer->Write(first);
    writer->WritesDone();
    return writer->Finish().error_code();
  };
  CHECK(put([](auto&) { return false; }) == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(put([](auto&) { return true; }) == grpc::StatusCode::INVALID_ARGUMENT);
  const auto blob = [](CheckpointChunk& first, const signed_blob& manifest) {
    rpc::write(manifest, *first.mutable_manifest());
    return true;
  };
  auto forged = nodes[0]->who->sign_as_node(checkpoint_tag, "garbage");
  CHECK(put([&](auto& first) { return blob(first, forged); }) == grpc::StatusCode::INVALID_ARGUMENT);
  forged.sig[0] ^= 1;
  CHECK(put([&](auto& first) { return blob(first, forged); }) == grpc::StatusCode::UNAUTHENTICATED);
}

TEST_CASE_FIXTURE(impatient_peers,
                  "a peer that falls silent in an upload, or takes nothing of a download, is let go") {
  hand_made uploader{*nodes[1]};
  auto call = hand_made::context('b');
  PutCheckpointResponse reply;
  auto writer = uploader.stub->PutCheckpoint(call.get(), &reply);
  CHECK_FALSE(writer->Finish().ok());

  // A small window that is never read from.
  grpc::ChannelArguments narrow;
  narrow.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  narrow.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 65'536);
  const auto stub = NeuroShard::NewStub(
      grpc::CreateCustomChannel(nodes[0]->at().address, grpc::InsecureChannelCredentials(), narrow));
  const auto slow = hand_made::context('c');
  auto stream = stub->GetCheckpoint(slow.get(), hand_made::request());
  CheckpointChunk chunk;
  REQUIRE(stream->Read(&chunk));
  CHECK(streams(*nodes[0]) == 1);
  CHECK(wait_for([&] { return streams(*nodes[0]) == 0; }));
  while (stream->Read(&chunk)) {
  }
  CHECK_FALSE(stream->Finish().ok());
}
