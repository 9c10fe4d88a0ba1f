#include "actors/ledger/economics_params.hpp"

#include <charconv>
#include <optional>
#include <type_traits>

namespace neuroshard {

namespace {

constexpr std::string_view tag = "neuroshard-params-v1";
constexpr uint64_t bp_whole = 10'000;
constexpr uint64_t ppm_most = 10'000'000;
constexpr uint64_t count_most = 1'000'000;
constexpr neuro_amount amount_most{static_cast<unsigned __int128>(1'000'000'000'000) * atto_per_neuro};
constexpr size_t tiers_most = 64;

std::string text_of(const neuro_amount& value) {
  return to_atto_text(value);
}
std::string text_of(const uint64_t& value) {
  return std::to_string(value);
}
std::string text_of(const bool& value) {
  return value ? "1" : "0";
}
std::string text_of(const std::vector<validator_tier>& value) {
  // ':' and '.' are the separators; only '.' is plain in canonical text, so ':' is written as its percent
  // code.
  std::string text;
  for (const auto& tier : value)
    text += (text.empty() ? "" : ".") + std::to_string(tier.validators) + "%3A" +
            std::to_string(tier.stake_neuro);
  return text;
}

bool read(std::string_view text, uint64_t& out) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), out);
  return failed == std::errc() && end == text.data() + text.size();
}
bool read(std::string_view text, neuro_amount& out) {
  const auto value = from_atto_text(text);
  if (value)
    out = *value;
  return value.has_value();
}
bool read(std::string_view text, bool& out) {
  out = text == "1";
  return text == "0" || text == "1";
}
bool read(std::string_view text, std::vector<validator_tier>& out) {
  out.clear();
  while (!text.empty() && out.size() < tiers_most) {
    const std::string_view one = text.substr(0, text.find('.'));
    text.remove_prefix(std::min(one.size() + 1, text.size()));
    const size_t colon = one.find("%3A");
    validator_tier tier;
    if (colon == std::string_view::npos || !read(one.substr(0, colon), tier.validators) ||
        !read(one.substr(colon + 3), tier.stake_neuro))
      return false;
    out.push_back(tier);
  }
  return text.empty();
}

bool allowed(std::string_view, const bool&, std::string&) {
  return true;
}
bool allowed(std::string_view, const neuro_amount& value, std::string& range) {
  range = "0 to 10^12 NEURO";
  return value <= amount_most;
}
bool allowed(std::string_view key, const uint64_t& value, std::string& range) {
  if (key.ends_with("_bp") && key != "speed_slack_bp") {
    range = "0 to 10000";
    return value <= bp_whole;
  }
  if (key.ends_with("_ppm")) {
    range = "0 to 10000000";
    return value <= ppm_most;
  }
  range = "1 to 1000000";
  return value >= 1 && value <= count_most;
}
bool allowed(std::string_view, const std::vector<validator_tier>& value, std::string& range) {
  range = "1 to 64 pairs [validators, stake], both ascending, the first from 0 validators";
  if (value.empty() || value.size() > tiers_most || value[0].validators != 0)
    return false;
  for (size_t i = 0; i < value.size(); ++i)
    if (value[i].stake_neuro > 1'000'000'000'000 ||
        (i > 0 &&
         (value[i].validators <= value[i - 1].validators || value[i].stake_neuro < value[i - 1].stake_neuro)))
      return false;
  return true;
}

} // namespace

params_fault check_params(const economics_params& params) {
  params_fault fault;
  for_each_param(params, [&](std::string_view key, const auto& value) {
    std::string range;
    if (fault.key.empty() && !allowed(key, value, range))
      fault = {std::string(key), range};
  });
  if (!fault.key.empty())
    return fault;
  if (params.driver_bp + params.worker_bp + params.validator_bp != bp_whole)
    return {"worker_bp", "driver_bp, worker_bp and validator_bp sum to 10000"};
  if (params.min_stake > params.max_stake)
    return {"max_stake", "at least min_stake"};
  if (params.min_lock_days > params.max_lock_days)
    return {"max_lock_days", "at least min_lock_days"};
  if (params.default_lock_days < params.min_lock_days || params.default_lock_days > params.max_lock_days)
    return {"default_lock_days", "between min_lock_days and max_lock_days"};
  return {};
}

std::string canonical_params(const economics_params& params) {
  std::string text(tag);
  text.push_back('\n');
  for_each_param(params, [&](std::string_view key, const auto& value) {
    text.append(key).append("=").append(text_of(value)).append("\n");
  });
  return text;
}

bool read_canonical_params(std::string_view text, economics_params& out) {
  bool ok = true;
  const auto line = [&](std::string_view start) -> std::optional<std::string_view> {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos || text.substr(0, start.size()) != start || start.size() > end)
      return std::nullopt;
    const auto rest = text.substr(start.size(), end - start.size());
    text.remove_prefix(end + 1);
    return rest;
  };
  const auto first = line(tag);
  ok = first && first->empty();
  for_each_param(out, [&](std::string_view key, auto& value) {
    if (!ok)
      return;
    const auto rest = line(std::string(key) + "=");
    ok = rest && read(*rest, value);
  });
  return ok && text.empty();
}

kernels::digest params_hash(const economics_params& params) {
  return kernels::sha256::of(std::string_view(canonical_params(params)));
}

} // namespace neuroshard
