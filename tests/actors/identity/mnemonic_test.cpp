#include "actors/identity/mnemonic.hpp"

#include "actors/common/clock.hpp"
#include "actors/identity/keys.hpp"
#include "actors/identity/token.hpp"
#include "tests/support/test.hpp"

#include <string>
#include <vector>

using namespace neuroshard;

namespace {

/// The test vectors published with BIP39 (trezor/python-mnemonic, vectors.json); passphrase "TREZOR".
struct vector_case {
  const char* entropy;
  const char* words;
  const char* seed;
};
constexpr vector_case vectors[] = {
    {"00000000000000000000000000000000",
     "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
     "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3"
     "c4ab7c81"
     "b2f001698e7463b04"},
    {"7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
     "legal winner thank year wave sausage worth useful legal winner thank yellow",
     "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5b"
     "d381ee62"
     "60e8d9739fce1f607"},
    {"80808080808080808080808080808080",
     "letter advice cage absurd amount doctor acoustic avoid letter advice cage above",
     "d71de856f81a8acc65e6fc851a38d4d7ec216fd0796d0a6827a3ad6ed5511a30fa280f12eb2e47ed2ac03b5c462a0358d18d69f"
     "e4f985ec"
     "81778c1b370b652a8"},
    {"ffffffffffffffffffffffffffffffff", "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong",
     "ac27495480225222079d7be181583751e86f571027b0497b5b5d11218e0a8a13332572917f0f8e5a589620c6f15b11c61dee327"
     "651a14c3"
     "4e18231052e48c069"},
    {"9e885d952ad362caeb4efe34a8e91bd2",
     "ozone drill grab fiber curtain grace pudding thank cruise elder eight picnic",
     "274ddc525802f7c828d8ef7ddbcdc5304e87ac3535913611fbbfa986d0c9e5476c91689f9c8a54fd55bd38606aa6a8595ad213d"
     "4c9c9f9a"
     "ca3fb217069a41028"},
    {"68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c",
     "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel "
     "tennis maple "
     "dilemma loan word shrug inflict delay length",
     "64c87cde7e12ecf6704ab95bb1408bef047c22db4cc7491c4271d170a1b213d20b385bc1588d9c7b38f1b39d415665b8a9030c9"
     "ec653d75"
     "e65f847d8fc1fc440"},
};

} // namespace

TEST_CASE("the word list is that of BIP39") {
  std::string list;
  for (size_t i = 0; i < mnemonic::word_count; ++i)
    list.append(mnemonic::word(i)).push_back('\n');
  CHECK(kernels::to_hex(kernels::sha256::of(list)) ==
        "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
}

TEST_CASE("the vectors of BIP39 come out") {
  for (const auto& each : vectors) {
    CAPTURE(std::string(each.words));
    std::vector<uint8_t> entropy(std::string_view(each.entropy).size() / 2);
    REQUIRE(from_hex(each.entropy, entropy.data(), entropy.size()));
    CHECK(mnemonic::from_entropy(entropy).view() == each.words);
    CHECK(mnemonic::valid(each.words));
    std::vector<uint8_t> seed(64);
    REQUIRE(mnemonic::seed(each.words, "TREZOR", seed.data()));
    CHECK(kernels::to_hex(seed) == each.seed);
  }
}

TEST_CASE("a changed, missing, added or unknown word is noticed") {
  const std::string good = vectors[1].words;
  CHECK(!mnemonic::valid("legal winner thank year wave sausage worth useful legal winner thank thank"));
  CHECK(!mnemonic::valid("winner legal thank year wave sausage worth useful legal winner thank yellow"));
  CHECK(!mnemonic::valid("legal winner thank year wave sausage worth useful legal winner thank"));
  CHECK(!mnemonic::valid(good + " legal"));
  CHECK(!mnemonic::valid(good + " "));
  CHECK(!mnemonic::valid("legal  winner thank year wave sausage worth useful legal winner thank yellow"));
  CHECK(!mnemonic::valid("legal winner thank year wave sausage worth useful legal winner thank yello"));
  CHECK(!mnemonic::valid(""));
  std::string many;
  for (int i = 0; i < 1000; ++i)
    many += "zoo ";
  CHECK(!mnemonic::valid(many));
}

TEST_CASE("words are brought to one form before they are read") {
  CHECK(mnemonic::normalized("  Legal\twinner \n thank ").view() == "legal winner thank");
  // Full-width letters and an ideographic space have plain compatibility forms.
  CHECK(mnemonic::normalized("\xef\xbd\x8c\xef\xbd\x85\xef\xbd\x87\xef\xbd\x81\xef\xbd\x8c\xe3\x80\x80winner")
            .view() == "legal winner");
  CHECK(mnemonic::normalized("\xff\xfe").empty());
  CHECK(mnemonic::normalized(std::string(1025, 'a')).empty());
  CHECK(mnemonic::normalized("   ").empty());
}

TEST_CASE("entropy of another size gives no words") {
  const std::vector<uint8_t> bytes(40);
  for (const size_t size : {0, 4, 12, 15, 17, 36, 40})
    CHECK(mnemonic::from_entropy({bytes.data(), size}).empty());
}

TEST_CASE("a new wallet has twelve valid words, another each time") {
  const auto random = system_random();
  const secret_text a = new_mnemonic(*random), b = new_mnemonic(*random);
  CHECK(mnemonic::valid(a.view()));
  CHECK(mnemonic::valid(b.view()));
  CHECK(a.view() != b.view());
}
