#include "kernels/core/sha256.hpp"
#include "tests/kernels/op_cases.hpp"
#include "tests/support/test.hpp"

#include <vector>

using namespace neuroshard::kernels;

namespace {

std::string hex_of(std::string_view text) {
  return to_hex(sha256::of(text));
}

} // namespace

TEST_CASE("SHA-256 gives the published digests") {
  // NIST, "SHA-256 examples" and the short message vectors of FIPS 180-4.
  CHECK_EQ(hex_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQ(hex_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQ(hex_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQ(hex_of("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlm"
                  "nopqrsmno"
                  "pqrstnopqrstu"),
           "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  CHECK_EQ(hex_of(std::string(1000000, 'a')),
           "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a message may come in pieces of any size") {
  testing::numbers random(testing::test_seed());
  std::vector<uint8_t> message;
  for (int i = 0; i < 1000; ++i)
    message.push_back(static_cast<uint8_t>(random.below(256)));
  for (size_t length = 0; length <= 200; ++length) {
    const std::span<const uint8_t> whole(message.data(), length);
    sha256 pieces;
    for (size_t at = 0; at < length;) {
      const size_t part = std::min(length - at, static_cast<size_t>(random.below(70)));
      pieces.update(whole.subspan(at, part));
      at += part;
    }
    CHECK_EQ(to_hex(pieces.finish()), to_hex(sha256::of(whole)));
  }
}

TEST_CASE("hex is lower case, two digits a byte") {
  const std::vector<uint8_t> bytes{0x00, 0x0f, 0xa5, 0xff};
  CHECK_EQ(to_hex(bytes), "000fa5ff");
  CHECK_EQ(to_hex({}), "");
}
