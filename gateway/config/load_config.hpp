#pragma once

#include "gateway/config/command_line.hpp"
#include "gateway/config/node_config.hpp"
#include "gateway/config/schema.hpp"
#include "gateway/config/start_error.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// Where the value of a key comes from, lowest first.
enum class config_source : uint8_t {
  global_default,
  preset_default,
  file,
  config_json,
  environment,
  command_line
};
const char* to_string(config_source s) noexcept;

/// Reads an environment variable; nothing when unset. An empty one counts as unset.
using environment_reader = std::function<std::optional<std::string>(const std::string& name)>;
/// getenv.
environment_reader process_environment();

/// The access token of the wallet as it was given. Its form is checked by actors/identity.
struct given_token {
  std::string text;  ///< secret: never logged, never printed
  std::string where; ///< "--token", "NEUROSHARD_TOKEN", or the path of the file
};

/// The effective configuration and what the node should log about it.
struct loaded_config {
  node_config config;
  std::string data_dir;                        ///< absolute
  std::string config_file;                     ///< absolute, or empty
  std::optional<given_token> token;            ///< nothing: the data directory's wallet
  std::map<std::string, config_source> source; ///< of every key that is not at its global default
  std::vector<std::string>
      notes; ///< one line each, for the log at WARN: overrides by config.json, deprecated uses
};

/// Everything that load_config reads beside files, passed in.
struct load_environment {
  environment_reader variable = process_environment();
  std::optional<machine_facts> machine; ///< nothing: asked from the operating system
};

/// Flags over environment over config.json over the file over the preset's defaults over the global defaults
/// (network.md section 6). Any error of flags, environment or file is exit code 1 with one line naming
/// source, key, value and what is allowed. A damaged config.json or a value in it that this machine does not
/// allow is a note, not an error: the node wrote it, nobody else. Reads files; call it before threads start
/// or on one thread (SIGHUP).
start_result<loaded_config> load_config(const command_line& given, const load_environment& around = {});

/// The values of a TOML text. `name` stands for it in messages. Bounded: 1 MiB, 64 levels.
struct file_value {
  const key_spec* spec;
  config_value value;
  uint32_t line;
};
start_result<std::vector<file_value>> read_toml(std::string_view text, const std::string& name);

/// A relative path stands under `base`; "~/" is the home directory of `variable`.
std::string resolve_path(const std::string& path, const std::string& base,
                         const environment_reader& variable);

/// --print-config: TOML that --config reads back to the same values; passwords inside URLs masked, the token
/// only as a comment.
std::string print_config(const loaded_config& loaded, const machine_facts& machine);

/// config/node.toml: every key, commented out, with its default and range; active in it are the data paths.
std::string render_node_toml();

/// What a reload (SIGHUP) changes: keys that differ and may change while running, and keys that differ but
/// wait for a restart. `running` takes the new values of the first kind.
struct reload_outcome {
  std::vector<std::string> applied;
  std::vector<std::string> needs_restart;
};
reload_outcome apply_reload(node_config& running, const node_config& fresh);

} // namespace neuroshard
