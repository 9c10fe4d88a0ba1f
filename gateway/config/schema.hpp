#pragma once

#include "gateway/config/node_config.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace neuroshard {

/// The one table of keys. Command line, environment, TOML, config.json, PATCH /config, --print-config, --help
/// and config/node.toml all read it, so that a key has one name, one range, one default and one message.

/// A value of a key, whatever its source. The alternative fixes the kind of the key.
using config_value = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<std::string>,
                                  std::vector<access_token_rule>, std::vector<tier_config>>;

/// Where a key's value lives in node_config.
using config_field =
    std::variant<bool*, int64_t*, uint64_t*, double*, std::string*, std::vector<std::string>*,
                 std::vector<access_token_rule>*, std::vector<tier_config>*>;

/// What text is checked to be, beside its length. Also for each element of a list.
enum class text_rule : uint8_t {
  any,          ///< printable, at most 4096 bytes
  one_of,       ///< a word of `choices`
  path,         ///< made absolute: see resolve_path
  path_or_url,  ///< likewise, or http:// and https://
  ip_address,   ///< IPv4 or IPv6
  cidr,         ///< an address, or address/prefix
  host_port,    ///< name:port, address:port, [IPv6]:port
  origin,       ///< scheme://host or scheme://host:port
  network_name, ///< 1-32 of [a-z0-9-]
  device_name,  ///< auto, cuda, cuda:N, cpu
  amount,       ///< decimal text of NEURO, 0 to 10^12
};

/// The upper limit of a number that depends on the machine or on another key.
enum class limit_rule : uint8_t {
  fixed,            ///< `max` alone
  hardware_threads, ///< of the machine
  physical_memory,  ///< in MB
  free_disk,        ///< in MB
  context,          ///< model.max_seq_len
  batch_size,       ///< training.batch_size
  decay_steps,      ///< training.decay_steps
  vocab_capacity,   ///< model.vocab_capacity
  num_layers,       ///< model.num_layers
};

/// One row.
struct key_spec {
  std::string_view key;                    ///< dotted, as in TOML
  config_field (*field)(node_config&);     ///< where it lives
  std::string_view fallback;               ///< the global default as TOML text; empty = none
  std::string_view help;                   ///< one sentence, no dot at the end
  double min = 0, max = 0;                 ///< numbers; ints are exact below 2^53
  bool open_min = false, open_max = false; ///< the limit itself is not allowed
  limit_rule limit = limit_rule::fixed;    ///< the tighter of it and `max` counts
  text_rule rule = text_rule::any;         ///< texts
  std::string_view choices = {};           ///< for one_of, separated by blanks
  std::string_view automatic = {};         ///< what not giving it means, where `fallback` is empty
  std::string_view flag = {};              ///< "--port", or empty
  std::string_view short_flag = {};        ///< "-p", or empty
  bool flag_value = true;                  ///< what a flag without value sets a boolean to
  std::string_view environment = {};       ///< variable, or empty
  bool live = false;                       ///< changeable while running
  std::string_view patch = {};             ///< its name in PATCH /config, or empty
  bool patch_restart = false;              ///< a PATCH takes effect at the next start
  bool network_parameter = false;          ///< fixed by the layer map in a cohort
  bool custom_only = false;                ///< only with model.preset = "custom"
};

/// All rows, in the order of network.md section 9.
std::span<const key_spec> schema();
/// The row of a dotted key, or null.
const key_spec* find_key(std::string_view key);
/// The row that PATCH /config names so, or null.
const key_spec* find_patch_key(std::string_view name);
/// A known key or flag close to a mistyped one, or empty.
std::string_view closest(std::string_view typed, std::span<const std::string_view> known);

/// What is allowed, as words: "an integer from 1 to 64535", "one of bf16, f32". `c` and `machine` fill in
/// dependent limits.
std::string allowed_text(const key_spec& spec, const node_config& c, const machine_facts& machine);
/// The same without a machine, for documents: "an integer from 1 to hardware threads".
std::string allowed_text(const key_spec& spec);

/// Checks the kind-specific rules and the row's own range, and normalises (case of log levels and digests).
/// Dependent limits use `c` as it stands. Nothing on success, else what is allowed.
std::optional<std::string> check_value(const key_spec& spec, config_value& value, const node_config& c,
                                       const machine_facts& machine);

/// Reads a value from flag, environment or --set text. Lists are comma-separated, or a TOML array; tables are
/// TOML. Nothing when the text is not of the key's kind.
std::optional<config_value> parse_text(const key_spec& spec, std::string_view text);
/// The kind's empty value (false, 0, "", []).
config_value empty_value(const key_spec& spec);

/// Reads and sets a field. Precondition of `set_value`: the alternative is the key's.
config_value get_value(const key_spec& spec, const node_config& c);
void set_value(const key_spec& spec, node_config& c, const config_value& value);

/// A value as TOML text, exact when read again. `mask` hides a password inside a URL.
std::string toml_text(const config_value& value, bool mask = false);

/// Presets by name: shape and training defaults stand above the global defaults. `auto` counts as pico, which
/// is what a node alone runs. Keys of the result are dotted; nothing for an unknown name. `custom` starts
/// from pico's shape.
std::vector<std::pair<std::string_view, config_value>> preset_defaults(std::string_view preset);

/// The global and the preset's defaults.
node_config default_config(std::string_view preset = "auto");

/// Rules between keys: topk only with mean, TLS both or neither, sums of shares and so on. One line naming
/// key, value and what is allowed, or nothing.
std::optional<std::string> cross_check(const node_config& c);

} // namespace neuroshard
