#include "gateway/config/load_config.hpp"

#include <fmt/core.h>

#include <stdexcept>

// The file is hostile input until it is read: little recursion, and where toml++ 3.3 asserts on a malformed
// text (an empty value in the last line, for one) a parse error instead of the end of the process.
namespace neuroshard {
namespace {
struct toml_assertion : std::runtime_error {
  toml_assertion() : std::runtime_error("malformed value") {}
};
[[noreturn, gnu::noinline]] void toml_assertion_failed() {
  throw toml_assertion{};
}
} // namespace
} // namespace neuroshard
#define TOML_ASSERT(condition) ((condition) ? static_cast<void>(0) : ::neuroshard::toml_assertion_failed())
#define TOML_EXCEPTIONS 1
#define TOML_MAX_NESTED_VALUES 16
#include <toml++/toml.h>

#include <charconv>
#include <cmath>

namespace neuroshard {

namespace {

constexpr size_t file_limit = size_t{1} << 20;
constexpr size_t dots_limit = 64;
constexpr size_t shown_limit = 80;

/// toml++ bounds the nesting of values but not that of dotted keys, and destroys tables recursively: a key of
/// a hundred thousand dots would overflow the stack. No real line has so many dots without a separator
/// between them. Quotes are not looked at, so that no quoted part of a key can hide the rest.
bool has_deep_key(std::string_view text, uint32_t& line) {
  size_t dots = 0;
  bool blank = true; // Nothing but blanks on this line so far.
  bool comment = false;
  line = 1;
  for (const char ch : text) {
    if (ch == '\n') {
      dots = 0;
      blank = true;
      comment = false;
      ++line;
      continue;
    }
    comment = comment || (blank && ch == '#');
    blank = blank && (ch == ' ' || ch == '\t');
    if (ch == '=' || ch == ',' || ch == '{' || ch == '[')
      dots = 0;
    else if (ch == '.' && !comment && ++dots > dots_limit)
      return true;
  }
  return false;
}

/// The one call of the parser. Its exceptions end here: a table, or the line and what is wrong in it.
struct parsed_toml {
  std::optional<toml::table> table;
  uint32_t line = 1;
  std::string problem;
};

parsed_toml parse_toml(std::string_view text) {
  parsed_toml out;
  try {
    out.table = toml::parse(text);
  } catch (const toml::parse_error& e) {
    out.line = e.source().begin.line;
    out.problem = std::string(e.description());
  } catch (const toml_assertion& e) {
    // It carries no position; the text is malformed somewhere.
    out.problem = "the file is malformed: a value is missing somewhere";
  } catch (const std::exception&) {
    out.problem = "the file cannot be parsed";
  }
  return out;
}

std::string shown(std::string_view text) {
  std::string out;
  for (const char ch : text.substr(0, shown_limit))
    out.push_back(static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f ? '?' : ch);
  return text.size() > shown_limit ? out + "..." : out;
}

std::string shown(const toml::node& node) {
  switch (node.type()) {
  case toml::node_type::string:
    return '"' + shown(std::string_view(node.as_string()->get())) + '"';
  case toml::node_type::integer:
    return fmt::format("{}", node.as_integer()->get());
  case toml::node_type::floating_point:
    return fmt::format("{}", node.as_floating_point()->get());
  case toml::node_type::boolean:
    return node.as_boolean()->get() ? "true" : "false";
  case toml::node_type::array:
    return "an array";
  case toml::node_type::table:
    return "a table";
  default:
    return "a date or time";
  }
}

bool read_texts(const toml::node& node, std::vector<std::string>& out) {
  const toml::array* array = node.as_array();
  if (array == nullptr)
    return false;
  for (const toml::node& element : *array) {
    const auto* text = element.as_string();
    if (text == nullptr)
      return false;
    out.push_back(text->get());
  }
  return true;
}

bool read_tokens(const toml::node& node, std::vector<access_token_rule>& out) {
  const toml::array* array = node.as_array();
  if (array == nullptr)
    return false;
  for (const toml::node& element : *array) {
    const toml::table* table = element.as_table();
    if (table == nullptr || table->size() != 2)
      return false;
    const toml::node* digest = table->get("sha256");
    const toml::node* scopes = table->get("scopes");
    access_token_rule rule;
    if (digest == nullptr || scopes == nullptr || !digest->is_string() || !read_texts(*scopes, rule.scopes))
      return false;
    rule.sha256 = digest->as_string()->get();
    out.push_back(std::move(rule));
  }
  return true;
}

bool read_tiers(const toml::node& node, std::vector<tier_config>& out) {
  const toml::array* array = node.as_array();
  if (array == nullptr)
    return false;
  for (const toml::node& element : *array) {
    const toml::array* pair = element.as_array();
    if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_integer() || !(*pair)[1].is_integer())
      return false;
    out.emplace_back((*pair)[0].as_integer()->get(), (*pair)[1].as_integer()->get());
  }
  return true;
}

bool read_uint64(std::string_view text, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

/// The node as a value of the key's kind, or nothing when it is of another.
std::optional<config_value> read_node(const key_spec& spec, const toml::node& node) {
  config_value value = empty_value(spec);
  const bool ok = std::visit(
      [&](auto& held) -> bool {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, bool>) {
          if (const auto* b = node.as_boolean())
            return held = b->get(), true;
        } else if constexpr (std::is_same_v<T, int64_t>) {
          if (const auto* i = node.as_integer())
            return held = i->get(), true;
        } else if constexpr (std::is_same_v<T, uint64_t>) {
          // TOML integers end at 2^63 - 1; the rest is written as text.
          if (const auto* i = node.as_integer())
            return held = static_cast<uint64_t>(i->get()), i->get() >= 0;
          if (const auto* s = node.as_string())
            return read_uint64(s->get(), held);
        } else if constexpr (std::is_same_v<T, double>) {
          if (const auto* f = node.as_floating_point())
            return held = f->get(), true;
          if (const auto* i = node.as_integer())
            return held = static_cast<double>(i->get()), true;
        } else if constexpr (std::is_same_v<T, std::string>) {
          if (const auto* s = node.as_string())
            return held = s->get(), true;
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          return read_texts(node, held);
        } else if constexpr (std::is_same_v<T, std::vector<access_token_rule>>) {
          return read_tokens(node, held);
        } else {
          return read_tiers(node, held);
        }
        return false;
      },
      value);
  if (!ok)
    return std::nullopt;
  return value;
}

/// Whether some key lies below this dotted name, so that it is a section.
bool is_section(const std::string& name) {
  for (const key_spec& row : schema())
    if (row.key.size() > name.size() && row.key.starts_with(name) && row.key[name.size()] == '.')
      return true;
  return false;
}

start_error unknown_key(const std::string& name, uint32_t line, const std::string& key) {
  std::vector<std::string_view> known;
  for (const key_spec& row : schema())
    known.push_back(row.key);
  std::string hint = "config/node.toml lists all keys";
  if (const std::string_view close = closest(key, known); !close.empty())
    hint = fmt::format("did you mean {}?", close);
  return {exit_code::bad_configuration,
          fmt::format("{}:{}: unknown key {} ({})", name, line, shown(key), hint)};
}

std::optional<start_error> walk(const toml::table& table, const std::string& prefix, const std::string& name,
                                std::vector<file_value>& out) {
  for (const auto& [key, node] : table) {
    const std::string dotted = prefix + std::string(key.str());
    const uint32_t line = key.source().begin.line != 0 ? key.source().begin.line : node.source().begin.line;
    if (const key_spec* spec = find_key(dotted)) {
      auto value = read_node(*spec, node);
      if (!value)
        return start_error{
            exit_code::bad_configuration,
            fmt::format("{}:{}: {} = {}: must be {}", name, line, dotted, shown(node), allowed_text(*spec))};
      out.push_back({spec, std::move(*value), line});
    } else if (is_section(dotted)) {
      const toml::table* section = node.as_table();
      if (section == nullptr)
        return start_error{
            exit_code::bad_configuration,
            fmt::format("{}:{}: {} = {}: must be a section, [{}]", name, line, dotted, shown(node), dotted)};
      if (auto failed = walk(*section, dotted + ".", name, out))
        return failed;
    } else {
      return unknown_key(name, line, dotted);
    }
  }
  return std::nullopt;
}

std::optional<std::string> parse_bool_word(std::string_view text, bool& out) {
  for (const std::string_view yes : {"true", "1", "yes", "on"})
    if (text == yes)
      return out = true, std::string();
  for (const std::string_view no : {"false", "0", "no", "off"})
    if (text == no)
      return out = false, std::string();
  return std::nullopt;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

/// Flag or environment text as TOML: for lists of tables, and for lists in brackets.
std::optional<config_value> parse_as_toml(const key_spec& spec, std::string_view text) {
  uint32_t line = 0;
  if (text.size() > file_limit || text.find('\n') != std::string_view::npos || has_deep_key(text, line))
    return std::nullopt;
  const parsed_toml parsed = parse_toml("v = " + std::string(text) + "\n");
  if (!parsed.table || parsed.table->size() != 1)
    return std::nullopt;
  return read_node(spec, *parsed.table->get("v"));
}

} // namespace

start_result<std::vector<file_value>> read_toml(std::string_view text, const std::string& name) {
  const auto refuse_file = [&](uint32_t line, std::string_view what) {
    return start_error{exit_code::bad_configuration, fmt::format("{}:{}: {}", name, line, what)};
  };
  if (text.size() > file_limit)
    return refuse_file(1, "the file is larger than 1 MiB");
  uint32_t line = 1;
  size_t line_bytes = 0;
  for (const char ch : text) {
    if (ch == '\0')
      return refuse_file(line, "the file holds a NUL byte");
    line_bytes = ch == '\n' ? 0 : line_bytes + 1;
    if (line_bytes > 8192)
      return refuse_file(line, "the line is longer than 8,192 bytes");
    line += ch == '\n' ? 1 : 0;
  }
  if (has_deep_key(text, line))
    return refuse_file(line, "the key has too many parts");
  const parsed_toml parsed = parse_toml(text);
  if (!parsed.table)
    return refuse_file(parsed.line, shown(parsed.problem));
  std::vector<file_value> out;
  if (auto failed = walk(*parsed.table, "", name, out))
    return *failed;
  return out;
}

std::optional<config_value> parse_text(const key_spec& spec, std::string_view text) {
  text = trimmed(text);
  config_value value = empty_value(spec);
  if (auto* flag = std::get_if<bool>(&value)) {
    if (!parse_bool_word(text, *flag))
      return std::nullopt;
    return value;
  }
  const char* end = text.data() + text.size();
  if (auto* number = std::get_if<int64_t>(&value)) {
    const auto [stop, error] = std::from_chars(text.data(), end, *number);
    if (error != std::errc{} || stop != end || text.empty())
      return std::nullopt;
    return value;
  }
  if (auto* number = std::get_if<uint64_t>(&value)) {
    if (!read_uint64(text, *number))
      return std::nullopt;
    return value;
  }
  if (auto* number = std::get_if<double>(&value)) {
    const auto [stop, error] = std::from_chars(text.data(), end, *number);
    if (error != std::errc{} || stop != end || text.empty())
      return std::nullopt;
    return value;
  }
  if (auto* held = std::get_if<std::string>(&value)) {
    *held = std::string(text);
    return value;
  }
  if (auto* list = std::get_if<std::vector<std::string>>(&value)) {
    if (text.starts_with('['))
      if (auto as_toml = parse_as_toml(spec, text))
        return as_toml;
    while (!text.empty()) {
      const size_t comma = text.find(',');
      const std::string_view element = trimmed(text.substr(0, comma));
      if (!element.empty())
        list->emplace_back(element);
      text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    }
    return value;
  }
  return parse_as_toml(spec, text);
}

} // namespace neuroshard
