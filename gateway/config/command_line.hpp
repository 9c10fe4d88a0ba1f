#pragma once

#include "gateway/config/start_error.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard {

/// What the program is asked to do.
enum class command : uint8_t {
  run,
  daemon,       ///< run in the background
  stop,         ///< end the daemon
  status,       ///< say whether one runs
  logs,         ///< print the last lines of its log
  print_config, ///< effective configuration as TOML
  new_wallet,   ///< print words and address, store nothing
  version,
  help,
  wallet_tool,     ///< `operands` go to run_wallet_tool
  ledger_tool,     ///< to run_ledger_tool
  checkpoint_tool, ///< to run_checkpoint_tool
};

/// One key=value from the command line: the dotted key, its text, and how it was written, for messages.
struct assignment {
  std::string key;
  std::string text;
  std::string written_as; ///< "--port", "--set"
};

/// The parsed command line. Values are not yet read: load_config does that, with the same messages as for a
/// file.
struct command_line {
  command what = command::run;
  std::vector<std::string> operands; ///< of an offline tool, its verb first; --data-dir is taken out of them
  std::vector<assignment> assignments; ///< in the order given; the last of a key counts
  std::string token;                   ///< secret; empty = not given
  bool token_given = false;
  std::string data_dir;    ///< empty = not given
  std::string config_file; ///< empty = not given
  int64_t log_lines = 50;
  bool quiet = false; ///< --headless or --no-browser
};

/// Tokenises with CLI11 and reads nothing else. `arguments` without the program's name. An unknown flag, a
/// missing value, an unknown subcommand or operand gives exit code 1 and one line.
start_result<command_line> parse_command_line(const std::vector<std::string>& arguments);

/// The text of --help, made from the schema, at most 100 columns.
std::string help_text();

} // namespace neuroshard
