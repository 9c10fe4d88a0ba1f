#include "actors/identity/wallet_tool.hpp"

#include "actors/identity/token.hpp"
#include "tests/support/test.hpp"

#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

using namespace neuroshard;

namespace {

struct tool {
  std::string folder; ///< the data directory
  std::string made;
  std::string out;
  std::string err;
  tool() {
    char name[] = "/tmp/neuroshard-tool-XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    folder = made = name;
  }
  ~tool() { std::filesystem::remove_all(made); }

  int run(const std::vector<std::string>& args, const std::string& input = {}) {
    std::istringstream in(input);
    std::ostringstream to, errors;
    const int code = run_wallet_tool(args, folder, in, to, errors);
    out = to.str();
    err = errors.str();
    return code;
  }
  /// What follows `name:` on a line of the output.
  std::string value(const std::string& name) const {
    const size_t at = out.find(name + ":");
    REQUIRE(at != std::string::npos);
    const size_t from = out.find_first_not_of(' ', at + name.size() + 1);
    return out.substr(from, out.find('\n', from) - from);
  }
};

} // namespace

TEST_CASE_FIXTURE(tool, "a new wallet is stored, and its words are its token") {
  REQUIRE(run({"new"}) == 0);
  const std::string address = value("address"), words = value("words");
  CHECK(*inspect_token(words) == token_form::mnemonic);
  REQUIRE(run({"show"}) == 0);
  CHECK(value("address") == address);
  CHECK(value("node id") == address.substr(2, 32));
  const auto token = parse_token(words);
  CHECK(out.find(token->canonical.view()) == std::string::npos);
  REQUIRE(run({"show", "--instance", "7"}) == 0);
  CHECK(value("address") == address);
  CHECK(value("node id") != address.substr(2, 32));
  CHECK(run({"new"}) == 3);
  CHECK(err.find("already there") != std::string::npos);
}

TEST_CASE_FIXTURE(tool, "a wallet can be the first thing in its data directory") {
  folder += "/not/there/yet";
  REQUIRE(run({"new"}) == 0);
  CHECK(std::filesystem::status(folder).permissions() == std::filesystem::perms::owner_all);
  CHECK(run({"show"}) == 0);
}

TEST_CASE_FIXTURE(tool, "a wallet can be made on paper alone") {
  REQUIRE(run({"new", "--print-only"}) == 0);
  CHECK(*inspect_token(value("words")) == token_form::mnemonic);
  CHECK(std::filesystem::is_empty(folder));
}

TEST_CASE_FIXTURE(tool, "what is signed verifies, and nothing else does") {
  REQUIRE(run({"new"}) == 0);
  const std::string address = value("address");
  REQUIRE(run({"sign", "hello"}) == 0);
  const std::string key = value("public key"), sig = value("signature");
  CHECK(run({"verify", "--public-key", key, "--signature", sig, "hello"}) == 0);
  CHECK(out == "valid, signed by " + address + "\n");
  CHECK(run({"verify", "--public-key=" + key, "--signature=" + sig, "--address", address, "-"}, "hello") ==
        0);
  CHECK(run({"verify", "--public-key", key, "--signature", sig, "hellp"}) == 1);
  CHECK(out == "not valid\n");
  CHECK(run({"verify", "--public-key", key, "--signature", sig, "--tag", "other", "hello"}) == 1);
  CHECK(run({"verify", "--public-key", key, "--signature", sig, "--address",
             "0x0000000000000000000000000000000000000001", "hello"}) == 1);
  REQUIRE(run({"sign"}, std::string("from\0input", 10)) == 0);
  CHECK(run({"verify", "--public-key", key, "--signature", value("signature")},
            std::string("from\0input", 10)) == 0);
}

TEST_CASE_FIXTURE(tool, "a record of the node is not signed by hand") {
  REQUIRE(run({"new"}) == 0);
  CHECK(run({"sign", "--tag", "neuroshard-tx-v1", "hello"}) == 1);
  CHECK(run({"sign", "--tag", "neuroshard-tx-v1\nx", "hello"}) == 1);
  CHECK(run({"sign", "--tag", "my-own", "hello"}) == 0);
}

TEST_CASE_FIXTURE(tool, "bad arguments say what is wrong") {
  CHECK(run({}) == 1);
  CHECK(run({"steal"}) == 1);
  CHECK(err.find("usage") != std::string::npos);
  CHECK(run({"show"}) == 3);
  CHECK(err.find("wallet.json does not exist") != std::string::npos);
  CHECK(run({"show", "--instance", "x"}) == 1);
  CHECK(run({"show", "--instance", "65536"}) == 1);
  CHECK(run({"show", "--instance"}) == 1);
  CHECK(run({"new", "--force"}) == 1);
  CHECK(run({"sign", "a", "b"}) == 1);
  CHECK(run({"verify", "x"}) == 1);
  CHECK(run({"verify", "--public-key", "00", "--signature", "00", "x"}) == 1);
}

TEST_CASE_FIXTURE(tool, "help is at hand after each verb, and does nothing") {
  for (const char* verb : {"new", "show", "sign", "verify"})
    for (const char* help : {"--help", "-h"}) {
      CHECK(run({verb, help}) == 0);
      CHECK(out.starts_with("usage: neuroshard wallet new"));
      CHECK(err.empty());
    }
  CHECK(run({"--help"}) == 0);
  CHECK(std::filesystem::is_empty(folder));
  REQUIRE(run({"new"}) == 0);
  CHECK(run({"sign", "--", "--help"}) == 0); // a text like any other
  CHECK(out.starts_with("public key"));
}
