#include "gateway/config/load_config.hpp"

#include <fmt/core.h>

#include <limits>

namespace neuroshard {

namespace {

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char ch : text) {
    if (ch == '"' || ch == '\\')
      out.push_back('\\');
    if (static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(ch)));
    else
      out.push_back(ch);
  }
  return out + '"';
}

/// scheme://user:password@host becomes scheme://user:***@host.
std::string masked_url(const std::string& text) {
  const size_t scheme = text.find("://");
  if (scheme == std::string::npos)
    return text;
  const size_t from = scheme + 3;
  const size_t authority_end = std::min(text.find_first_of("/?#", from), text.size());
  const size_t at = text.rfind('@', authority_end);
  if (at == std::string::npos || at < from)
    return text;
  const size_t colon = text.find(':', from);
  if (colon == std::string::npos || colon > at)
    return text.substr(0, from) + "***" + text.substr(at);
  return text.substr(0, colon + 1) + "***" + text.substr(at);
}

std::string real_text(double x) {
  // Shortest text that reads back to the same double; TOML wants a point or an exponent in it.
  std::string text = fmt::format("{}", x);
  if (text.find_first_of(".en") == std::string::npos)
    text += ".0";
  return text;
}

/// Calls `section` before the first key of each section (root: none) and `row` for each key, with the name
/// inside the section.
template <class Section, class Row>
void each_row(Section section, Row row) {
  std::string_view current;
  for (const key_spec& spec : schema()) {
    const size_t dot = spec.key.find('.');
    const std::string_view name =
        dot == std::string_view::npos ? std::string_view{} : spec.key.substr(0, dot);
    if (name != current) {
      section(name);
      current = name;
    }
    row(spec, dot == std::string_view::npos ? spec.key : spec.key.substr(dot + 1));
  }
}

bool is_automatic(const key_spec& spec, const config_value& value) {
  const auto* number = std::get_if<int64_t>(&value);
  return !spec.automatic.empty() && number != nullptr && *number == 0;
}

bool is_data_path(const key_spec& spec) {
  return spec.key == "data.corpus" || spec.key == "data.tokenizer";
}

/// "from the environment" and so on; the plain default needs no word.
std::string origin(const loaded_config& loaded, const key_spec& spec) {
  const auto found = loaded.source.find(std::string(spec.key));
  return found == loaded.source.end() ? std::string() : fmt::format(" # {}", to_string(found->second));
}

} // namespace

std::string toml_text(const config_value& value, bool mask) {
  return std::visit(
      [&](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, bool>) {
          return held ? "true" : "false";
        } else if constexpr (std::is_same_v<T, uint64_t>) {
          constexpr auto toml_max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
          return held > toml_max ? fmt::format("\"{}\"", held) : fmt::format("{}", held);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          return fmt::format("{}", held);
        } else if constexpr (std::is_same_v<T, double>) {
          return real_text(held);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return quoted(mask ? masked_url(held) : held);
        } else {
          std::string out = "[";
          for (const auto& element : held) {
            out += out.size() > 1 ? ", " : "";
            if constexpr (std::is_same_v<T, std::vector<std::string>>)
              out += quoted(element);
            else if constexpr (std::is_same_v<T, std::vector<access_token_rule>>)
              out += fmt::format("{{sha256 = {}, scopes = {}}}", quoted(element.sha256),
                                 toml_text(element.scopes));
            else
              out += fmt::format("[{}, {}]", element.first, element.second);
          }
          return out + "]";
        }
      },
      value);
}

std::string print_config(const loaded_config& loaded, const machine_facts& machine) {
  std::string out = "# Effective configuration of this node. Readable by --config.\n";
  out += fmt::format("# data directory: {}\n", loaded.data_dir);
  out += fmt::format("# configuration file: {}\n", loaded.config_file.empty() ? "none" : loaded.config_file);
  out += loaded.token ? fmt::format("# token: *** (from {})\n", loaded.token->where)
                      : std::string("# token: that of the data directory's wallet\n");
  const bool custom = loaded.config.model.preset == "custom";
  each_row([&](std::string_view name) { out += fmt::format("\n[{}]\n", name); },
           [&](const key_spec& spec, std::string_view name) {
             const config_value value = get_value(spec, loaded.config);
             if (is_automatic(spec, value)) {
               out += fmt::format("# {}: {}", name, spec.automatic);
               if (spec.key == "cpu_threads")
                 out += fmt::format(" ({})", effective_cpu_threads(loaded.config, machine));
               else if (spec.key == "dht.port")
                 out += fmt::format(" ({})", dht_port(loaded.config));
               else if (spec.key == "announce_port")
                 out += fmt::format(" ({})", grpc_port(loaded.config));
               out += '\n';
               return;
             }
             // The shape of a preset may not be given beside its name, so it cannot be read back either.
             const bool fixed_by_preset = spec.custom_only && !custom;
             out += fmt::format("{}{} = {}{}\n", fixed_by_preset ? "# " : "", name, toml_text(value, true),
                                origin(loaded, spec));
           });
  return out;
}

std::string render_node_toml() {
  std::string out =
      R"(# Configuration of a NeuroShard node. Every key is here, commented out, with its default and its range; active are the data
# paths alone. Uncomment and change what you need, or leave it: the defaults make a node that works.
#
# Precedence: command line, environment, what was changed through the API (config.json), this file, the defaults of the model
# preset, the defaults below. `neuroshard --print-config` shows what came out. An unknown key or a value out of range stops the
# start. A relative path stands under the data directory (~/.neuroshard, or --data-dir); "~/" is your home directory.
#
# (live): changeable while running, by editing this file and sending SIGHUP.
# (network): taken from the network when other nodes are there; not changeable then.

)";
  const node_config pico = default_config("auto");
  const node_config global = default_config("nano");
  each_row(
      [&](std::string_view name) {
        out += fmt::format("\n[{}]\n", name);
        if (name == "training")
          out += "# Defaults are those of preset pico, which is what a node runs alone.\n\n";
        if (name == "model")
          out += "# The keys of the shape, from num_layers to tie_embeddings, are for preset \"custom\" "
                 "only.\n\n";
        if (name == "economics")
          out += "# Part of the network's identity: nodes with other values do not peer. Amounts are text, "
                 "in NEURO; _bp is\n"
                 "# 1/10,000 and _ppm 1/1,000,000.\n\n";
      },
      [&](const key_spec& spec, std::string_view name) {
        const config_value value = get_value(spec, pico);
        const config_value elsewhere = get_value(spec, global);
        const std::string words = fmt::format("# {}{}{}:", spec.help, spec.live ? " (live)" : "",
                                              spec.network_parameter ? " (network)" : "");
        std::string range = fmt::format(" {}", allowed_text(spec));
        if (!spec.flag.empty())
          range += fmt::format("; {}", spec.flag);
        if (!spec.environment.empty())
          range += fmt::format("; {}", spec.environment);
        if (spec.key.starts_with("training.") && value != elsewhere)
          range += fmt::format("; other presets: {}", toml_text(elsewhere));
        out += fmt::format("{}{}{}\n", words, words.size() + range.size() > 124 ? "\n#  " : "", range);
        if (spec.key == "data.corpus")
          out += "corpus = \"corpus\"\n";
        else if (is_data_path(spec))
          out += fmt::format("{} = {}\n", name, toml_text(value));
        else if (is_automatic(spec, value) || spec.key == "data.vocab_size")
          out += fmt::format("#{} =  # default: {}\n", name, spec.automatic);
        else if (spec.fallback.empty())
          out += fmt::format("#{} = {}  # {}\n", name, toml_text(value), spec.automatic);
        else
          out += fmt::format("#{} = {}\n", name, toml_text(value));
      });
  return out;
}

} // namespace neuroshard
