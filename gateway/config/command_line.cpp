#include "gateway/config/command_line.hpp"

#include "gateway/config/schema.hpp"

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <map>

namespace neuroshard {

namespace {

start_error bad(std::string line) {
  return {exit_code::bad_configuration, std::move(line)};
}

std::string shown(std::string_view text) {
  std::string out(text.substr(0, 80));
  for (char& ch : out)
    if (static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f)
      ch = '?';
  return text.size() > 80 ? out + "..." : out;
}

struct tool {
  std::string_view group, verb;
  command what;
  size_t operands_min, operands_max;
};

constexpr tool tools[] = {
    {"wallet", "new", command::wallet_new, 0, 0},
    {"wallet", "show", command::wallet_show, 0, 0},
    {"wallet", "sign", command::wallet_sign, 1, 1},
    {"wallet", "verify", command::wallet_verify, 3, 3},
    {"ledger", "verify", command::ledger_verify, 0, 0},
    {"ledger", "export", command::ledger_export, 0, 1},
    {"ledger", "check-proof", command::ledger_check_proof, 1, 1},
    {"checkpoint", "list", command::checkpoint_list, 0, 0},
    {"checkpoint", "verify", command::checkpoint_verify, 0, 1},
};

struct action {
  std::string_view names;
  command what;
};

/// Flags that say what to do; the last one wins.
constexpr action actions[] = {
    {"-d,--daemon", command::daemon},
    {"--stop", command::stop},
    {"--status", command::status},
    {"--logs", command::logs},
    {"--print-config", command::print_config},
    {"--new-wallet", command::new_wallet},
    {"--version", command::version},
    {"-h,--help", command::help},
};

std::vector<std::string_view> all_flags() {
  std::vector<std::string_view> known = {"--token",      "--data-dir",   "--config",   "--set",
                                         "--log-lines",  "--no-browser", "--headless", "--daemon",
                                         "--stop",       "--status",     "--logs",     "--print-config",
                                         "--new-wallet", "--version",    "--help"};
  for (const key_spec& row : schema())
    if (!row.flag.empty())
      known.push_back(row.flag);
  return known;
}

std::string join_verbs(std::string_view group) {
  std::string list;
  for (const tool& t : tools)
    if (t.group == group)
      list += (list.empty() ? "" : ", ") + std::string(t.verb);
  return list;
}

/// What is left after the flags: nothing, or an offline tool and its operands.
std::optional<start_error> take_operands(const std::vector<std::string>& rest, command_line& out) {
  for (const std::string& word : rest) {
    if (word.size() < 2 || word.front() != '-' || word == "--")
      continue;
    const std::string flag = word.substr(0, word.find('='));
    const std::string_view close = closest(flag, all_flags());
    return bad(fmt::format("{}: unknown option{}", shown(flag),
                           close.empty() ? std::string("; --help lists all")
                                         : fmt::format(" (did you mean {}?)", close)));
  }
  std::vector<std::string> words = rest;
  std::erase(words, std::string("--"));
  if (words.empty())
    return std::nullopt;
  const bool group_known =
      std::any_of(std::begin(tools), std::end(tools), [&](const tool& t) { return t.group == words[0]; });
  if (!group_known)
    return bad(
        fmt::format("{}: unknown subcommand; allowed are wallet, ledger, checkpoint, or none to run the node",
                    shown(words[0])));
  if (words.size() < 2)
    return bad(fmt::format("{}: needs one of {}", words[0], join_verbs(words[0])));
  for (const tool& t : tools) {
    if (t.group != words[0] || t.verb != words[1])
      continue;
    if (out.what != command::run && out.what != command::help)
      return bad(fmt::format("{} {}: cannot be combined with another action", words[0], words[1]));
    const size_t operands = words.size() - 2;
    if (operands < t.operands_min || operands > t.operands_max)
      return bad(fmt::format("{} {}: takes {} operand{}, {} given; --help says which", words[0], words[1],
                             t.operands_min == t.operands_max
                                 ? fmt::format("{}", t.operands_min)
                                 : fmt::format("{} or {}", t.operands_min, t.operands_max),
                             t.operands_max == 1 ? "" : "s", operands));
    if (out.what == command::run)
      out.what = t.what;
    out.operands.assign(words.begin() + 2, words.end());
    return std::nullopt;
  }
  return bad(fmt::format("{} {}: unknown; allowed are {}", words[0], shown(words[1]), join_verbs(words[0])));
}

/// Declares every flag to CLI11 and remembers what each stands for.
struct declared {
  std::map<const CLI::Option*, const key_spec*> keys;
  std::map<const CLI::Option*, command> what;
  std::map<const CLI::Option*, std::string> others;
};

std::string flag_names(const key_spec& row) {
  return row.short_flag.empty() ? std::string(row.flag) : fmt::format("{},{}", row.short_flag, row.flag);
}

declared declare(CLI::App& app) {
  declared d;
  const auto keep = [](const CLI::results_t&) { return true; };
  const auto option = [&](const std::string& names) {
    return app.add_option(names, keep)
        ->type_size(1)
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  const auto flag = [&](const std::string& names) {
    return app.add_flag(names)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  for (const key_spec& row : schema()) {
    if (row.flag.empty())
      continue;
    const bool boolean = std::holds_alternative<bool>(empty_value(row));
    d.keys[boolean ? flag(flag_names(row)) : option(flag_names(row))] = &row;
  }
  for (const action& a : actions)
    d.what[flag(std::string(a.names))] = a.what;
  d.others[option("-t,--token")] = "--token";
  for (const char* name : {"--data-dir", "--config", "--set", "--log-lines"})
    d.others[option(name)] = name;
  for (const char* name : {"--no-browser", "--headless"})
    d.others[flag(name)] = name;
  return d;
}

std::optional<start_error> take_other(const std::string& name, const std::string& value, command_line& out) {
  if (name == "--token") {
    out.token = value;
    out.token_given = true;
  } else if (name == "--data-dir" || name == "--config") {
    if (value.empty())
      return bad(name + ": needs a path");
    (name == "--config" ? out.config_file : out.data_dir) = value;
  } else if (name == "--set") {
    const size_t equals = value.find('=');
    if (equals == std::string::npos || equals == 0)
      return bad(fmt::format("--set {}: must be key=value", shown(value)));
    out.assignments.push_back({value.substr(0, equals), value.substr(equals + 1), "--set"});
  } else if (name == "--log-lines") {
    const char* end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, out.log_lines);
    if (error != std::errc{} || stop != end || out.log_lines < 1 || out.log_lines > 1'000'000)
      return bad(fmt::format("--log-lines = {}: must be an integer from 1 to 1000000", shown(value)));
  } else {
    out.quiet = true;
  }
  return std::nullopt;
}

std::optional<start_error> take_flag(const key_spec& row, const std::string& value, bool boolean,
                                     command_line& out) {
  if (!boolean) {
    out.assignments.push_back({std::string(row.key), value, std::string(row.flag)});
    return std::nullopt;
  }
  // `--observer` and `--observer=false`; a --no-x flag turns its key off.
  const auto given = parse_text(row, value);
  if (!given)
    return bad(fmt::format("{} = {}: must be true or false", row.flag, shown(value)));
  const bool on = std::get<bool>(*given) == row.flag_value;
  out.assignments.push_back({std::string(row.key), on ? "true" : "false", std::string(row.flag)});
  return std::nullopt;
}

/// CLI11's own sentences, in our form: one line that names the flag.
start_error translate(const CLI::ParseError& e, const std::vector<std::string>& arguments) {
  std::string line = e.what();
  std::replace(line.begin(), line.end(), '\n', ' ');
  // The usual case: the value is missing.
  if (!arguments.empty() && (e.get_name() == "ArgumentMismatch" || e.get_name() == "ParseError"))
    line = fmt::format("{}: needs a value", shown(arguments.back().substr(0, arguments.back().find('='))));
  return bad(shown(line));
}

} // namespace

start_result<command_line> parse_command_line(const std::vector<std::string>& arguments) {
  command_line out;
  CLI::App app{"neuroshard"};
  app.set_help_flag();
  app.allow_extras();
  app.allow_windows_style_options(false);
  const declared d = declare(app);
  std::vector<std::string> rest;
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(std::move(reversed));
    rest = app.remaining();
  } catch (const CLI::ParseError& e) {
    return translate(e, arguments);
  } catch (const std::exception& e) {
    return bad("the command line cannot be read");
  }
  // In the order given, so that of two spellings of one key the last one wins.
  std::map<const CLI::Option*, size_t> used;
  for (const CLI::Option* option : app.parse_order()) {
    const auto& results = option->results();
    const size_t at = used[option]++;
    const std::string value = at < results.size() ? results[at] : std::string();
    std::optional<start_error> failed;
    if (const auto key = d.keys.find(option); key != d.keys.end())
      failed = take_flag(*key->second, value, std::holds_alternative<bool>(empty_value(*key->second)), out);
    else if (const auto what = d.what.find(option); what != d.what.end())
      out.what = what->second;
    else if (const auto other = d.others.find(option); other != d.others.end())
      failed = take_other(other->second, value, out);
    if (failed)
      return *failed;
  }
  if (auto failed = take_operands(rest, out))
    return *failed;
  return out;
}

} // namespace neuroshard
