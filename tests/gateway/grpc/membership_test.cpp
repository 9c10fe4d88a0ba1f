#include "actors/peer_manager/layer_map.hpp"
#include "gateway/grpc/membership_codec.hpp"
#include "tests/gateway/grpc/two_nodes_fixture.hpp"

#include <mutex>
#include <tuple>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct shared_heard {
  std::mutex lock;
  std::vector<published> all;
};

layer_map two_layers(const std::string& holder) {
  layer_map map;
  map.version = 3;
  map.architecture = "{}";
  map.layers = {{"embed", {holder}, kernels::sha256::of("e")},
                {"layer.0", {holder}, {}},
                {"layer.1", {holder}, {}},
                {"head", {holder}, {}}};
  return map;
}

template <class Message, class Struct>
Struct through_bytes(const Struct& from) {
  Message made;
  rpc::write(from, made);
  Message back;
  REQUIRE(back.ParseFromString(made.SerializeAsString()));
  auto read = rpc::read(back);
  REQUIRE(static_cast<bool>(read));
  return std::move(*read);
}

} // namespace

TEST_CASE_FIXTURE(real_peers, "what is published crosses mutual TLS and is heard, its signature checked") {
  auto& a = join(1, {});
  auto& b = join(2, {a.address()});
  REQUIRE(wait_for([&] { return sees(a, b) && sees(b, a); }));
  const auto heard = std::make_shared<shared_heard>();
  const publish_listener sink =
      sys.spawn([heard](publish_listener::pointer) -> publish_listener::behavior_type {
        return {[heard](published& one) {
          const std::lock_guard hold(heard->lock);
          heard->all.push_back(std::move(one));
        }};
      });
  self->send(a.manager, publish_sink{publish_kind::round_end, sink});
  peers(a); // the sink is known now
  publish_request what;
  what.kind = publish_kind::round_end;
  const std::string payload(200'000, 'r');
  what.id = kernels::sha256::of(payload);
  what.blob = b.who->sign_as_node("neuroshard-round-v1", payload);
  const peer_address to{a.who->node_id(), a.address(), a.certificate->sha256};
  auto [reply, why] = call<publish_reply>(b, to, what);
  REQUIRE(reply.has_value());
  CHECK(reply->accepted);
  CHECK(wait_for([&] {
    const std::lock_guard hold(heard->lock);
    return heard->all.size() == 1;
  }));
  std::tie(reply, why) = call<publish_reply>(b, to, what);
  REQUIRE(reply.has_value());
  CHECK(reply->duplicate);
  what.blob.sig[1] ^= 1;
  what.blob.payload[0] = 's';
  what.id = kernels::sha256::of(what.blob.payload);
  std::tie(reply, why) = call<publish_reply>(b, to, what);
  REQUIRE(reply.has_value());
  CHECK(reply->reason == "bad_signature");
  what.blob.payload.assign(publish_bytes_max + 1, 'x');
  std::tie(reply, why) = call<publish_reply>(b, to, what);
  CHECK(code_of(why) == errc::invalid_request);
  caf::anon_send_exit(sink, caf::exit_reason::kill);
}

TEST_CASE_FIXTURE(real_peers, "the layer map is asked for and answered over mutual TLS") {
  auto& a = join(1, {}, false, "main", 2);
  auto& b = join(2, {a.address()}, false, "main", 2);
  REQUIRE(wait_for([&] { return sees(a, b) && sees(b, a); }));
  const peer_address to{a.who->node_id(), a.address(), a.certificate->sha256};
  std::optional<get_layer_map_reply> reply;
  REQUIRE(wait_for([&] {
    reply = call<get_layer_map_reply>(b, to, get_layer_map_request{}).first;
    return reply && reply->layer_map;
  }));
  const auto map = read_map(*reply->layer_map, system_time()->unix_us() / 1'000);
  REQUIRE(static_cast<bool>(map));
  CHECK(layers_of((*map)->what) == 2);
  reply = call<get_layer_map_reply>(b, to, get_layer_map_request{{}, (*map)->what.version}).first;
  REQUIRE(reply.has_value());
  CHECK((reply->not_modified || reply->layer_map)); // it may just have changed
}

TEST_CASE("an announcement's answer carries the map and the part in it through its bytes") {
  auto token = parse_token(std::string(60, 'd') + "1001");
  REQUIRE(static_cast<bool>(token));
  const auto who = node_identity::make(*token, 0, 1'800'000'000'000);
  REQUIRE(static_cast<bool>(who));
  announce_reply reply;
  reply.self = sign_map(*who, two_layers(who->node_id()))->blob; // any signed bytes
  reply.layer_map = reply.self;
  reply.assigned_begin = 1;
  reply.assigned_end = 2;
  reply.assigned_head = true;
  const auto back = through_bytes<AnnounceResponse>(reply);
  REQUIRE(back.layer_map.has_value());
  CHECK(back.layer_map->payload == reply.self.payload);
  CHECK(back.layer_map->sig == reply.self.sig);
  CHECK(back.assigned_begin == 1);
  CHECK(back.assigned_end == 2);
  CHECK_FALSE(back.assigned_embedding);
  CHECK(back.assigned_head);
  reply.layer_map.reset();
  CHECK_FALSE(through_bytes<AnnounceResponse>(reply).layer_map.has_value());
}

TEST_CASE("a publication out of its bounds is refused before anybody is asked") {
  PublishRequest message;
  const auto field = [&] { return problem_of(rpc::read(message).error()).field; };
  CHECK(field() == "kind");
  message.set_kind(PUBLISH_KIND_ROUND_END);
  CHECK(field() == "id");
  message.set_id(std::string(32, 'i'));
  message.set_ttl(7);
  CHECK(field() == "ttl");
  message.set_ttl(6);
  CHECK(field() == "blob");
  auto& blob = *message.mutable_blob();
  blob.set_public_key(std::string(33, 'k'));
  blob.set_signature(std::string(64, 's'));
  blob.set_payload(std::string(publish_bytes_max, 'x'));
  CHECK(field() == "blob");
  blob.set_payload(std::string(200'000, 'x'));
  CHECK(static_cast<bool>(rpc::read(message)));
  // A kind of a later version is for the peer manager to decline.
  message.set_kind(static_cast<PublishKind>(42));
  CHECK(static_cast<bool>(rpc::read(message)));
}
