#include "gateway/config/config_patch.hpp"

#include "actors/common/error.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace neuroshard {

namespace {

/// GET /config shows these, and they are never changed while running.
constexpr std::string_view immutable_names[] = {"node_id", "port", "grpc_port", "tracker_url"};

caf::error wrong(const std::string& field, std::string reason, const std::string& message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = std::move(reason);
  return refuse(errc::invalid_request, std::move(what));
}

caf::error not_allowed(const std::string& field, std::string reason, const std::string& message) {
  problem what;
  what.message = message;
  what.field = field;
  what.reason = std::move(reason);
  return refuse(errc::forbidden, std::move(what));
}

/// The number as an integer if it is integral, whatever its spelling: 16, 16.0, 1.6e1.
std::optional<int64_t> as_integer(const std::string& text) {
  int64_t exact = 0;
  const char* end = text.data() + text.size();
  if (const auto [stop, error] = std::from_chars(text.data(), end, exact);
      error == std::errc{} && stop == end)
    return exact;
  double x = 0;
  if (const auto [stop, error] = std::from_chars(text.data(), end, x); error != std::errc{} || stop != end)
    return std::nullopt;
  // Beyond 2^53 a double no longer tells integers apart; no key goes that far.
  if (x != std::floor(x) || std::abs(x) > 9007199254740992.0)
    return std::nullopt;
  return static_cast<int64_t>(x);
}

std::optional<double> as_real(const std::string& text) {
  double x = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, x);
  if (error != std::errc{} || stop != end || !std::isfinite(x))
    return std::nullopt;
  return x;
}

/// The leaf as a value of the key's kind. Gigabytes become the MB of `memory_mb`, to the nearest.
std::optional<config_value> read_leaf(const key_spec& spec, const std::string& name, const patch_leaf& leaf) {
  const config_value kind = empty_value(spec);
  if (std::holds_alternative<bool>(kind)) {
    if (const bool* b = std::get_if<bool>(&leaf))
      return config_value{*b};
    return std::nullopt;
  }
  const auto* number = std::get_if<json_number>(&leaf);
  if (number == nullptr || number->text.size() > 64)
    return std::nullopt;
  if (name == "resources.max_memory_gb") {
    const auto gb = as_real(number->text);
    if (!gb || std::abs(*gb) > 1e9)
      return std::nullopt;
    return config_value{static_cast<int64_t>(std::llround(*gb * 1024))};
  }
  if (std::holds_alternative<int64_t>(kind)) {
    if (const auto x = as_integer(number->text))
      return config_value{*x};
    return std::nullopt;
  }
  if (std::holds_alternative<double>(kind))
    if (const auto x = as_real(number->text))
      return config_value{*x};
  return std::nullopt;
}

/// The limits as typed details, so that a client need not read the sentence.
caf::error out_of_range(const key_spec& spec, const std::string& name, const std::string& allowed,
                        const machine_facts& machine) {
  problem what;
  what.message = fmt::format("{} must be {}", name, allowed);
  what.field = name;
  what.reason = "out_of_range";
  double max = spec.max;
  if (spec.limit == limit_rule::hardware_threads && machine.hardware_threads > 0)
    max = std::min(max, static_cast<double>(machine.hardware_threads));
  if (spec.limit == limit_rule::physical_memory && machine.physical_memory_mb > 0)
    max = std::min(max, static_cast<double>(machine.physical_memory_mb));
  if (spec.limit == limit_rule::free_disk && machine.free_disk_mb > 0)
    max = std::min(max, static_cast<double>(machine.free_disk_mb));
  const bool gigabytes = name == "resources.max_memory_gb";
  const bool integer = std::holds_alternative<int64_t>(empty_value(spec)) && !gigabytes;
  const auto detail = [&](double x) -> detail_value {
    if (integer)
      return static_cast<int64_t>(x);
    return gigabytes ? x / 1024 : x;
  };
  what.details = {{"min", detail(spec.min)}, {"max", detail(max)}};
  if (gigabytes)
    what.message = fmt::format("{} must be a number from {} to {}", name, spec.min / 1024, max / 1024);
  return refuse(errc::invalid_request, std::move(what));
}

std::string shown(const std::string& name) {
  std::string out = name.substr(0, 64);
  for (char& ch : out)
    if (static_cast<unsigned char>(ch) < 0x20 || ch == 0x7f)
      ch = '?';
  return out;
}

} // namespace

void patch_plan::apply(node_config& c) const {
  for (const auto& [spec, value] : changes)
    set_value(*spec, c, value);
  // A batch is cut into at most as many parts as it has rows.
  c.training.microbatches = std::min(c.training.microbatches, c.training.batch_size);
}

caf::expected<patch_plan> plan_patch(const patch_body& body, const node_config& current,
                                     const machine_facts& machine, bool in_cohort) {
  patch_plan plan;
  if (body.size() > 64)
    return wrong("", "too_many", "the patch has more than 64 members");
  for (const auto& [name, leaf] : body) {
    if (std::find(std::begin(immutable_names), std::end(immutable_names), name) != std::end(immutable_names))
      return not_allowed(name, "immutable", fmt::format("{} cannot be changed while the node runs", name));
    const key_spec* spec = find_patch_key(name);
    if (spec == nullptr)
      return wrong(shown(name), "unknown_key",
                   fmt::format("{} is not a key of the configuration", shown(name)));
    for (const auto& [earlier, value] : plan.changes)
      if (earlier == spec)
        return wrong(name, "duplicate", fmt::format("{} is given twice", name));
    if (in_cohort && spec->network_parameter)
      return not_allowed(
          name, "network_parameter",
          fmt::format("{} is a parameter of the network and cannot be changed with peers", name));
    auto value = read_leaf(*spec, name, leaf);
    if (!value)
      return wrong(name, "wrong_type",
                   fmt::format("{} must be {}", name, allowed_text(*spec, current, machine)));
    if (const auto allowed = check_value(*spec, *value, current, machine))
      return out_of_range(*spec, name, *allowed, machine);
    plan.changes.emplace_back(spec, std::move(*value));
    plan.updated.push_back(name);
    plan.restart_required = plan.restart_required || spec->patch_restart;
  }
  node_config changed = current;
  plan.apply(changed);
  if (const auto problem_line = cross_check(changed))
    return wrong(plan.updated.empty() ? std::string() : plan.updated.front(), "conflict", *problem_line);
  return plan;
}

} // namespace neuroshard
