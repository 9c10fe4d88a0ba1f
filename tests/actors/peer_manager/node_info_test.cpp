#include "actors/peer_manager/node_info.hpp"

#include "actors/identity/wire.hpp"
#include "tests/support/test.hpp"

#include <limits>

using namespace neuroshard;

namespace {

constexpr int64_t now_ms = 1'800'000'000'000;

node_identity identity(uint32_t instance = 0) {
  auto token = parse_token(std::string(64, 'a'));
  REQUIRE(static_cast<bool>(token));
  auto made = node_identity::make(*token, instance, now_ms);
  REQUIRE(static_cast<bool>(made));
  return std::move(*made);
}

node_description described(const node_identity& who) {
  node_description node;
  node.node_id = who.node_id();
  node.wallet_address = who.address();
  node.host = "fd00::12";
  node.grpc_port = 9000;
  node.http_port = 8000;
  node.tls_cert_sha256 = kernels::sha256::of("certificate");
  node.sequence = 1'800'000'000'000'000;
  node.roles = {node_role::driver, node_role::worker, node_role::validator};
  node.layer_begin = 2;
  node.layer_end = 7;
  node.has_embedding = true;
  node.has_lm_head = true;
  node.memory_total_mb = 16'000;
  node.memory_free_mb = 12'000;
  node.device = "cpu";
  node.queue_depth = 3;
  node.utilization = 0.5f;
  node.accepting = true;
  node.training = true;
  node.model_version = 42;
  node.architecture_id = "0123456789abcdef";
  node.software_version = "0.1.0";
  node.ms_per_layer = 1.25f;
  node.units = {{"embed", kernels::sha256::of("e"), {}},
                {"layer.2", kernels::sha256::of("2"), kernels::sha256::of("v")},
                {"head", kernels::sha256::of("h"), {}}};
  node.economics_hash = kernels::sha256::of("economics");
  return node;
}

std::string field_refused(const node_description& node) {
  const auto read = decode_node_info(encode_node_info(node));
  REQUIRE_FALSE(static_cast<bool>(read));
  CHECK(code_of(read.error()) == errc::invalid_request);
  return problem_of(read.error()).field;
}

} // namespace

TEST_CASE("a node's word comes back as it was, signed by the node and proven by its wallet") {
  for (const uint32_t instance : {0U, 3U}) {
    const auto who = identity(instance);
    const auto node = described(who);
    CHECK(*decode_node_info(encode_node_info(node)) == node);
    const auto read = read_node(sign_node(who, node)->blob, now_ms);
    REQUIRE(static_cast<bool>(read));
    CHECK((*read)->what == node);
    CHECK((*read)->blob.payload == encode_node_info(node));
  }
}

TEST_CASE("a word that was changed, or signed by another, is refused with the reason") {
  const auto who = identity();
  const auto other = identity(1);
  auto blob = sign_node(who, described(who))->blob;
  blob.payload.back() ^= 1;
  const auto changed = read_node(blob, now_ms);
  CHECK(problem_of(changed.error()).reason == "bad_signature");
  const auto foreign = read_node(sign_node(other, described(who))->blob, now_ms);
  CHECK(problem_of(foreign.error()).reason == "wrong_signer");
  auto mine = described(who);
  mine.wallet_address = "0x0123456789012345678901234567890123456789";
  CHECK(problem_of(read_node(sign_node(who, mine)->blob, now_ms).error()).reason == "wrong_signer");
  // The delegation of an instance is for 30 days.
  const auto late = read_node(sign_node(other, described(other))->blob, now_ms + delegation_ms + 1);
  CHECK(problem_of(late.error()).reason == "bad_delegation");
}

TEST_CASE("what is out of its bounds is named") {
  const auto who = identity();
  const auto with = [&](auto change) {
    auto node = described(who);
    change(node);
    return field_refused(node);
  };
  CHECK(with([](auto& n) { n.node_id = "0123"; }) == "node_id");
  CHECK(with([](auto& n) { n.node_id[0] = 'A'; }) == "node_id");
  CHECK(with([](auto& n) { n.wallet_address = "0xabc"; }) == "wallet_address");
  CHECK(with([](auto& n) { n.host = "a b"; }) == "host");
  CHECK(with([](auto& n) { n.host = std::string(254, 'a'); }) == "host");
  CHECK(with([](auto& n) { n.grpc_port = 65'536; }) == "grpc_port");
  CHECK(with([](auto& n) { n.grpc_port = 0; }) == "grpc_port");
  CHECK(with([](auto& n) { n.sequence = 0; }) == "sequence");
  CHECK(with([](auto& n) { n.layer_begin = 8; }) == "layer_end");
  CHECK(with([](auto& n) { n.layer_end = 65'537; }) == "layer_end");
  CHECK(with([](auto& n) { n.device = "c\np"; }) == "device");
  CHECK(with([](auto& n) { n.architecture_id = "x"; }) == "architecture_id");
  CHECK(with([](auto& n) { n.utilization = 1.5f; }) == "utilization");
  CHECK(with([](auto& n) { n.utilization = std::numeric_limits<float>::quiet_NaN(); }) == "utilization");
  CHECK(with([](auto& n) { n.ms_per_layer = std::numeric_limits<float>::infinity(); }) == "ms_per_layer");
  CHECK(with([](auto& n) { n.units[1].unit = "layer.02"; }) == "node");
  CHECK(with([](auto& n) { n.units[1].unit = "tail"; }) == "node");
  CHECK(with([](auto& n) { n.units.resize(1'025, n.units[0]); }) == "node");
  CHECK_FALSE(static_cast<bool>(decode_node_info("\xff\xff")));
}

TEST_CASE("roles come packed or one by one, and those of a later version are left out") {
  auto node = described(identity());
  node.roles.clear();
  auto bytes = encode_node_info(node);
  wire::put_unsigned(bytes, 8, 3);
  wire::put_unsigned(bytes, 8, 9);
  wire::put_unsigned(bytes, 8, 1);
  wire::put_unsigned(bytes, 8, 1);
  wire::put_unsigned(bytes, 61, 7); // a field of a later version
  const auto read = decode_node_info(bytes);
  REQUIRE(static_cast<bool>(read));
  CHECK(read->roles == std::vector{node_role::driver, node_role::validator});
}
