#include "actors/checkpointer/checkpoint_tool.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/identity/wallet_tool.hpp"
#include "actors/ledger/ledger_tool.hpp"
#include "gateway/config/command_line.hpp"
#include "gateway/config/console.hpp"
#include "gateway/config/daemon.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/load_config.hpp"
#include "gateway/node/check_proof.hpp"
#include "gateway/node/node.hpp"

#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// The program: the command line decides whether it is a node (gateway/node), one of the offline tools, or a
/// question to a daemon.
namespace neuroshard {
namespace {

int complain(const start_error& why) {
  std::cerr << "neuroshard: " << why.line << '\n';
  return static_cast<int>(why.code);
}

int start_node(command_line given, const process_start& start) {
  auto loaded = load_config(given);
  if (!loaded)
    return complain(loaded.error());
  std::optional<daemon_child> daemon;
  if (given.what == command::daemon) {
    auto child = become_daemon();
    if (!child)
      return complain(child.error());
    daemon.emplace(std::move(*child));
  }
  return run_node(std::move(given), std::move(*loaded), std::move(daemon), start);
}

int new_wallet() {
  auto words = new_mnemonic(*system_random());
  auto token = parse_token(words.view());
  auto who = token ? node_identity::make(*token, 0, system_time()->unix_us() / 1000)
                   : caf::expected<node_identity>(token.error());
  if (!who)
    return complain({exit_code::fatal, problem_of(who.error()).message});
  std::cout << render_words(words.view()) << "address: " << who->address() << '\n';
  return 0;
}

/// What the program itself says of a tool, without a configuration.
std::optional<int> tool_help(const command_line& given) {
  if (given.operands.size() != 1 || given.operands.front() != "--help")
    return std::nullopt;
  switch (given.what) {
  case command::wallet_tool:
    return run_wallet_tool(given.operands, {}, std::cin, std::cout, std::cerr);
  case command::ledger_tool:
    return run_ledger_tool(given.operands, {}, std::cout, std::cerr);
  case command::checkpoint_tool:
    return run_checkpoint_tool(given.operands, std::cout, std::cerr);
  default:
    return std::nullopt;
  }
}

int dispatch(command_line given, const process_start& start) {
  if (const auto helped = tool_help(given))
    return *helped;
  switch (given.what) {
  case command::help:
    std::cout << help_text();
    return 0;
  case command::version:
    std::cout << "neuroshard " NEUROSHARD_VERSION << '\n';
    return 0;
  case command::new_wallet:
    return new_wallet();
  case command::run:
  case command::daemon:
    return start_node(std::move(given), start);
  default:
    break;
  }
  auto loaded = load_config(given);
  if (!loaded)
    return complain(loaded.error());
  const data_paths paths{loaded->data_dir};
  switch (given.what) {
  case command::print_config:
    std::cout << print_config(*loaded, read_machine_facts(loaded->data_dir));
    return 0;
  case command::stop:
    return static_cast<int>(stop_daemon(paths));
  case command::status:
    return static_cast<int>(report_status(paths));
  case command::logs:
    return static_cast<int>(print_logs(paths, static_cast<size_t>(given.log_lines)));
  case command::wallet_tool:
    return run_wallet_tool(given.operands, paths.root, std::cin, std::cout, std::cerr);
  case command::ledger_tool:
    if (given.operands.front() == "check-proof")
      return run_check_proof(std::span(given.operands).subspan(1), *loaded, paths, std::cout, std::cerr);
    return run_ledger_tool(given.operands, paths.root, std::cout, std::cerr);
  case command::checkpoint_tool:
    if (given.operands.size() == 1)
      given.operands.push_back(paths.checkpoints());
    return run_checkpoint_tool(given.operands, std::cout, std::cerr);
  default:
    return static_cast<int>(exit_code::bad_configuration);
  }
}

} // namespace
} // namespace neuroshard

int main(int argc, char** argv) {
  auto given = neuroshard::parse_command_line(std::vector<std::string>(argv + 1, argv + argc));
  if (!given)
    return neuroshard::complain(given.error());
  return neuroshard::dispatch(std::move(*given), neuroshard::process_start::of(argc, argv));
}
