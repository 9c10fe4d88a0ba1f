#include "gateway/grpc/certificate.hpp"

#include "actors/common/error.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <filesystem>
#include <fstream>
#include <sys/stat.h>

using namespace neuroshard;
using namespace neuroshard::rpc;

namespace {

void overwrite(const std::string& file, const std::string& text) {
  std::ofstream(file, std::ios::trunc) << text;
}

} // namespace

TEST_CASE("a certificate is made once, its key for the owner alone, and read ever after") {
  test::temporary_directory root;
  const auto folder = root.path() + "/tls";
  const auto made = load_or_make_certificate(folder);
  REQUIRE(static_cast<bool>(made));
  CHECK(certificate_hash(made->certificate_pem) == made->sha256);
  struct stat info {};
  REQUIRE(::stat((folder + "/node.key").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  REQUIRE(::stat(folder.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  const auto again = load_or_make_certificate(folder);
  REQUIRE(static_cast<bool>(again));
  CHECK(again->certificate_pem == made->certificate_pem);
  CHECK(again->key_pem == made->key_pem);
  CHECK(again->sha256 == made->sha256);
  CHECK(load_or_make_certificate(root.path() + "/other")->sha256 != made->sha256);
}

TEST_CASE("half a pair is made anew; a foreign or broken one is refused by its name") {
  test::temporary_directory root;
  const auto folder = root.path() + "/tls";
  const auto first = load_or_make_certificate(folder);
  REQUIRE(static_cast<bool>(first));
  std::filesystem::remove(folder + "/node.crt");
  const auto second = load_or_make_certificate(folder);
  REQUIRE(static_cast<bool>(second));
  CHECK(second->sha256 != first->sha256);

  const auto refused = [&](const char* file) {
    const auto read = load_or_make_certificate(folder);
    REQUIRE_FALSE(static_cast<bool>(read));
    CHECK(code_of(read.error()) == errc::storage);
    CHECK(problem_of(read.error()).message.find(file) != std::string::npos);
  };
  overwrite(folder + "/node.key", first->key_pem);
  refused("node.key");
  overwrite(folder + "/node.key", "garbage");
  refused("node.key");
  overwrite(folder + "/node.crt", "garbage");
  refused("node.crt");
}

TEST_CASE("what is no certificate has no hash") {
  CHECK_FALSE(certificate_hash("").has_value());
  CHECK_FALSE(certificate_hash("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").has_value());
  CHECK_FALSE(certificate_hash(std::string(1'000'000, 'A')).has_value());
}
