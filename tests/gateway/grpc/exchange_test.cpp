#include "actors/gradient_exchanger/delta_codec.hpp"
#include "gateway/grpc/exchange_codec.hpp"
#include "neuroshard/work.pb.h"
#include "tests/gateway/grpc/buffers.hpp"
#include "tests/gateway/grpc/two_nodes_fixture.hpp"

#include <caf/typed_event_based_actor.hpp>

#include <mutex>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// An exchanger that notes what it is asked and answers with the part it was sent.
struct exchange_script {
  std::mutex lock;
  std::vector<exchange_request> asked;
};
using exchange_script_ptr = std::shared_ptr<exchange_script>;

gradient_exchanger_actor::behavior_type scripted_exchanger(gradient_exchanger_actor::pointer,
                                                           exchange_script_ptr script) {
  return {
      [](const begin_round&) {},
      [](const finish_round&) { return round_outcome{}; },
      [](const read_outer_state&) { return outer_tensors{}; },
      [](const restore_outer_state&) {},
      [=](exchange_request& call) {
        const std::lock_guard hold{script->lock};
        exchange_reply reply;
        reply.result = call.fetch ? exchange_result::not_held : exchange_result::duplicate;
        reply.message = "as asked";
        reply.current_round = 7;
        reply.unit_hash = kernels::sha256::of("unit");
        reply.reply_manifest = call.manifest;
        reply.reply_part = call.part;
        reply.reply_data = call.part_data;
        script->asked.push_back(std::move(call));
        return reply;
      },
      [](const published&) {},
      [](tick_atom) {},
      [](drain_atom) {},
      [](status_atom) { return actor_status{}; },
  };
}

struct exchanging_peers : real_peers {
  exchange_script_ptr script = std::make_shared<exchange_script>();
  exchanging_peers() {
    make_exchanger = [this](caf::actor_system& system) { return system.spawn(scripted_exchanger, script); };
  }
};

exchange_request sample_part(size_t bytes) {
  exchange_request made;
  made.manifest.emplace();
  made.manifest->payload = std::string(120'000, 'm'); // as of 4,000 parts
  made.manifest->key.fill(2);
  made.manifest->sig.fill(3);
  made.part = 17;
  made.want_reply = true;
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i)
    data[i] = static_cast<char>(i * 31 + i / 997);
  made.part_data = std::make_shared<const std::string>(std::move(data));
  return made;
}

template <class Message>
std::string field_of_bad(const Message& message) {
  exchange_request to;
  Header header;
  const auto wrong = rpc::read(buffer_of(message.SerializeAsString()), to, header);
  CHECK(code_of(wrong) == errc::invalid_request);
  return problem_of(wrong).field;
}

ExchangeGradientRequest good_message() {
  ExchangeGradientRequest made;
  made.mutable_header()->set_request_id(std::string(32, 'r'));
  made.mutable_header()->set_budget_ms(1'000);
  auto& blob = *made.mutable_manifest();
  blob.set_payload("manifest");
  blob.set_public_key(std::string(33, 'k'));
  blob.set_signature(std::string(64, 's'));
  made.set_part_data("part");
  return made;
}

} // namespace

TEST_CASE_FIXTURE(exchanging_peers, "a part goes to another node's exchanger over TLS and one comes back") {
  auto& a = join(1, {});
  auto& b = join(2, {a.address()});
  REQUIRE(wait_for([&] { return sees(a, b) && sees(b, a); }));
  for (const size_t bytes : {size_t{1}, size_t{5'000}, size_t{4} << 20}) {
    auto what = sample_part(bytes);
    std::optional<exchange_reply> reply;
    const peer_address to{a.who->node_id(), a.address(), a.certificate->sha256};
    self->request(b.exchange, std::chrono::seconds(20), peer_call<exchange_request>{to, what, 10'000})
        .receive([&](exchange_reply& got) { reply = std::move(got); },
                 [&](const caf::error& why) { FAIL(problem_of(why).message); });
    REQUIRE(reply.has_value());
    CHECK(reply->result == exchange_result::duplicate);
    CHECK(reply->message == "as asked");
    CHECK(reply->current_round == 7);
    CHECK(reply->unit_hash == kernels::sha256::of("unit"));
    REQUIRE(reply->reply_manifest);
    CHECK(reply->reply_manifest->payload == what.manifest->payload);
    CHECK(reply->reply_part == 17);
    REQUIRE(reply->reply_data);
    CHECK(*reply->reply_data == *what.part_data);
    const std::lock_guard hold{script->lock};
    CHECK(script->asked.back().from.node_id == b.who->node_id());
    CHECK(script->asked.back().want_reply);
    CHECK(*script->asked.back().part_data == *what.part_data);
  }
  exchange_request fetch;
  fetch.fetch = kernels::sha256::of("contribution");
  self->request(
          b.exchange, std::chrono::seconds(20),
          peer_call<exchange_request>{{a.who->node_id(), a.address(), a.certificate->sha256}, fetch, 10'000})
      .receive([&](exchange_reply& got) { CHECK(got.result == exchange_result::not_held); },
               [&](const caf::error& why) { FAIL(problem_of(why).message); });
  const std::lock_guard hold{script->lock};
  CHECK(script->asked.back().fetch == fetch.fetch);
  CHECK(script->asked.back().part_data == nullptr);
}

TEST_CASE("an exchange that lies is refused by the codec, naming the field") {
  exchange_request to;
  Header header;
  REQUIRE_FALSE(static_cast<bool>(rpc::read(buffer_of(good_message().SerializeAsString()), to, header)));
  CHECK(*to.part_data == "part");
  CHECK(header.budget_ms() == 1'000);
  auto bad = good_message();
  bad.clear_manifest();
  CHECK(field_of_bad(bad) == "manifest");
  bad = good_message();
  bad.clear_part_data();
  CHECK(field_of_bad(bad) == "part_data");
  bad = good_message();
  bad.set_fetch(std::string(32, 'f'));
  CHECK(field_of_bad(bad) == "manifest");
  bad = good_message();
  bad.clear_manifest();
  bad.set_fetch(std::string(31, 'f'));
  CHECK(field_of_bad(bad) == "fetch");
  bad = good_message();
  bad.set_part(4'096);
  CHECK(field_of_bad(bad) == "part");
  bad = good_message();
  bad.mutable_manifest()->set_payload(std::string(256 * 1024 + 1, 'm'));
  CHECK(field_of_bad(bad) == "manifest");
  bad = good_message();
  bad.mutable_manifest()->set_signature("short");
  CHECK(field_of_bad(bad) == "manifest");
  // A length of 4 GiB for the part, and a part that is there twice.
  for (const std::string& bytes :
       {std::string("\x22\xff\xff\xff\xff\x0f"), std::string("\x22\x01x\x22\x01y")}) {
    const auto wrong = rpc::read(buffer_of(bytes), to, header);
    CHECK(code_of(wrong) == errc::invalid_request);
  }
  exchange_reply reply;
  ExchangeGradientResponse answer;
  const auto wrong = rpc::read(buffer_of(answer.SerializeAsString()), reply);
  CHECK(code_of(wrong) == errc::unavailable);
  CHECK(problem_of(wrong).reason == "bad_reply");
}
