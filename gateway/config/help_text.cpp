#include "gateway/config/command_line.hpp"

#include "gateway/config/schema.hpp"

#include <fmt/core.h>

namespace neuroshard {

namespace {

constexpr size_t columns = 96;
constexpr size_t indent = 28;

/// Flag on the left, words on the right, wrapped.
std::string entry(const std::string& left, const std::string& words) {
  std::string out = "  " + left;
  size_t column = out.size();
  if (column + 2 > indent) {
    out += "\n" + std::string(indent, ' ');
  } else {
    out += std::string(indent - column, ' ');
  }
  column = indent;
  size_t at = 0;
  bool first = true;
  while (at < words.size()) {
    const size_t blank = std::min(words.find(' ', at), words.size());
    const size_t length = blank - at;
    if (!first && column + 1 + length > columns) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
      first = true;
    }
    if (!first) {
      out += ' ';
      ++column;
    }
    out += words.substr(at, length);
    column += length;
    first = false;
    at = blank + 1;
  }
  return out + "\n";
}

std::string placeholder(const key_spec& row) {
  if (std::holds_alternative<bool>(empty_value(row)))
    return {};
  if (row.rule == text_rule::path || row.rule == text_rule::path_or_url)
    return " FILE";
  if (row.key == "seed_peers")
    return " HOST:PORT,...";
  switch (row.rule) {
  case text_rule::ip_address:
    return " ADDRESS";
  case text_rule::host_port:
    return " HOST:PORT";
  case text_rule::network_name:
    return " NAME";
  case text_rule::one_of:
    return " LEVEL";
  case text_rule::device_name:
    return " DEVICE";
  default:
    break;
  }
  return row.key == "memory_mb" || row.key == "data.max_storage_mb" ? " MB" : " N";
}

std::string from_schema(std::string_view key) {
  const key_spec* row = find_key(key);
  if (row == nullptr || row->flag.empty())
    return {};
  const bool boolean = std::holds_alternative<bool>(empty_value(*row));
  std::string words(row->help);
  if (boolean && !row->flag_value)
    words = fmt::format("Turn off: {}", row->help);
  if (!boolean)
    words += fmt::format(": {}", allowed_text(*row));
  if (!boolean && !(row->fallback.empty() && row->automatic.empty()) && row->fallback != "[]")
    words += fmt::format(" [{}]", row->fallback.empty() ? row->automatic : row->fallback);
  if (!row->environment.empty())
    words += fmt::format(" ({})", row->environment);
  const std::string name =
      row->short_flag.empty() ? std::string(row->flag) : fmt::format("{}, {}", row->short_flag, row->flag);
  return entry(name + placeholder(*row), words);
}

} // namespace

std::string help_text() {
  std::string out = R"(neuroshard - a node that trains NeuroLLM with others and serves it

Usage: neuroshard [options]
       neuroshard wallet new | show | sign | verify          the wallet of a data directory
       neuroshard ledger verify | export | check-proof       its book
       neuroshard checkpoint list | verify                   its checkpoints

Without a subcommand the node runs until SIGINT or SIGTERM.

What to do
)";
  out += entry("-d, --daemon", "Run in the background");
  out += entry("--stop", "Stop the daemon of the data directory and wait for its end");
  out += entry("--status", "Say whether it runs: exit code 0 if so, else 6");
  out += entry("--logs", "Print the last lines of its log");
  out += entry("--log-lines N", "How many: an integer from 1 to 1000000 [50]");
  out += entry("--new-wallet", "Print 12 new words and their address, store nothing");
  out += entry("--print-config", "Print the effective configuration as TOML, secrets masked");
  out += entry("--version", "Print the version");
  out += entry("-h, --help", "Print this text");
  out += "\nIdentity and places\n";
  out +=
      entry("-t, --token TOKEN",
            "Access token: 64 hex digits, 12 words, or one word; visible to other users of the machine, so "
            "better in NEUROSHARD_TOKEN or a file [the data directory's wallet; made on the first start]");
  out += from_schema("token_file");
  out +=
      entry("--data-dir DIRECTORY", "Where the node keeps everything [~/.neuroshard] (NEUROSHARD_DATA_DIR)");
  out += entry("--config FILE", "Configuration, TOML; config/node.toml shows every key (NEUROSHARD_CONFIG)");
  out += entry("--set KEY=VALUE", "Set any key of the configuration; repeatable");
  const std::pair<std::string_view, std::vector<std::string_view>> groups[] = {
      {"Network",
       {"port", "http_host", "grpc_host", "network", "tracker", "seed_peers", "announce_ip", "announce_port",
        "dht.enabled", "tracker_mode", "instance"}},
      {"Resources", {"device", "memory_mb", "cpu_threads", "data.max_storage_mb"}},
      {"Work", {"training.enabled", "training.diloco_steps", "observer", "log_level"}},
  };
  for (const auto& [title, keys] : groups) {
    out += fmt::format("\n{}\n", title);
    for (const std::string_view key : keys)
      out += from_schema(key);
  }
  out += entry("--no-browser, --headless", "Accepted; the progress display is left out");
  out += R"(
Flags win over environment variables, these over config.json (what was changed through the API),
that over the file of --config, that over the defaults. --flag value and --flag=value are the same;
of a repeated flag the last one counts. Lists are separated by commas.

Exit codes: 0 clean end, 1 bad arguments, configuration or token, 2 port in use, 3 data directory
locked, unreadable or ledger corrupt, 4 device unavailable, 5 fatal error, 6 no daemon runs.
)";
  return out;
}

} // namespace neuroshard
