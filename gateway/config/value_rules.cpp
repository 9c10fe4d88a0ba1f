#include "gateway/config/schema.hpp"

#include "actors/common/money.hpp"

#include <arpa/inet.h>
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace neuroshard {

namespace {

constexpr size_t text_limit = 4096;
constexpr size_t list_limit = 1024;

bool is_digit(char ch) noexcept {
  return ch >= '0' && ch <= '9';
}
bool is_alnum(char ch) noexcept {
  return is_digit(ch) || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z');
}

bool all_digits_to(std::string_view text, int64_t max, int64_t& out) noexcept {
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit))
    return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out <= max;
}

bool is_ip(const std::string& text) noexcept {
  in6_addr scratch;
  return text.find('\0') == std::string::npos && (inet_pton(AF_INET, text.c_str(), &scratch) == 1 ||
                                                  inet_pton(AF_INET6, text.c_str(), &scratch) == 1);
}

bool is_host_name(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 253 && is_alnum(text.front()) && is_alnum(text.back()) &&
         std::all_of(text.begin(), text.end(),
                     [](char ch) { return is_alnum(ch) || ch == '-' || ch == '.' || ch == '_'; }) &&
         text.find("..") == std::string_view::npos;
}

bool is_host_port(std::string_view text) noexcept {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos)
    return false;
  int64_t port = 0;
  if (!all_digits_to(text.substr(colon + 1), 65535, port) || port < 1)
    return false;
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    return is_ip(std::string(host.substr(1, host.size() - 2)));
  return is_host_name(host);
}

bool is_cidr(std::string_view text) noexcept {
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  if (!is_ip(address))
    return false;
  int64_t prefix = 0;
  return slash == std::string_view::npos ||
         all_digits_to(text.substr(slash + 1), address.find(':') == std::string::npos ? 32 : 128, prefix);
}

bool is_origin(std::string_view text) noexcept {
  std::string_view rest;
  if (text.starts_with("https://"))
    rest = text.substr(8);
  else if (text.starts_with("http://"))
    rest = text.substr(7);
  else
    return false;
  return is_host_port(rest) || is_host_name(rest) ||
         (rest.size() > 2 && rest.front() == '[' && rest.back() == ']' &&
          is_ip(std::string(rest.substr(1, rest.size() - 2))));
}

bool is_device(std::string_view text) noexcept {
  int64_t number = 0;
  return text == "auto" || text == "cpu" || text == "cuda" ||
         (text.starts_with("cuda:") && text.size() <= 8 && all_digits_to(text.substr(5), 255, number));
}

bool is_choice(std::string_view choices, std::string& text) {
  std::string folded = text;
  // Log levels are upper case, everything else lower: accept either, keep the table's form.
  const bool upper = !choices.empty() && choices.front() >= 'A' && choices.front() <= 'Z';
  for (char& ch : folded) {
    if (upper && ch >= 'a' && ch <= 'z')
      ch = static_cast<char>(ch - 'a' + 'A');
  }
  while (!choices.empty()) {
    const size_t blank = choices.find(' ');
    if (choices.substr(0, blank) == folded) {
      text = std::move(folded);
      return true;
    }
    choices = blank == std::string_view::npos ? std::string_view{} : choices.substr(blank + 1);
  }
  return false;
}

bool is_amount(const std::string& text) noexcept {
  neuro_amount amount;
  if (parse_amount(text, amount_text::string, true, amount) != amount_error::ok)
    return false;
  return amount.atto <= atto_per_neuro * 1'000'000'000'000ULL;
}

bool is_plain_text(std::string_view text) noexcept {
  return text.size() <= text_limit && std::none_of(text.begin(), text.end(), [](char ch) {
           return static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f;
         });
}

bool text_ok(const key_spec& spec, std::string& text) {
  if (!is_plain_text(text))
    return false;
  switch (spec.rule) {
  case text_rule::any:
    return true;
  case text_rule::one_of:
    return is_choice(spec.choices, text);
  case text_rule::path:
  case text_rule::path_or_url:
    return !text.empty();
  case text_rule::ip_address:
    return is_ip(text);
  case text_rule::cidr:
    return is_cidr(text);
  case text_rule::host_port:
    return is_host_port(text);
  case text_rule::origin:
    return is_origin(text);
  case text_rule::network_name:
    return !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char ch) {
      return is_digit(ch) || (ch >= 'a' && ch <= 'z') || ch == '-';
    });
  case text_rule::device_name:
    return is_device(text);
  case text_rule::amount:
    return is_amount(text);
  }
  return false;
}

std::string text_allowed(const key_spec& spec) {
  switch (spec.rule) {
  case text_rule::any:
    return "text";
  case text_rule::one_of: {
    std::string list = "one of ";
    for (const char ch : spec.choices)
      list += ch == ' ' ? std::string(", ") : std::string(1, ch);
    return list;
  }
  case text_rule::path:
    return "a path";
  case text_rule::path_or_url:
    return "a path or a URL";
  case text_rule::ip_address:
    return "an IP address";
  case text_rule::cidr:
    return "an IP address or address/prefix";
  case text_rule::host_port:
    return "host:port";
  case text_rule::origin:
    return "http(s)://host or http(s)://host:port";
  case text_rule::network_name:
    return "1 to 32 of a-z, 0-9 and -";
  case text_rule::device_name:
    return "auto, cuda, cuda:N or cpu (mps is not supported)";
  case text_rule::amount:
    return "a NEURO amount as decimal text from \"0\" to \"1000000000000\"";
  }
  return "text";
}

std::string number_text(double x) {
  if (x == std::floor(x) && std::abs(x) < 9e15)
    return fmt::format("{}", static_cast<int64_t>(x));
  return fmt::format("{}", x);
}

struct upper_limit {
  double max;
  std::string_view name; ///< of what sets it, or empty
};

/// The tighter of the row's own limit and the dependent one; an unknown machine limits nothing.
upper_limit upper(const key_spec& spec, const node_config& c, const machine_facts& machine) {
  int64_t dependent = 0;
  std::string_view name;
  switch (spec.limit) {
  case limit_rule::fixed:
    break;
  case limit_rule::hardware_threads:
    dependent = machine.hardware_threads, name = "hardware threads";
    break;
  case limit_rule::physical_memory:
    dependent = machine.physical_memory_mb, name = "physical memory";
    break;
  case limit_rule::free_disk:
    dependent = machine.free_disk_mb, name = "free disk";
    break;
  case limit_rule::context:
    dependent = c.model.max_seq_len, name = "model.max_seq_len";
    break;
  case limit_rule::batch_size:
    dependent = c.training.batch_size, name = "training.batch_size";
    break;
  case limit_rule::decay_steps:
    dependent = c.training.decay_steps, name = "training.decay_steps";
    break;
  case limit_rule::vocab_capacity:
    dependent = c.model.vocab_capacity, name = "model.vocab_capacity";
    break;
  case limit_rule::num_layers:
    dependent = c.model.num_layers, name = "model.num_layers";
    break;
  }
  if (dependent > 0 && static_cast<double>(dependent) < spec.max)
    return {static_cast<double>(dependent), name};
  return {spec.max, {}};
}

std::string_view limit_name(limit_rule rule) {
  switch (rule) {
  case limit_rule::fixed:
    return {};
  case limit_rule::hardware_threads:
    return "the hardware threads";
  case limit_rule::physical_memory:
    return "the physical memory";
  case limit_rule::free_disk:
    return "the free disk space";
  case limit_rule::context:
    return "model.max_seq_len";
  case limit_rule::batch_size:
    return "training.batch_size";
  case limit_rule::decay_steps:
    return "training.decay_steps";
  case limit_rule::vocab_capacity:
    return "model.vocab_capacity";
  case limit_rule::num_layers:
    return "model.num_layers";
  }
  return {};
}

/// `max` is the upper limit as words.
std::string allowed(const key_spec& spec, const std::string& max) {
  const config_value kind = empty_value(spec);
  if (std::holds_alternative<bool>(kind))
    return "true or false";
  if (std::holds_alternative<uint64_t>(kind))
    return "an integer from 0 to 18446744073709551615";
  if (std::holds_alternative<int64_t>(kind))
    return fmt::format("an integer from {} to {}", number_text(spec.min), max);
  if (std::holds_alternative<double>(kind))
    return fmt::format("a number {} {} {} {}", spec.open_min ? "above" : "from", number_text(spec.min),
                       spec.open_max ? "and below" : "to", max);
  if (std::holds_alternative<std::string>(kind))
    return text_allowed(spec);
  if (std::holds_alternative<std::vector<std::string>>(kind))
    return fmt::format("a list, each {}", text_allowed(spec));
  if (std::holds_alternative<std::vector<access_token_rule>>(kind))
    return "a list of {sha256 = \"64 hex digits\", scopes = [some of read, inference, wallet, admin]}, each "
           "digest once";
  return "a list of [validators, NEURO], rising, the first with 0 validators, at most 64";
}

bool tokens_ok(std::vector<access_token_rule>& tokens) {
  if (tokens.size() > list_limit)
    return false;
  for (size_t i = 0; i < tokens.size(); ++i) {
    access_token_rule& token = tokens[i];
    for (char& ch : token.sha256) {
      if (ch >= 'A' && ch <= 'F')
        ch = static_cast<char>(ch - 'A' + 'a');
      if (!is_digit(ch) && !(ch >= 'a' && ch <= 'f'))
        return false;
    }
    if (token.sha256.size() != 64 || token.scopes.empty() || token.scopes.size() > 4)
      return false;
    for (std::string& scope : token.scopes)
      if (!is_choice("read inference wallet admin", scope))
        return false;
    for (size_t j = 0; j < i; ++j)
      if (tokens[j].sha256 == token.sha256)
        return false;
  }
  return true;
}

bool tiers_ok(const std::vector<tier_config>& tiers) {
  if (tiers.empty() || tiers.size() > 64 || tiers.front().first != 0)
    return false;
  for (size_t i = 0; i < tiers.size(); ++i) {
    if (tiers[i].first < 0 || tiers[i].second < 0 || tiers[i].first > 1'000'000'000 ||
        tiers[i].second > 1'000'000'000'000)
      return false;
    if (i > 0 && (tiers[i].first <= tiers[i - 1].first || tiers[i].second < tiers[i - 1].second))
      return false;
  }
  return true;
}

} // namespace

std::string allowed_text(const key_spec& spec, const node_config& c, const machine_facts& machine) {
  const upper_limit limit = upper(spec, c, machine);
  std::string max = number_text(limit.max);
  if (!limit.name.empty())
    max += fmt::format(" ({})", limit.name);
  return allowed(spec, max);
}

std::string allowed_text(const key_spec& spec) {
  const std::string_view name = limit_name(spec.limit);
  return allowed(spec, name.empty() ? number_text(spec.max) : std::string(name));
}

std::optional<std::string> check_value(const key_spec& spec, config_value& value, const node_config& c,
                                       const machine_facts& machine) {
  const auto ok = [&]() -> bool {
    if (value.index() != empty_value(spec).index())
      return false;
    const double max = upper(spec, c, machine).max;
    if (const auto* number = std::get_if<int64_t>(&value)) {
      // Ranges are far below 2^53, where int64 and double agree; anything larger is out of range either way.
      const auto x = static_cast<double>(*number);
      return x >= spec.min && x <= max;
    }
    if (const auto* number = std::get_if<double>(&value)) {
      if (!std::isfinite(*number))
        return false;
      return (spec.open_min ? *number > spec.min : *number >= spec.min) &&
             (spec.open_max ? *number < max : *number <= max);
    }
    if (auto* text = std::get_if<std::string>(&value)) {
      // Where a key may be absent, an empty text says so.
      if (text->empty() && spec.fallback.empty())
        return true;
      return text_ok(spec, *text);
    }
    if (auto* list = std::get_if<std::vector<std::string>>(&value))
      return list->size() <= list_limit &&
             std::all_of(list->begin(), list->end(), [&](std::string& text) { return text_ok(spec, text); });
    if (auto* tokens = std::get_if<std::vector<access_token_rule>>(&value))
      return tokens_ok(*tokens);
    if (const auto* tiers = std::get_if<std::vector<tier_config>>(&value))
      return tiers_ok(*tiers);
    return true;
  };
  if (ok())
    return std::nullopt;
  return allowed_text(spec, c, machine);
}

} // namespace neuroshard
