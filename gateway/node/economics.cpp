#include "gateway/node/economics.hpp"

#include "gateway/config/schema.hpp"

#include <string>
#include <type_traits>

namespace neuroshard {

namespace {

/// Copies one key; false when the configuration has no such key or it is of another kind.
bool take(const config_value& from, neuro_amount& to) {
  const auto* text = std::get_if<std::string>(&from);
  return text != nullptr && parse_amount(*text, amount_text::string, true, to) == amount_error::ok;
}
bool take(const config_value& from, uint64_t& to) {
  const auto* value = std::get_if<int64_t>(&from);
  if (value == nullptr || *value < 0)
    return false;
  to = static_cast<uint64_t>(*value);
  return true;
}
bool take(const config_value& from, bool& to) {
  const auto* value = std::get_if<bool>(&from);
  if (value != nullptr)
    to = *value;
  return value != nullptr;
}
bool take(const config_value& from, std::vector<validator_tier>& to) {
  const auto* tiers = std::get_if<std::vector<tier_config>>(&from);
  if (tiers == nullptr)
    return false;
  to.clear();
  for (const auto& [validators, stake] : *tiers)
    to.push_back({static_cast<uint64_t>(validators), static_cast<uint64_t>(stake)});
  return true;
}

} // namespace

start_result<economics_params> economics_from(const node_config& c) {
  economics_params params;
  std::string wrong;
  for_each_param(params, [&](std::string_view name, auto& member) {
    const std::string key = "economics." + std::string(name);
    const key_spec* spec = find_key(key);
    if (spec == nullptr || !take(get_value(*spec, c), member))
      wrong = key;
  });
  if (!wrong.empty())
    return start_error{exit_code::bad_configuration, wrong + ": cannot be read"};
  if (const auto fault = check_params(params); !fault.key.empty())
    return start_error{exit_code::bad_configuration, "economics." + fault.key + ": must be " + fault.allowed};
  return params;
}

} // namespace neuroshard
