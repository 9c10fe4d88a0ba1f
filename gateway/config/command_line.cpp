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

/// The offline tools and their verbs; each reads the rest of its arguments itself.
struct tool {
  std::string_view group, verbs;
  command what;
};

constexpr tool tools[] = {
    {"wallet", "new show sign verify", command::wallet_tool},
    {"ledger", "verify export check-proof", command::ledger_tool},
    {"checkpoint", "list verify", command::checkpoint_tool},
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

std::string with_commas(std::string_view words) {
  std::string list;
  for (const char ch : words)
    list += ch == ' ' ? std::string(", ") : std::string(1, ch);
  return list;
}

bool has_word(std::string_view words, std::string_view word) {
  return !word.empty() && word.find(' ') == std::string_view::npos &&
         (" " + std::string(words) + " ").find(" " + std::string(word) + " ") != std::string::npos;
}

start_error unknown_option(const std::string& word) {
  const std::string flag = word.substr(0, word.find('='));
  const std::string_view close = closest(flag, all_flags());
  return bad(fmt::format("{}: unknown option{}", shown(flag),
                         close.empty() ? std::string("; --help lists all")
                                       : fmt::format(" (did you mean {}?)", close)));
}

/// What is left from the first word that is no option: nothing, or an offline tool, its verb and its
/// arguments.
std::optional<start_error> take_tool(const std::vector<std::string>& rest, command_line& out) {
  if (rest.empty())
    return std::nullopt;
  const std::string& group = rest[0];
  if (group.size() > 1 && group.front() == '-')
    return unknown_option(group);
  const tool* found =
      std::find_if(std::begin(tools), std::end(tools), [&](const tool& t) { return t.group == group; });
  if (found == std::end(tools))
    return bad(
        fmt::format("{}: unknown subcommand; allowed are wallet, ledger, checkpoint, or none to run the node",
                    shown(group)));
  if (out.what != command::run)
    return bad(fmt::format("{}: cannot be combined with another action", group));
  if (rest.size() > 1 && (rest[1] == "--help" || rest[1] == "-h")) {
    out.what = found->what;
    out.operands = {"--help"};
    return std::nullopt;
  }
  if (rest.size() < 2 || !has_word(found->verbs, rest[1]))
    return bad(fmt::format("{}{}: allowed are {}", group,
                           rest.size() < 2 ? std::string() : " " + shown(rest[1]),
                           with_commas(found->verbs)));
  out.what = found->what;
  for (size_t i = 1; i < rest.size(); ++i) {
    // After "--" everything is the tool's.
    if (rest[i] == "--") {
      out.operands.insert(out.operands.end(), rest.begin() + static_cast<std::ptrdiff_t>(i), rest.end());
      break;
    }
    const bool joined = rest[i].starts_with("--data-dir=");
    if (!joined && rest[i] != "--data-dir") {
      out.operands.push_back(rest[i]);
      continue;
    }
    if (!joined && i + 1 == rest.size())
      return bad("--data-dir: needs a path");
    out.data_dir = joined ? rest[i].substr(11) : rest[++i];
    if (out.data_dir.empty())
      return bad("--data-dir: needs a path");
  }
  return std::nullopt;
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
  app.prefix_command();
  app.allow_windows_style_options(false);
  const declared d = declare(app);
  std::vector<std::string> rest;
  try {
    std::vector<std::string> words;
    for (const std::string& word : arguments) {
      // CLI11 takes `--flag=` for a flag without value; here it is one with an empty value.
      const bool empty_value = word.starts_with("--") && word.find('=') == word.size() - 1;
      words.push_back(empty_value ? word.substr(0, word.size() - 1) : word);
      if (empty_value)
        words.emplace_back();
    }
    std::vector<std::string> reversed(words.rbegin(), words.rend());
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
  if (auto failed = take_tool(rest, out))
    return *failed;
  return out;
}

} // namespace neuroshard
