#include "tests/support/test.hpp"

#include "gateway/config/command_line.hpp"
#include "gateway/config/schema.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

command_line parsed(const std::vector<std::string>& arguments) {
  auto line = parse_command_line(arguments);
  if (!line)
    FAIL(line.error().line);
  return *line;
}

std::string refused(const std::vector<std::string>& arguments) {
  auto line = parse_command_line(arguments);
  if (line)
    return "accepted";
  CHECK(line.error().code == exit_code::bad_configuration);
  CHECK(line.error().line.find('\n') == std::string::npos);
  return line.error().line;
}

} // namespace

TEST_CASE("no argument runs the node") {
  const command_line line = parsed({});
  CHECK(line.what == command::run);
  CHECK(line.assignments.empty());
  CHECK_FALSE(line.token_given);
  CHECK(line.log_lines == 50);
}

TEST_CASE("a value may follow its flag or an equals sign") {
  for (const auto& arguments : std::vector<std::vector<std::string>>{{"--port", "81"},
                                                                     {"--port=81"},
                                                                     {"-p", "81"},
                                                                     {"-p81"},
                                                                     {"--set", "port=81"},
                                                                     {"--set=port=81"}}) {
    const command_line line = parsed(arguments);
    REQUIRE(line.assignments.size() == 1);
    CHECK(line.assignments[0].key == "port");
    CHECK(line.assignments[0].text == "81");
  }
}

TEST_CASE("assignments keep the order of the command line across spellings") {
  const command_line line =
      parsed({"--port", "1", "--set", "port=2", "--port=3", "--set", "network=a", "--network=b"});
  std::string order;
  for (const assignment& a : line.assignments)
    order += a.key + "=" + a.text + " ";
  CHECK(order == "port=1 port=2 port=3 network=a network=b ");
}

TEST_CASE("values that look odd are still values") {
  CHECK(parsed({"--set", "training.min_cosine=-0.5"}).assignments[0].text == "-0.5");
  CHECK(parsed({"--tracker="}).assignments[0].text.empty());
  CHECK(parsed({"--seed-peers", "[::1]:9000,a:1"}).assignments[0].text == "[::1]:9000,a:1");
  CHECK(parsed({"--seed-peers", R"(["a:1"])"}).assignments[0].text == R"(["a:1"])");
  CHECK(parsed({"--set", "api.cors_origins=https://a=b"}).assignments[0].text == "https://a=b");
  CHECK(parsed({"--token", "abandon ability able"}).token == "abandon ability able");
  CHECK(parsed({"-t", "x"}).token_given);
}

TEST_CASE("switches turn their key on or off") {
  CHECK(parsed({"--no-training"}).assignments[0].text == "false");
  CHECK(parsed({"--no-training"}).assignments[0].key == "training.enabled");
  CHECK(parsed({"--no-dht=false"}).assignments[0].text == "true");
  CHECK(parsed({"--observer"}).assignments[0].text == "true");
  CHECK(parsed({"--observer=false"}).assignments[0].text == "false");
  CHECK(parsed({"--headless"}).quiet);
  CHECK(parsed({"--no-browser"}).quiet);
}

TEST_CASE("actions are recognised") {
  CHECK(parsed({"--daemon"}).what == command::daemon);
  CHECK(parsed({"-d", "--port", "1"}).what == command::daemon);
  CHECK(parsed({"--stop"}).what == command::stop);
  CHECK(parsed({"--status"}).what == command::status);
  CHECK(parsed({"--logs", "--log-lines", "7"}).log_lines == 7);
  CHECK(parsed({"--print-config"}).what == command::print_config);
  CHECK(parsed({"--new-wallet"}).what == command::new_wallet);
  CHECK(parsed({"--version"}).what == command::version);
  CHECK(parsed({"--help"}).what == command::help);
  CHECK(parsed({"-h"}).what == command::help);
}

TEST_CASE("offline tools get their own arguments") {
  const command_line sign =
      parsed({"--data-dir", "/x", "wallet", "sign", "--tag", "t", "--instance", "2", "hello"});
  CHECK(sign.what == command::wallet_tool);
  CHECK(sign.data_dir == "/x");
  CHECK(sign.operands == std::vector<std::string>{"sign", "--tag", "t", "--instance", "2", "hello"});
  const command_line list = parsed({"checkpoint", "list", "--data-dir=/y"});
  CHECK(list.what == command::checkpoint_tool);
  CHECK(list.data_dir == "/y");
  CHECK(list.operands == std::vector<std::string>{"list"});
  CHECK(parsed({"wallet", "sign", "--", "--data-dir"}).operands ==
        std::vector<std::string>{"sign", "--", "--data-dir"});
  CHECK(parsed({"ledger", "--help"}).what == command::ledger_tool);
  const command_line help = parsed({"wallet", "-h"});
  CHECK(help.what == command::wallet_tool);
  CHECK(help.operands == std::vector<std::string>{"--help"});
}

TEST_CASE("what is wrong is named in one line") {
  CHECK(refused({"--prot", "1"}) == "--prot: unknown option (did you mean --port?)");
  CHECK(contains(refused({"--nothing-like-it"}), "--nothing-like-it: unknown option"));
  CHECK(contains(refused({"-z"}), "-z: unknown option"));
  CHECK(
      contains(refused({"wallets"}), "wallets: unknown subcommand; allowed are wallet, ledger, checkpoint"));
  CHECK(refused({"wallet"}) == "wallet: allowed are new, show, sign, verify");
  CHECK(refused({"wallet", "burn"}) == "wallet burn: allowed are new, show, sign, verify");
  CHECK(refused({"ledger", "new show"}) == "ledger new show: allowed are verify, export, check-proof");
  CHECK(refused({"--port"}) == "--port: needs a value");
  CHECK(refused({"--observer", "--data-dir"}) == "--data-dir: needs a value");
  CHECK(refused({"--set", "port"}) == "--set port: must be key=value");
  CHECK(refused({"--set", "=1"}) == "--set =1: must be key=value");
  CHECK(contains(refused({"--log-lines", "0"}), "--log-lines = 0: must be an integer from 1"));
  CHECK(contains(refused({"--config", ""}), "--config: needs a path"));
  CHECK(contains(refused({"--stop", "wallet", "show"}), "cannot be combined"));
  CHECK(contains(refused({"--observer=maybe"}), "--observer"));
  CHECK(refused({std::string(100000, 'x')}).size() < 300);
  CHECK(contains(refused({"a\nb"}), "a?b"));
}

TEST_CASE("help shows every flag and fits the page") {
  const std::string help = help_text();
  for (const key_spec& row : schema())
    if (!row.flag.empty()) {
      CAPTURE(row.flag);
      CHECK(contains(help, std::string(row.flag)));
    }
  for (const char* flag :
       {"--token", "--data-dir", "--config", "--set", "--daemon", "--stop", "--status", "--logs",
        "--log-lines", "--new-wallet", "--print-config", "--version", "--help", "--headless"})
    CHECK(contains(help, flag));
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    CHECK(line.size() <= 100);
  }
}
