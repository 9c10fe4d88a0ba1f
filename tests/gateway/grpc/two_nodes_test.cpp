#include "tests/gateway/grpc/buffers.hpp"
#include "tests/gateway/grpc/two_nodes_fixture.hpp"

#include "gateway/grpc/limits.hpp"
#include "neuroshard/membership.pb.h"
#include "neuroshard/work.pb.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/async_stream.h>

#include <future>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// What a call of raw bytes comes to, made as a stranger would.
struct outcome {
  grpc::Status status;
  std::string reply, reason;
};

/// A stranger with a certificate of its own.
struct stranger {
  std::shared_ptr<grpc::Channel> channel;

  stranger(real_peers& peers, const real_peers::node& to, const std::string& name = "stranger") {
    auto own = rpc::load_or_make_certificate(peers.root.path() + "/" + name);
    REQUIRE(static_cast<bool>(own));
    channel = grpc::CreateChannel(
        to.address(),
        rpc::channel_credentials(*own, to.certificate->sha256, std::make_shared<rpc::shown_certificate>()));
  }
  explicit stranger(std::shared_ptr<grpc::Channel> over) : channel(std::move(over)) {}

  outcome call(const std::string& method, const std::string& bytes,
               std::vector<std::pair<std::string, std::string>> metadata = {{"ns-protocol", "1"}}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    for (const auto& [key, value] : metadata)
      context.AddMetadata(key, value);
    grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub{channel};
    const auto request = buffer_of(bytes);
    grpc::ByteBuffer reply;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, {}, &request, &reply,
                   [&](grpc::Status s) { done.set_value(std::move(s)); });
    outcome end{done.get_future().get(), text_of(reply), {}};
    const auto& trailing = context.GetServerTrailingMetadata();
    if (const auto at = trailing.find("ns-reason"); at != trailing.end())
      end.reason = std::string(at->second.data(), at->second.size());
    return end;
  }
};

std::string ping(const std::string& id = "0123456789abcdef", uint32_t budget_ms = 5'000, size_t payload = 5) {
  PingRequest request;
  request.mutable_header()->set_request_id(id);
  request.mutable_header()->set_budget_ms(budget_ms);
  request.set_payload(std::string(payload, 'x'));
  return request.SerializeAsString();
}

const std::string ping_method = "/neuroshard.NeuroShard/Ping";

} // namespace

TEST_CASE_FIXTURE(real_peers, "two nodes meet over mutual TLS through one seed, and a third through them") {
  auto& a = join(1, {});
  auto& b = join(2, {a.address()});
  auto& c = join(3, {a.address()});
  for (auto* one : {&a, &b, &c})
    for (auto* other : {&a, &b, &c})
      if (one != other)
        CHECK(wait_for([&] { return sees(*one, *other); }));
  CHECK(a.callers->node_of(b.certificate->sha256) == b.who->node_id());
  for (const auto& one : peers(b))
    if (one.node.node_id == a.who->node_id()) // whom b has called
      CHECK(one.latency_ms > 0);
}

TEST_CASE_FIXTURE(real_peers, "without certificates nodes meet as well, by the name they give themselves") {
  auto& a = join(1, {}, true);
  auto& b = join(2, {a.address()}, true);
  CHECK(wait_for([&] { return sees(a, b) && sees(b, a); }));
}

TEST_CASE_FIXTURE(real_peers, "a node of another network is not let in") {
  auto& a = join(1, {});
  auto& b = join(2, {}, false, "other");
  announce_request what;
  what.node = sign_node(*b.who, peers(a).empty() ? node_description{} : peers(a)[0].node)->blob;
  const auto [reply, why] = call<announce_reply>(b, {{}, a.address(), {}}, what);
  CHECK_FALSE(reply.has_value());
  CHECK(code_of(why) == errc::forbidden);
  CHECK(problem_of(why).reason == "network");
}

TEST_CASE_FIXTURE(real_peers, "a connection to another certificate than expected goes nowhere") {
  auto& a = join(1, {});
  auto& b = join(2, {});
  const auto [reply, why] =
      call<ping_reply>(b, {a.who->node_id(), a.address(), b.certificate->sha256}, ping_request{});
  CHECK_FALSE(reply.has_value());
  CHECK(code_of(why) == errc::unavailable);
}

TEST_CASE_FIXTURE(real_peers, "a certificate that was not announced may announce, and nothing else") {
  auto& a = join(1, {});
  auto& b = join(2, {});
  const peer_address to{a.who->node_id(), a.address(), a.certificate->sha256};
  const auto refused = [&](const caf::error& why) {
    CHECK(code_of(why) == errc::unauthorized);
    CHECK(problem_of(why).reason == "announce_first");
  };
  refused(call<ping_reply>(b, to, ping_request{}).second);
  refused(call<find_peers_reply>(b, to, find_peers_request{}).second);
  auto record = node_description{};
  record.node_id = b.who->node_id();
  record.wallet_address = b.who->address();
  record.host = "127.0.0.1";
  record.grpc_port = b.port;
  record.sequence = 1;
  record.tls_cert_sha256 = b.certificate->sha256;
  ping_request with_record;
  with_record.node = sign_node(*b.who, record)->blob;
  with_record.payload = "hello";
  const auto bound = call<ping_reply>(b, to, with_record);
  REQUIRE(bound.first.has_value());
  CHECK(bound.first->payload == "hello");
  CHECK(bound.first->by.tls_cert_sha256 == a.certificate->sha256);
  CHECK(call<ping_reply>(b, to, ping_request{}).first.has_value());
  CHECK(call<find_peers_reply>(b, to, find_peers_request{}).first.has_value());
}

TEST_CASE_FIXTURE(real_peers,
                  "garbage, a lie about the length and a budget of nothing are refused; the node goes on") {
  auto& a = join(1, {});
  stranger s{*this, a};
  const auto code = [&](const std::string& method, const std::string& bytes) {
    return s.call(method, bytes).status.error_code();
  };
  const std::string huge_length = "\x0a\xff\xff\xff\xff\x0f"; // field 1 of 4 GiB
  for (const auto* method : {"Announce", "Heartbeat", "FindPeers"}) {
    const auto path = std::string("/neuroshard.Membership/") + method;
    CHECK(code(path, "\xff\xff\xff\xff") == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(code(path, huge_length) == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(code(path, "") == grpc::StatusCode::INVALID_ARGUMENT);
  }
  CHECK(code(ping_method, ping("short")) == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(code(ping_method, ping("0123456789abcdef", 0)) == grpc::StatusCode::DEADLINE_EXCEEDED);
  CHECK(code(ping_method, ping("0123456789abcdef", 5'000, 1'025)) == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(code("/neuroshard.NeuroShard/Forward", "") == grpc::StatusCode::UNIMPLEMENTED);
  AnnounceRequest announce;
  announce.mutable_header()->set_request_id("0123456789abcdef");
  announce.mutable_header()->set_budget_ms(5'000);
  announce.mutable_node()->set_payload("x");
  announce.mutable_node()->set_public_key(std::string(33, '\2'));
  announce.mutable_node()->set_signature(std::string(64, '\1'));
  CHECK(code("/neuroshard.Membership/Announce", announce.SerializeAsString()) ==
        grpc::StatusCode::INVALID_ARGUMENT);
  auto& b = join(2, {a.address()});
  CHECK(wait_for([&] { return sees(a, b); }));
}

TEST_CASE_FIXTURE(real_peers,
                  "another protocol version is UNIMPLEMENTED, an unbound ping says what comes first") {
  auto& a = join(1, {});
  stranger s{*this, a};
  CHECK(s.call(ping_method, ping(), {{"ns-protocol", "2"}}).status.error_code() ==
        grpc::StatusCode::UNIMPLEMENTED);
  CHECK(s.call(ping_method, ping(), {}).status.error_code() == grpc::StatusCode::UNIMPLEMENTED);
  const auto refused = s.call(ping_method, ping());
  CHECK(refused.status.error_code() == grpc::StatusCode::UNAUTHENTICATED);
  CHECK(refused.reason == "announce_first");
}

TEST_CASE_FIXTURE(real_peers, "a repeated call is answered with the same bytes, another one anew") {
  auto& a = join(1, {}, true);
  stranger s{grpc::CreateChannel(a.address(), grpc::InsecureChannelCredentials())};
  const std::vector<std::pair<std::string, std::string>> me{{"ns-protocol", "1"},
                                                            {"ns-node-id", std::string(32, 'a')}};
  const auto first = s.call(ping_method, ping(), me);
  REQUIRE(first.status.ok());
  CHECK(s.call(ping_method, ping(), me).reply == first.reply);
  CHECK(s.call(ping_method, ping("another-request-"), me).reply != first.reply);
  CHECK(s.call(ping_method, ping(), {{"ns-protocol", "1"}, {"ns-node-id", std::string(32, 'b')}}).reply !=
        first.reply);
}

TEST_CASE_FIXTURE(real_peers, "a flood of pings is told to come back") {
  auto& a = join(1, {}, true);
  stranger s{grpc::CreateChannel(a.address(), grpc::InsecureChannelCredentials())};
  grpc::StatusCode last = grpc::StatusCode::OK;
  std::string reason;
  for (int i = 0; i < 200 && last == grpc::StatusCode::OK; ++i) {
    const auto end = s.call(ping_method, ping("request-number-" + std::to_string(1'000 + i)),
                            {{"ns-protocol", "1"}, {"ns-node-id", std::string(32, 'a')}});
    last = end.status.error_code();
    reason = end.reason;
  }
  CHECK(last == grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(reason == "rate");
}

TEST_CASE_FIXTURE(real_peers, "stock tools find health checking and the services by reflection") {
  auto& a = join(1, {});
  stranger s{*this, a};
  CHECK(s.call("/grpc.health.v1.Health/Check", "", {}).reply == "\x08\x01"); // SERVING
  // ServerReflectionRequest { list_services = "" }, in a stream of both directions.
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub{s.channel};
  auto stream =
      stub.PrepareCall(&context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto step = [&] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  REQUIRE(step());
  stream->Write(buffer_of(std::string("\x3a\x00", 2)), nullptr);
  REQUIRE(step());
  grpc::ByteBuffer reply;
  stream->Read(&reply, nullptr);
  REQUIRE(step());
  const auto services = text_of(reply);
  CHECK(services.find("neuroshard.NeuroShard") != std::string::npos);
  CHECK(services.find("neuroshard.Membership") != std::string::npos);
  stream->WritesDone(nullptr);
  CHECK(step());
  grpc::Status status;
  stream->Finish(&status, nullptr);
  CHECK(step());
  CHECK(status.ok());
}

TEST_CASE_FIXTURE(real_peers, "a port in use is refused") {
  auto& a = join(1, {});
  const auto second = rpc::server::start(
      {"127.0.0.1", a.port, a.certificate},
      std::make_unique<rpc::service_parts>(sys, a.manager, a.callers, "main", false, nullptr, system_time()));
  REQUIRE_FALSE(static_cast<bool>(second));
  CHECK(code_of(second.error()) == errc::unavailable);
}

TEST_CASE_FIXTURE(real_peers, "a call that waits for its actor does not hold up the end") {
  auto& a = join(1, {}, true);
  // An actor that never answers in the manager's place.
  const auto silent =
      caf::actor_cast<peer_manager_actor>(sys.spawn([](caf::event_based_actor* me) -> caf::behavior {
        me->set_default_handler(
            [](caf::scheduled_actor*, const caf::message_view&) -> caf::result<caf::message> {
              return caf::skip();
            });
        return {[](const std::string&) {}};
      }));
  const auto port = free_port();
  auto slow = rpc::server::start(
      {"127.0.0.1", port, {}},
      std::make_unique<rpc::service_parts>(sys, silent, a.callers, "main", true, nullptr, system_time()));
  REQUIRE(static_cast<bool>(slow));
  stranger s{grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials())};
  auto waiting = std::async(std::launch::async, [&] {
    return s.call(ping_method, ping("0123456789abcdef", 600'000),
                  {{"ns-protocol", "1"}, {"ns-node-id", std::string(32, 'a')}});
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200)); // likely under way; it is right either way
  (*slow)->stop(0);
  CHECK(waiting.get().status.error_code() == grpc::StatusCode::UNAVAILABLE);
  caf::anon_send_exit(silent, caf::exit_reason::kill);
}
