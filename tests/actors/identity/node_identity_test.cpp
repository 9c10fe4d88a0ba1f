#include "actors/identity/node_identity.hpp"

#include "tests/support/test.hpp"

#include <random>
#include <string>

using namespace neuroshard;

namespace {

constexpr int64_t now_ms = 1'760'000'000'000;
constexpr int64_t day_ms = 86'400'000;

node_identity identity_of(std::string_view token, uint32_t instance) {
  auto made = node_identity::make(*parse_token(token), instance, now_ms);
  REQUIRE(made);
  return std::move(*made);
}

std::string reason_of(const caf::expected<blob_signer>& signer) {
  REQUIRE(!signer);
  CHECK(code_of(signer.error()) == errc::unauthorized);
  return problem_of(signer.error()).reason;
}

} // namespace

TEST_CASE("the first instance signs with the wallet key itself") {
  const auto identity = identity_of("correct-horse", 0);
  CHECK(identity.node_id() == "e8bc56c2e5d3944693fb0d8093d38a1b");
  CHECK(identity.address() == "0xe8bc56c2e5d3944693fb0d8093d38a1b568e7900");
  const auto blob = identity.sign_as_node("neuroshard-receipt-v1", "work");
  CHECK(blob.delegation.empty());
  const auto signer = verify_blob(blob, "neuroshard-receipt-v1", now_ms);
  REQUIRE(signer);
  CHECK(signer->node_id == identity.node_id());
  CHECK(signer->address == identity.address());
}

TEST_CASE("a further instance signs with a key of its own, for the same wallet") {
  const auto identity = identity_of("correct-horse", 1);
  CHECK(identity.node_id() == "516e295c44d12bb69f009a7997af1aa7");
  CHECK(identity.address() == "0xe8bc56c2e5d3944693fb0d8093d38a1b568e7900");
  const auto blob = identity.sign_as_node("neuroshard-receipt-v1", "work");
  const auto signer = verify_blob(blob, "neuroshard-receipt-v1", now_ms + 29 * day_ms);
  REQUIRE(signer);
  CHECK(signer->node_id == identity.node_id());
  CHECK(signer->address == identity.address());
  CHECK(reason_of(verify_blob(blob, "neuroshard-receipt-v1", now_ms + 30 * day_ms)) == "bad_delegation");
  CHECK(reason_of(verify_blob(blob, "neuroshard-node-v1", now_ms)) == "bad_signature");
}

TEST_CASE("a delegation serves nobody else") {
  const auto mine = identity_of("correct-horse", 1), other = identity_of("battery-staple", 1);
  auto blob = other.sign_as_node("t", "work");
  blob.delegation = mine.sign_as_node("t", "").delegation;
  CHECK(reason_of(verify_blob(blob, "t", now_ms)) == "bad_delegation");
  // Signed by a node key instead of the wallet it names.
  auto inner = decode_signed_blob(mine.sign_as_node("t", "").delegation);
  REQUIRE(inner);
  auto forged = other.sign_as_node(delegation_tag, inner->payload);
  forged.delegation.clear();
  auto mine_blob = mine.sign_as_node("t", "work");
  mine_blob.delegation = encode_signed_blob(forged);
  CHECK(reason_of(verify_blob(mine_blob, "t", now_ms)) == "bad_delegation");
  // A delegation of a delegation.
  inner->delegation = "x";
  mine_blob.delegation = encode_signed_blob(*inner);
  CHECK(reason_of(verify_blob(mine_blob, "t", now_ms)) == "bad_delegation");
  mine_blob.delegation = "nonsense";
  CHECK(reason_of(verify_blob(mine_blob, "t", now_ms)) == "bad_delegation");
}

TEST_CASE("a delegation lasts 30 days, whatever it says") {
  const auto token = parse_token("correct-horse");
  const auto wallet = wallet_key(token->canonical.view());
  const auto node = identity_of("correct-horse", 1);
  const auto delegated = [&](int64_t issued, int64_t expires) {
    signed_blob inner;
    inner.payload = encode_delegation({node.node_public_key(), node.address(), issued, expires});
    inner.key = wallet->pub;
    inner.sig = sign(*wallet, delegation_tag, inner.payload);
    auto blob = node.sign_as_node("t", "work");
    blob.delegation = encode_signed_blob(inner);
    return verify_blob(blob, "t", now_ms);
  };
  CHECK(delegated(now_ms, now_ms + 30 * day_ms));
  CHECK(reason_of(delegated(now_ms, now_ms + 30 * day_ms + 1)) == "bad_delegation");
  CHECK(reason_of(delegated(INT64_MIN, INT64_MAX)) == "bad_delegation");
  CHECK(reason_of(delegated(INT64_MAX, INT64_MIN)) == "bad_delegation");
}

TEST_CASE("delegations and blobs read back as written") {
  const auto identity = identity_of("correct-horse", 3);
  const auto blob = identity.sign_as_node("t", std::string("by\0tes", 6));
  const auto back = decode_signed_blob(encode_signed_blob(blob));
  REQUIRE(back);
  CHECK(back->payload == blob.payload);
  CHECK(back->key == blob.key);
  CHECK(back->sig == blob.sig);
  CHECK(back->delegation == blob.delegation);
  const auto outer = decode_signed_blob(blob.delegation);
  REQUIRE(outer);
  const auto inner = decode_delegation(outer->payload);
  REQUIRE(inner);
  CHECK(inner->node_key == identity.node_public_key());
  CHECK(inner->address == identity.address());
  CHECK(inner->issued_unix_ms == now_ms);
  CHECK(inner->expires_unix_ms == now_ms + 30 * day_ms);
  // The bytes of the message as protobuf has them: field 1 (33 bytes), field 2 (42 bytes), two varints.
  CHECK(outer->payload.size() == 2 + 33 + 2 + 42 + 1 + 6 + 1 + 6);
  CHECK(static_cast<uint8_t>(outer->payload[0]) == 0x0a);
  CHECK(static_cast<uint8_t>(outer->payload[1]) == 33);
  CHECK(static_cast<uint8_t>(outer->payload[35]) == 0x12);
}

TEST_CASE("broken bytes are refused and never crash the reader") {
  const auto identity = identity_of("correct-horse", 2);
  const std::string good = encode_signed_blob(identity.sign_as_node("t", "work"));
  for (size_t cut = 0; cut < good.size(); ++cut)
    (void)decode_signed_blob(std::string_view(good).substr(0, cut));
  CHECK(!decode_signed_blob(std::string_view(good).substr(0, 40)));
  CHECK(!decode_signed_blob(std::string(70'000, '\x0a')));
  CHECK(!decode_signed_blob("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"));
  CHECK(!decode_signed_blob("\x0b"));
  CHECK(!decode_signed_blob(""));
  std::mt19937 random(5);
  for (int i = 0; i < 20'000; ++i) {
    std::string bad = good;
    for (int flips = 1 + static_cast<int>(random() % 4); flips > 0; --flips)
      bad[random() % bad.size()] ^= static_cast<char>(1 << random() % 8);
    const auto blob = decode_signed_blob(bad);
    if (blob && bad != good) {
      const auto signer = verify_blob(*blob, "t", now_ms);
      // Either nothing that counts was touched, or it is refused.
      if (signer)
        CHECK(signer->address == (blob->delegation.empty() ? address_of(blob->key) : identity.address()));
    }
  }
}
