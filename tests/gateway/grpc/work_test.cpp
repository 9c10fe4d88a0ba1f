#include "tests/gateway/grpc/buffers.hpp"
#include "tests/gateway/grpc/two_nodes_fixture.hpp"
#include "tests/gateway/grpc/work_samples.hpp"

#include <caf/typed_event_based_actor.hpp>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <atomic>
#include <future>
#include <mutex>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// A relay that does what a test says.
struct relay_script {
  std::mutex lock;
  std::vector<routed_forward> forwards;
  std::vector<routed_backward> backwards;
  caf::error why; ///< set: what everything comes to
  std::atomic<bool> silent{false};
};
using relay_script_ptr = std::shared_ptr<relay_script>;

relay_actor::behavior_type scripted_relay(relay_actor::pointer self, relay_script_ptr script) {
  return {
      [=](routed_forward& call) -> caf::result<routed_forward_reply> {
        const std::lock_guard hold{script->lock};
        script->forwards.push_back(call);
        if (script->silent)
          return self->make_response_promise<routed_forward_reply>();
        if (script->why)
          return script->why;
        routed_forward_reply reply;
        reply.work.request_id = call.work.header.request_id;
        reply.work.hidden = call.work.hidden;
        reply.hops = {{std::string(32, 'b'), {7, 8, 9, false, 0, 0}}};
        return reply;
      },
      [=](routed_backward& call) -> caf::result<routed_backward_reply> {
        const std::lock_guard hold{script->lock};
        script->backwards.push_back(call);
        if (script->why)
          return script->why;
        routed_backward_reply reply;
        reply.work.grad_input = call.work.grad_output;
        return reply;
      },
      [](const published&) {},
      [](tick_atom) {},
      [](drain_atom) {},
      [](status_atom) { return actor_status{}; },
  };
}

struct working_peers : real_peers {
  relay_script_ptr script = std::make_shared<relay_script>();
  working_peers() {
    make_relay = [this](caf::actor_system& system) { return system.spawn(scripted_relay, script); };
  }

  static peer_address at(const node& to) {
    return {to.who->node_id(), to.address(),
            to.certificate ? std::optional{to.certificate->sha256} : std::nullopt};
  }
  template <class Reply, class Request>
  std::pair<std::optional<Reply>, caf::error> work(const node& from, const node& to, Request what,
                                                   uint32_t budget_ms = 10'000) {
    std::pair<std::optional<Reply>, caf::error> end;
    self->request(from.work, std::chrono::seconds(20), peer_call<Request>{at(to), std::move(what), budget_ms})
        .receive([&](Reply& reply) { end.first = std::move(reply); },
                 [&](caf::error& why) { end.second = std::move(why); });
    return end;
  }
  /// Two nodes that know each other.
  std::pair<node*, node*> meet(bool insecure = false) {
    auto& a = join(1, {}, insecure);
    auto& b = join(2, {a.address()}, insecure);
    REQUIRE(wait_for([&] { return sees(a, b) && sees(b, a); }));
    return {&a, &b};
  }
};

routed_forward forward_of(tensor_handle hidden) {
  routed_forward call;
  call.work.header.request_id = random_hex(*system_random(), 16);
  call.work.header.session_id = std::string(32, '5');
  call.work.layer_begin = 1;
  call.work.layer_end = 2;
  call.work.hidden = std::move(hidden);
  return call;
}

/// A Forward as a stranger's program would send it, in clear text, named `id`.
struct raw_caller {
  std::unique_ptr<grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>> stub;
  explicit raw_caller(const std::string& address)
      : stub(std::make_unique<grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>>(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  struct end_of_call {
    grpc::Status status;
    std::string reply;
    std::map<std::string, std::string> trailing;
  };
  end_of_call call(const std::string& bytes, const std::string& id = std::string(32, 'a'),
                   const char* method = "/neuroshard.NeuroShard/Forward") {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    context.AddMetadata("ns-protocol", "1");
    if (!id.empty())
      context.AddMetadata("ns-node-id", id);
    const auto request = buffer_of(bytes);
    grpc::ByteBuffer reply;
    std::promise<grpc::Status> done;
    stub->UnaryCall(&context, method, {}, &request, &reply,
                    [&](grpc::Status s) { done.set_value(std::move(s)); });
    end_of_call end{done.get_future().get(), text_of(reply), {}};
    for (const auto& [key, value] : context.GetServerTrailingMetadata())
      end.trailing[std::string(key.data(), key.size())] = std::string(value.data(), value.size());
    return end;
  }
};

} // namespace

TEST_CASE_FIXTURE(working_peers, "activations go to another node's relay over TLS and come back") {
  const auto [a, b] = meet();
  for (const int64_t tokens : {int64_t{1}, int64_t{512}}) {
    const auto hidden = sample_tensor(kernels::dtype::bf16, {1, tokens, 768});
    const auto before_us = system_time()->steady_us();
    const auto [reply, why] = work<routed_forward_reply>(*b, *a, forward_of(hidden));
    REQUIRE(reply.has_value());
    CHECK(same_tensor(reply->work.hidden, hidden));
    REQUIRE(reply->hops.size() == 1);
    CHECK(reply->hops[0].share.compute_us == 8);
    const std::lock_guard hold{script->lock};
    const auto& heard = script->forwards.back();
    CHECK(heard.from.node_id == b->who->node_id());
    CHECK(heard.from.tls_cert_sha256 == b->certificate->sha256);
    CHECK(reply->work.request_id == heard.work.header.request_id);
    const auto budget_us = heard.work.header.deadline_steady_us - before_us;
    CHECK(budget_us > 0);
    CHECK(budget_us <= 30'000'000);
  }
  const auto grad = sample_tensor(kernels::dtype::f32, {1, 7, 2'000});
  routed_backward back;
  back.work.grad_output = grad; // without a request id: the link makes one
  const auto [reply, why] = work<routed_backward_reply>(*b, *a, back);
  REQUIRE(reply.has_value());
  CHECK(same_tensor(reply->work.grad_input, grad));
  CHECK(script->backwards.back().work.header.request_id.size() == 32);
}

TEST_CASE_FIXTURE(working_peers, "a failure keeps its code, its reason and what else the driver needs") {
  const auto [a, b] = meet();
  const std::string hop(32, 'c');
  problem what;
  what.message = "The cache is shorter.";
  what.reason = "cache";
  what.details = {{"cache_length", int64_t{12}},
                  {"model_version", int64_t{3}},
                  {"retry_after_ms", int64_t{40}},
                  {"failed_hop", hop}};
  script->why = refuse(errc::failed_precondition, what);
  const auto [reply, why] =
      work<routed_forward_reply>(*b, *a, forward_of(sample_tensor(kernels::dtype::f32, {1, 1, 4})));
  CHECK_FALSE(reply.has_value());
  CHECK(code_of(why) == errc::failed_precondition);
  const auto heard = problem_of(why);
  CHECK(heard.message == what.message);
  CHECK(heard.reason == "cache");
  for (const auto& detail : what.details)
    CHECK(std::find(heard.details.begin(), heard.details.end(), detail) != heard.details.end());
}

TEST_CASE_FIXTURE(working_peers, "what is not sound is not handed to the relay") {
  auto& a = join(1, {}, true);
  raw_caller caller{a.address()};
  const auto sound = plain_forward();
  CHECK(caller.call(sound.SerializeAsString()).status.ok());
  const auto code = [&](auto change) {
    auto message = sound;
    message.mutable_header()->set_request_id(random_hex(*system_random(), 16));
    change(message);
    return caller.call(message.SerializeAsString()).status.error_code();
  };
  using code_of_call = grpc::StatusCode;
  const size_t before = script->forwards.size();
  CHECK(code([](auto& m) { m.mutable_hidden()->set_crc32c(1); }) == code_of_call::INVALID_ARGUMENT);
  CHECK(code([](auto& m) { m.mutable_hidden()->set_shape(0, int64_t{1} << 62); }) ==
        code_of_call::INVALID_ARGUMENT);
  CHECK(code([](auto& m) { m.mutable_header()->set_budget_ms(0); }) == code_of_call::DEADLINE_EXCEEDED);
  CHECK(code([](auto& m) { m.mutable_header()->set_request_id("short"); }) == code_of_call::INVALID_ARGUMENT);
  CHECK(caller.call("\x2a\xff\xff\xff\xff\x0f").status.error_code() == code_of_call::INVALID_ARGUMENT);
  CHECK(caller.call("", std::string(32, 'a'), "/neuroshard.NeuroShard/Backward").status.error_code() ==
        code_of_call::INVALID_ARGUMENT);
  const auto nobody = caller.call(sound.SerializeAsString(), "");
  CHECK(nobody.status.error_code() == code_of_call::UNAUTHENTICATED);
  CHECK(nobody.trailing.at("ns-reason") == "announce_first");
  CHECK(script->forwards.size() == before);
}

TEST_CASE_FIXTURE(working_peers,
                  "a repeated Forward gets the first one's reply; one that failed is run again") {
  auto& a = join(1, {}, true);
  raw_caller caller{a.address()};
  const auto bytes = plain_forward().SerializeAsString();
  const auto first = caller.call(bytes);
  REQUIRE(first.status.ok());
  CHECK(caller.call(bytes).reply == first.reply);
  CHECK(script->forwards.size() == 1);
  // A reply above 64 KiB is not stored.
  auto large = plain_forward();
  large.mutable_header()->set_request_id("another-request-");
  fill(*large.mutable_hidden(), DTYPE_BF16, {1, 64, 768}, std::string(64 * 768 * 2, '\x3c'));
  for (int twice = 0; twice < 2; ++twice)
    CHECK(caller.call(large.SerializeAsString()).status.ok());
  CHECK(script->forwards.size() == 3);
}

TEST_CASE_FIXTURE(working_peers, "two like calls at once fail with the same reason") {
  auto& a = join(1, {}, true);
  raw_caller caller{a.address()};
  problem what;
  what.reason = "busy_pipeline";
  script->why = refuse(errc::failed_precondition, what);
  std::vector<std::future<raw_caller::end_of_call>> both;
  for (int i = 0; i < 8; ++i)
    both.push_back(
        std::async(std::launch::async, [&] { return caller.call(plain_forward().SerializeAsString()); }));
  for (auto& one : both) {
    const auto end = one.get();
    CHECK(end.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
    CHECK(end.trailing.at("ns-reason") == "busy_pipeline");
  }
}

TEST_CASE_FIXTURE(working_peers, "without a relay Forward is not implemented") {
  make_relay = nullptr;
  auto& a = join(1, {}, true);
  raw_caller caller{a.address()};
  CHECK(caller.call(plain_forward().SerializeAsString()).status.error_code() ==
        grpc::StatusCode::UNIMPLEMENTED);
}

TEST_CASE_FIXTURE(working_peers, "a relay that never answers holds up neither its callers nor the end") {
  const auto [a, b] = meet();
  script->silent = true;
  const auto call = forward_of(sample_tensor(kernels::dtype::f32, {1, 1, 4}));
  const auto [reply, why] = work<routed_forward_reply>(*b, *a, call, 200);
  CHECK_FALSE(reply.has_value());
  CHECK(code_of(why) == errc::timeout);
  auto waiting = std::async(std::launch::async, [this, b = b, a = a] {
    caf::scoped_actor mine{sys};
    errc code = errc::ok;
    mine->request(b->work, std::chrono::seconds(20),
                  peer_call<routed_forward>{at(*a), forward_of(sample_tensor(kernels::dtype::f32, {1, 1, 4})),
                                            15'000})
        .receive([](routed_forward_reply&) {}, [&](caf::error& e) { code = code_of(e); });
    return code;
  });
  CHECK(wait_for([&] {
    const std::lock_guard hold{script->lock};
    return script->forwards.size() >= 2;
  }));
  a->server->stop(0);
  CHECK(waiting.get() == errc::unavailable);
}

TEST_CASE_FIXTURE(working_peers, "a dead relay is answered for") {
  const auto [a, b] = meet();
  caf::anon_send_exit(a->relay, caf::exit_reason::kill);
  const auto refused = [&, a = a, b = b] {
    const auto [reply, why] =
        work<routed_forward_reply>(*b, *a, forward_of(sample_tensor(kernels::dtype::f32, {1, 1, 4})));
    return !reply.has_value() && code_of(why) == errc::unavailable;
  };
  CHECK(wait_for(refused));
}
