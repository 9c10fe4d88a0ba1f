#include "gateway/node/live_settings.hpp"

#include "actors/common/log.hpp"
#include "gateway/config/network_parameters.hpp"

#include <caf/send.hpp>

#include <algorithm>

namespace neuroshard {

rate_limits limits_of(const node_config& c) {
  const auto& r = c.api.rate_limits;
  return {static_cast<uint32_t>(r.status), static_cast<uint32_t>(r.inference),
          static_cast<uint32_t>(r.wallet), static_cast<uint32_t>(r.health),
          static_cast<uint32_t>(r.auth_failures)};
}

optimizer_settings optimizer_of(const node_config& c) {
  return {c.training.learning_rate, static_cast<uint64_t>(c.training.warmup_steps),
          static_cast<uint64_t>(c.training.decay_steps)};
}

live_settings::live_settings(node_config start, machine_facts machine, std::string config_json_path,
                             config_json stored)
    : current_(std::make_shared<const node_config>(std::move(start))), machine_(machine),
      path_(std::move(config_json_path)), stored_(std::move(stored)) {}

std::shared_ptr<const node_config> live_settings::current() const {
  const std::lock_guard hold(guard_);
  return current_;
}

std::string live_settings::network_parameters() const {
  const std::lock_guard hold(guard_);
  return neuroshard::network_parameters(*current_, tokenizer_);
}

void live_settings::tokenizer(std::string hash) {
  const std::lock_guard hold(guard_);
  tokenizer_ = std::move(hash);
}

void live_settings::replace(node_config next) {
  auto fresh = std::make_shared<const node_config>(std::move(next));
  std::shared_ptr<const node_config> before;
  {
    const std::lock_guard hold(guard_);
    before = std::exchange(current_, fresh);
  }
  tell(*before, *fresh);
}

void live_settings::tell(const node_config& before, const node_config& after) {
  training_patch training;
  if (before.training.learning_rate != after.training.learning_rate) {
    training.learning_rate = after.training.learning_rate;
    caf::anon_send(to_.actors.worker, optimizer_of(after));
  }
  if (before.training.batch_size != after.training.batch_size)
    training.batch_size = static_cast<uint32_t>(after.training.batch_size);
  if (before.training.diloco_steps != after.training.diloco_steps)
    training.diloco_steps = static_cast<uint64_t>(after.training.diloco_steps);
  if (training.learning_rate || training.batch_size || training.diloco_steps)
    caf::anon_send(to_.actors.trainer, training);
  // After the patch: a loop that goes on at once takes its first step with what was set.
  if (before.training.enabled != after.training.enabled)
    caf::anon_send(to_.actors.trainer, set_training{after.training.enabled && takes_layers(after)});
  if (before.cpu_threads != after.cpu_threads)
    caf::anon_send(to_.actors.worker, threads_atom_v,
                   static_cast<uint32_t>(effective_cpu_threads(after, machine_)));
  if (before.api.rate_limits != after.api.rate_limits) {
    caf::anon_send(to_.actors.limiter, limits_of(after));
    if (to_.server != nullptr)
      to_.server->set_rates(limits_of(after));
  }
  if (before.log.access != after.log.access && to_.server != nullptr)
    to_.server->set_access_log(after.log.access);
  if (before.log_level != after.log_level && to_.log != nullptr)
    to_.log->set_level(after.log_level);
}

caf::expected<http::patch_outcome> live_settings::patch(const patch_body& body) {
  const auto now = current();
  auto plan = plan_patch(body, *now, machine_, in_cohort_);
  if (!plan)
    return plan.error();
  if (!plan->changes.empty()) {
    auto stored = stored_;
    for (const auto& [spec, value] : plan->changes) {
      const std::string key{spec->key};
      const auto held = std::find_if(stored.settings.begin(), stored.settings.end(),
                                     [&](const auto& setting) { return setting.first == key; });
      if (held == stored.settings.end())
        stored.settings.emplace_back(key, value);
      else
        held->second = value;
    }
    if (auto written = write_config_json(path_, stored); !written) {
      log::error("config", "patch-not-stored why=\"{}\"", written.error().line);
      return refuse(errc::storage, "the change could not be written to config.json");
    }
    stored_ = std::move(stored);
    auto next = *now;
    plan->apply(next);
    replace(std::move(next));
  }
  return http::patch_outcome{std::move(plan->updated), plan->restart_required};
}

bool live_settings::join_network(std::string_view parameters) {
  const auto now = current();
  auto next = with_network_parameters(*now, machine_, parameters);
  if (!next) {
    log::warn("config", "network-parameters-refused why=\"{}\"", problem_of(next.error()).message);
    return false;
  }
  const auto taken = neuroshard::network_parameters(*next);
  if (taken == neuroshard::network_parameters(*now))
    return false;
  log::info("config", "network-parameters {}", taken);
  const std::lock_guard hold(guard_);
  current_ = std::make_shared<const node_config>(std::move(*next));
  return true;
}

void live_settings::reload(const start_result<loaded_config>& fresh) {
  if (!fresh) {
    log::error("config", "reload-refused why=\"{}\"", fresh.error().line);
    return;
  }
  auto next = *current();
  auto wanted = fresh->config;
  if (in_cohort_) // what the network has in common stays
    if (auto kept = with_network_parameters(wanted, machine_, neuroshard::network_parameters(next)))
      wanted = std::move(*kept);
  const auto outcome = apply_reload(next, wanted);
  for (const auto& key : outcome.applied)
    log::info("config", "reloaded key={}", key);
  for (const auto& key : outcome.needs_restart)
    log::warn("config", "needs-restart key={}", key);
  replace(std::move(next));
}

} // namespace neuroshard
