#include "gateway/config/load_config.hpp"

#include "gateway/config/adopted_architecture.hpp"
#include "gateway/config/data_dir.hpp"

#include <fmt/core.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace neuroshard {

namespace {

constexpr size_t config_bytes_max = size_t{1} << 20;
constexpr size_t token_bytes_max = 4096;

/// One value given for a key, by one source.
struct candidate {
  const key_spec* spec;
  config_value value;
  config_source source;
  std::string label; ///< how a message names it: "--port = 7", "node.toml:3: port = 7"
};

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

std::string current_directory() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::current_path(error);
  return error ? std::string("/") : path.string();
}

bool depends_on_keys(const key_spec& spec) {
  switch (spec.limit) {
  case limit_rule::context:
  case limit_rule::batch_size:
  case limit_rule::decay_steps:
  case limit_rule::vocab_capacity:
  case limit_rule::num_layers:
    return true;
  default:
    return false;
  }
}

/// A value no source gave must not clash with one that was given: a default follows it down.
void lower_default(const key_spec& spec, node_config& c) {
  auto value = std::get<int64_t>(get_value(spec, c));
  int64_t limit = value;
  switch (spec.limit) {
  case limit_rule::context:
    limit = c.model.max_seq_len;
    break;
  case limit_rule::batch_size:
    limit = c.training.batch_size;
    break;
  case limit_rule::decay_steps:
    limit = c.training.decay_steps;
    break;
  case limit_rule::vocab_capacity:
    value = limit = c.model.vocab_capacity; // Its default is the limit.
    break;
  default:
    break;
  }
  set_value(spec, c, std::min(value, limit));
}

class loader {
public:
  loader(const command_line& given, const load_environment& around)
      : given_(given), variable_(around.variable) {
    machine_ = around.machine.value_or(machine_facts{});
    ask_machine_ = !around.machine.has_value();
  }

  start_result<loaded_config> run() {
    if (auto failed = find_places())
      return *failed;
    if (auto failed = read_file())
      return *failed;
    read_config_json_settings();
    if (auto failed = read_environment())
      return *failed;
    if (auto failed = read_command_line())
      return *failed;
    if (auto failed = merge())
      return *failed;
    if (auto failed = find_token())
      return *failed;
    return std::move(out_);
  }

private:
  /// Data directory and configuration file: they say where everything else is, so they are not keys.
  std::optional<start_error> find_places() {
    const std::string here = current_directory();
    std::string dir = given_.data_dir;
    if (dir.empty())
      dir = from_environment("NEUROSHARD_DATA_DIR").value_or("~/.neuroshard");
    out_.data_dir = resolve_path(dir, here, variable_);
    if (out_.data_dir.size() > 3000 || out_.data_dir.find('\n') != std::string::npos)
      return bad("--data-dir: the path is too long or has a line break in it");
    std::string file = given_.config_file;
    if (file.empty())
      file = from_environment("NEUROSHARD_CONFIG").value_or("");
    if (!file.empty())
      out_.config_file = resolve_path(file, here, variable_);
    if (ask_machine_)
      machine_ = read_machine_facts(out_.data_dir);
    return std::nullopt;
  }

  std::optional<std::string> from_environment(const std::string& name) const {
    auto text = variable_(name);
    if (text && text->empty())
      return std::nullopt;
    return text;
  }

  std::optional<start_error> read_file() {
    if (out_.config_file.empty())
      return std::nullopt;
    auto text = read_file_bounded(out_.config_file, config_bytes_max);
    if (!text)
      return bad("--config: " + text.error().line);
    auto values = read_toml(*text, out_.config_file);
    if (!values)
      return values.error();
    for (file_value& v : *values) {
      make_absolute(*v.spec, v.value, out_.data_dir);
      std::string label =
          fmt::format("{}:{}: {} = {}", out_.config_file, v.line, v.spec->key, toml_text(v.value, true));
      candidates_.push_back({v.spec, std::move(v.value), config_source::file, std::move(label)});
    }
    return std::nullopt;
  }

  void read_config_json_settings() {
    const std::string path = data_paths{out_.data_dir}.config_json();
    auto read = read_config_json(path);
    if (!read) {
      out_.notes.push_back(read.error().line + "; the settings in it are ignored");
      return;
    }
    if (!read->has_value())
      return;
    for (auto& [key, value] : (*read)->settings) {
      const key_spec* spec = find_key(key);
      std::string label = fmt::format("{}: {} = {}", path, shown(key), shown(toml_text(value, true)));
      // Only what PATCH may change can be in there; anything else was put there by somebody else.
      if (spec == nullptr || spec->patch.empty()) {
        out_.notes.push_back(label + " is ignored: it cannot be changed through the API");
        continue;
      }
      candidates_.push_back({spec, std::move(value), config_source::config_json, std::move(label)});
    }
  }

  std::optional<start_error> read_environment() {
    for (const key_spec& spec : schema()) {
      if (spec.environment.empty())
        continue;
      const auto text = from_environment(std::string(spec.environment));
      if (!text)
        continue;
      if (auto failed = add_text(spec, *text, config_source::environment, std::string(spec.environment)))
        return failed;
    }
    return std::nullopt;
  }

  std::optional<start_error> read_command_line() {
    for (const assignment& a : given_.assignments) {
      const key_spec* spec = find_key(a.key);
      if (spec == nullptr) {
        std::vector<std::string_view> known;
        for (const key_spec& row : schema())
          known.push_back(row.key);
        const std::string_view close = closest(a.key, known);
        return bad(fmt::format("{}: unknown key {}{}", a.written_as, shown(a.key),
                               close.empty() ? std::string(" (config/node.toml lists all keys)")
                                             : fmt::format(" (did you mean {}?)", close)));
      }
      const std::string name = a.written_as == "--set" ? fmt::format("--set {}", a.key) : a.written_as;
      if (auto failed = add_text(*spec, a.text, config_source::command_line, name))
        return failed;
    }
    return std::nullopt;
  }

  std::optional<start_error> add_text(const key_spec& spec, const std::string& text, config_source source,
                                      const std::string& name) {
    auto value = parse_text(spec, text);
    const std::string key =
        name.find(spec.key) == std::string::npos ? fmt::format(" ({})", spec.key) : std::string();
    std::string label = fmt::format("{} = {}{}", name, shown(text), key);
    if (!value)
      return bad(fmt::format("{}: must be {}", label, allowed_text(spec)));
    make_absolute(spec, *value, current_directory());
    candidates_.push_back({&spec, std::move(*value), source, std::move(label)});
    return std::nullopt;
  }

  /// Absolute paths, so that nobody later depends on the working directory.
  void make_absolute(const key_spec& spec, config_value& value, const std::string& base) const {
    auto* text = std::get_if<std::string>(&value);
    const bool path = spec.rule == text_rule::path || spec.rule == text_rule::path_or_url;
    if (!path || text == nullptr || text->empty())
      return;
    if (spec.rule == text_rule::path_or_url &&
        (text->starts_with("http://") || text->starts_with("https://")))
      return;
    *text = resolve_path(*text, base, variable_);
  }

  std::optional<start_error> merge() {
    node_config& c = out_.config;
    c = default_config("auto");
    // The preset first: its defaults stand below everything that was given.
    std::optional<std::string> preset;
    for (candidate& one : candidates_) {
      if (one.spec->key != "model.preset")
        continue;
      if (auto allowed = check_value(*one.spec, one.value, c, machine_))
        return bad(fmt::format("{}: must be {}", one.label, *allowed));
      preset = std::get<std::string>(one.value);
    }
    c = default_config(preset.value_or("auto"));
    if (c.model.preset == "auto") {
      auto adopted = read_adopted_architecture(out_.data_dir);
      if (!adopted)
        return adopted.error();
      if (*adopted)
        c = default_config_of(**adopted);
    }
    for (const auto& [key, value] : preset_defaults(c.model.preset))
      out_.source[std::string(key)] = config_source::preset_default;
    for (const key_spec& spec : schema())
      if (spec.rule == text_rule::path && !spec.fallback.empty()) {
        config_value value = get_value(spec, c);
        make_absolute(spec, value, out_.data_dir);
        set_value(spec, c, value);
      }
    // Keys whose range another key sets come second.
    for (const bool dependent : {false, true}) {
      for (const key_spec& spec : schema())
        if (dependent && depends_on_keys(spec) && !given_by_anyone(spec))
          lower_default(spec, c);
      for (candidate& one : candidates_)
        if (depends_on_keys(*one.spec) == dependent)
          if (auto failed = take(one))
            return failed;
    }
    if (auto wrong = cross_check(c))
      return bad(*wrong);
    note_overrides();
    return std::nullopt;
  }

  bool given_by_anyone(const key_spec& spec) const {
    return std::any_of(candidates_.begin(), candidates_.end(),
                       [&](const candidate& one) { return one.spec == &spec; });
  }

  std::optional<start_error> take(candidate& one) {
    node_config& c = out_.config;
    std::optional<std::string> problem;
    if (one.spec->custom_only && c.model.preset != "custom")
      problem = "is allowed only with model.preset = custom (it is " + c.model.preset + ")";
    else if (auto allowed = check_value(*one.spec, one.value, c, machine_))
      problem = "must be " + *allowed;
    if (problem && one.source == config_source::config_json) {
      out_.notes.push_back(fmt::format("{} is ignored: it {}", one.label, *problem));
      return std::nullopt;
    }
    // The API may lower the batch size under what the file says of microbatches; that must not stop the next
    // start.
    if (problem && one.spec->limit == limit_rule::batch_size &&
        out_.source["training.batch_size"] == config_source::config_json) {
      out_.notes.push_back(fmt::format("{} is lowered to training.batch_size of config.json", one.label));
      one.value = c.training.batch_size;
      problem.reset();
    }
    if (problem)
      return bad(fmt::format("{}: {}", one.label, *problem));
    set_value(*one.spec, c, one.value);
    out_.source[std::string(one.spec->key)] = one.source;
    return std::nullopt;
  }

  void note_overrides() {
    for (const auto& [key, source] : out_.source) {
      if (source != config_source::config_json)
        continue;
      const key_spec& spec = *find_key(key);
      out_.notes.push_back(fmt::format("{} = {}: set through the API (config.json), over file and defaults",
                                       key, toml_text(get_value(spec, out_.config), true)));
    }
  }

  /// --token over NEUROSHARD_TOKEN over the file; a flag --token-file over the environment's token.
  std::optional<start_error> find_token() {
    if (given_.token_given) {
      out_.notes.emplace_back(
          "--token is visible to every user of this machine: use NEUROSHARD_TOKEN or --token-file");
      return accept_token(given_.token, "--token");
    }
    const auto file_source = out_.source.find("token_file");
    const bool file_by_flag =
        file_source != out_.source.end() && file_source->second == config_source::command_line;
    if (const auto token = from_environment("NEUROSHARD_TOKEN"); token && !file_by_flag)
      return accept_token(*token, "NEUROSHARD_TOKEN");
    if (!out_.config.token_file.empty())
      return read_token_file(out_.config.token_file);
    return std::nullopt;
  }

  std::optional<start_error> accept_token(std::string_view text, const std::string& where) {
    while (!text.empty() && std::string_view(" \t\r\n").find(text.back()) != std::string_view::npos)
      text.remove_suffix(1);
    while (!text.empty() && std::string_view(" \t\r\n").find(text.front()) != std::string_view::npos)
      text.remove_prefix(1);
    // The value is a secret: the message does not show it.
    if (text.empty() || text.size() > token_bytes_max)
      return bad(where + ": the token must be 64 hex digits, 12 words, or one word of 8 to 128 characters");
    out_.token = given_token{std::string(text), where};
    return std::nullopt;
  }

  std::optional<start_error> read_token_file(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
      return bad(
          fmt::format("token_file = {}: cannot be read: {}", path, std::generic_category().message(errno)));
    if (!S_ISREG(info.st_mode))
      return bad(fmt::format("token_file = {}: is not a regular file", path));
    if ((info.st_mode & 077) != 0)
      return bad(fmt::format("token_file = {}: has mode {:04o}, must be 0600 (chmod 600)", path,
                             static_cast<unsigned>(info.st_mode & 07777)));
    auto text = read_file_bounded(path, token_bytes_max);
    if (!text)
      return bad("token_file: " + text.error().line);
    return accept_token(*text, path);
  }

  const command_line& given_;
  environment_reader variable_;
  machine_facts machine_;
  bool ask_machine_ = true;
  std::vector<candidate> candidates_;
  loaded_config out_;
};

} // namespace

const char* to_string(config_source s) noexcept {
  switch (s) {
  case config_source::global_default:
    return "default";
  case config_source::preset_default:
    return "preset";
  case config_source::file:
    return "file";
  case config_source::config_json:
    return "config.json";
  case config_source::environment:
    return "environment";
  case config_source::command_line:
    return "command line";
  }
  return "default";
}

environment_reader process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* text = std::getenv(name.c_str());
    if (text == nullptr)
      return std::nullopt;
    return std::string(text);
  };
}

std::string resolve_path(const std::string& path, const std::string& base,
                         const environment_reader& variable) {
  std::string out = path;
  if (out == "~" || out.starts_with("~/")) {
    std::string home = variable("HOME").value_or("");
    if (home.empty()) {
      // A service may have no HOME.
      const passwd* user = getpwuid(getuid());
      home = user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "/";
    }
    out = home + out.substr(1);
  } else if (!out.starts_with('/')) {
    out = base + "/" + out;
  }
  out = std::filesystem::path(out).lexically_normal().string();
  while (out.size() > 1 && out.back() == '/')
    out.pop_back();
  return out;
}

start_result<loaded_config> load_config(const command_line& given, const load_environment& around) {
  return loader(given, around).run();
}

reload_outcome apply_reload(node_config& running, const node_config& fresh) {
  reload_outcome outcome;
  for (const key_spec& spec : schema()) {
    const config_value now = get_value(spec, running);
    config_value wanted = get_value(spec, fresh);
    if (now == wanted)
      continue;
    if (spec.live) {
      set_value(spec, running, wanted);
      outcome.applied.emplace_back(spec.key);
    } else {
      outcome.needs_restart.emplace_back(spec.key);
    }
  }
  return outcome;
}

} // namespace neuroshard
