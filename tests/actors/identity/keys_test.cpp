#include "actors/identity/keys.hpp"

#include "actors/identity/token.hpp"
#include "tests/support/test.hpp"

#include <string>

using namespace neuroshard;

namespace {

key_pair pair_of_hex(const char* hex) {
  secret_key secret;
  REQUIRE(from_hex(hex, secret.data(), 32));
  auto pair = make_key_pair(std::move(secret));
  REQUIRE(pair);
  return std::move(*pair);
}

key_pair wallet_of(std::string_view token) {
  auto pair = wallet_key(parse_token(token)->canonical.view());
  REQUIRE(pair);
  return std::move(*pair);
}

/// n - s: the second, high form of a signature.
signature with_high_s(signature sig) {
  uint8_t order[32];
  REQUIRE(from_hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", order, 32));
  int borrow = 0;
  for (int i = 31; i >= 0; --i) {
    const int digit = order[i] - sig[32 + i] - borrow;
    borrow = digit < 0 ? 1 : 0;
    sig[32 + i] = static_cast<uint8_t>(digit + (borrow << 8));
  }
  return sig;
}

} // namespace

TEST_CASE("signatures use the nonces of RFC 6979") {
  // Vectors of the secp256k1 community for RFC 6979 with SHA-256, low s.
  const struct {
    const char* key;
    const char* message;
    const char* signature;
  } cases[] = {
      {"0000000000000000000000000000000000000000000000000000000000000001", "Satoshi Nakamoto",
       "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
       "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"},
      {"0000000000000000000000000000000000000000000000000000000000000001",
       "All those moments will be lost in time, like tears in rain. Time to die...",
       "8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b"
       "547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21"},
      {"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto",
       "fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d0"
       "6b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5"},
      {"f8b8af8ce3c7cca5e300d33939540c10d45ce001b8f252bfbc57ba0342904181", "Alan Turing",
       "7063ae83e7f62bbb171798131b4a0564b956930092b33b07b395615d9ec7e15c"
       "58dfcc1e00a35e1572f366ffe34ba0fc47db1e7189759b9fb233c5b05ab388ea"},
  };
  for (const auto& each : cases) {
    CAPTURE(std::string(each.message));
    const key_pair key = pair_of_hex(each.key);
    const auto digest = kernels::sha256::of(std::string_view(each.message));
    const signature sig = sign_digest(key, digest);
    CHECK(kernels::to_hex(sig) == each.signature);
    CHECK(verify_digest(key.pub, sig, digest));
  }
}

TEST_CASE("keys, addresses and ids are those worked out by hand") {
  const key_pair words = wallet_of(
      "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about");
  CHECK(kernels::to_hex(words.pub) == "031d3e8ce949d8238051381936dfb907880701add84276efb93af9f9ad0a22c341");
  CHECK(address_of(words.pub) == "0xd72992fd962a53bbab62f8710b11e0f78b7c44fc");
  CHECK(wallet_id_of(words.pub) == "d72992fd962a53bb");
  CHECK(node_id_of(words.pub) == "d72992fd962a53bbab62f8710b11e0f7");
  CHECK(node_id_of(node_key(words, 0)->pub) == "d72992fd962a53bbab62f8710b11e0f7");
  CHECK(node_id_of(node_key(words, 1)->pub) == "d5f73e505447e2786913a5517a5a7661");
  CHECK(node_id_of(node_key(words, 65535)->pub) == "dbd0f8f4565b5f5ed65fa42351d3cbb1");
  const key_pair word = wallet_of("correct-horse");
  CHECK(address_of(word.pub) == "0xe8bc56c2e5d3944693fb0d8093d38a1b568e7900");
  CHECK(node_id_of(node_key(word, 1)->pub) == "516e295c44d12bb69f009a7997af1aa7");
}

TEST_CASE("a digest is read from the hex it is written as, and from nothing else") {
  const kernels::digest made = signing_digest("tag-v1", "payload");
  const std::string hex = kernels::to_hex(made);
  CHECK(digest_from_hex(hex) == made);
  CHECK(!digest_from_hex(""));
  CHECK(!digest_from_hex(hex.substr(1)));
  CHECK(!digest_from_hex(hex + "0"));
  std::string upper = hex;
  upper[3] = 'A';
  CHECK(!digest_from_hex(upper));
  std::string other = hex;
  other[63] = 'g';
  CHECK(!digest_from_hex(other));
  other[63] = '\0';
  CHECK(!digest_from_hex(other));
}

TEST_CASE("zero and values from the group order on are no keys") {
  CHECK(!make_key_pair(secret_key{}));
  secret_key order;
  REQUIRE(from_hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", order.data(), 32));
  CHECK(!make_key_pair(order.copy()));
  --order.data()[31];
  CHECK(make_key_pair(std::move(order)));
}

TEST_CASE("what is signed is bound to its tag and payload") {
  CHECK(kernels::to_hex(signing_digest("tag-v1", "payload")) ==
        "17720392fb48facfadb7c356927c9bff3ccd68b1e47812903dfbe36cc73ff220");
  const key_pair key = wallet_of("correct-horse");
  const signature sig = sign(key, "tag-v1", "payload");
  CHECK(verify(key.pub, sig, "tag-v1", "payload"));
  CHECK(!verify(key.pub, sig, "tag-v2", "payload"));
  CHECK(!verify(key.pub, sig, "tag-v1", "payloae"));
  CHECK(!verify(wallet_of("another-word").pub, sig, "tag-v1", "payload"));
  for (size_t i = 0; i < sig.size(); ++i) {
    signature bad = sig;
    bad[i] ^= 1;
    CHECK(!verify(key.pub, bad, "tag-v1", "payload"));
  }
}

TEST_CASE("the second form of a signature, with a high s, is not valid") {
  const key_pair key = wallet_of("correct-horse");
  for (int i = 0; i < 50; ++i) {
    const std::string payload = "payload " + std::to_string(i);
    const signature sig = sign(key, "tag-v1", payload);
    CHECK(verify(key.pub, sig, "tag-v1", payload));
    CHECK(!verify(key.pub, with_high_s(sig), "tag-v1", payload));
  }
}

TEST_CASE("malformed keys and signatures are not valid") {
  const key_pair key = wallet_of("correct-horse");
  const signature sig = sign(key, "t", "p");
  const std::string_view tag = "t", payload = "p";
  CHECK(!verify(std::span(key.pub).first(32), sig, tag, payload));
  CHECK(!verify(key.pub, std::span(sig).first(63), tag, payload));
  CHECK(!verify({}, {}, tag, payload));
  public_key bad_key = key.pub;
  bad_key[0] = 4;
  CHECK(!verify(bad_key, sig, tag, payload));
  CHECK(!verify(public_key{}, sig, tag, payload));
  CHECK(!verify(key.pub, signature{}, tag, payload));
  signature all;
  all.fill(0xff);
  CHECK(!verify(key.pub, all, tag, payload));
}

TEST_CASE("addresses are read in either case") {
  CHECK(*parse_address("0xD72992FD962A53BBAB62F8710B11E0F78B7C44FC") ==
        "0xd72992fd962a53bbab62f8710b11e0f78b7c44fc");
  CHECK(!parse_address("d72992fd962a53bbab62f8710b11e0f78b7c44fc"));
  CHECK(!parse_address("0Xd72992fd962a53bbab62f8710b11e0f78b7c44fc"));
  CHECK(!parse_address("0xd72992fd962a53bbab62f8710b11e0f78b7c44f"));
  CHECK(!parse_address("0xd72992fd962a53bbab62f8710b11e0f78b7c44fcc"));
  CHECK(!parse_address("0xg72992fd962a53bbab62f8710b11e0f78b7c44fc"));
  CHECK(!parse_address(""));
  CHECK(is_zero_address("0x0000000000000000000000000000000000000000"));
  CHECK(!is_zero_address("0x0000000000000000000000000000000000000001"));
}
