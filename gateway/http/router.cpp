#include "gateway/http/router.hpp"

#include "gateway/http/handlers/handlers.hpp"

#include <unordered_map>
#include <vector>

namespace neuroshard::http {

namespace {

constexpr const char* assets_path = "/assets/*";

const route table[] = {
    {verb::get, "/api/v1/status", auth_mode::optional, scope::read, limit_class::status, false, get_status},
    {verb::get, "/api/v1/metrics", auth_mode::optional, scope::read, limit_class::status, false, get_metrics},
    {verb::get, "/metrics", auth_mode::optional, scope::read, limit_class::status, false,
     get_prometheus_metrics},
    {verb::get, "/", auth_mode::none, scope::read, limit_class::status, false, get_dashboard},
    {verb::get, assets_path, auth_mode::none, scope::read, limit_class::status, false, get_asset},
    {verb::get, "/api/v1/health", auth_mode::none, scope::read, limit_class::health, false, get_health},
    {verb::get, "/api/v1/network", auth_mode::optional, scope::read, limit_class::status, false, get_network},
    {verb::post, "/api/v1/inference", auth_mode::required, scope::inference, limit_class::inference, true,
     nullptr, post_inference},
    {verb::get, "/api/v1/peers", auth_mode::required, scope::read, limit_class::status, false, get_peers},
    {verb::get, "/api/v1/layers", auth_mode::required, scope::read, limit_class::status, false, get_layers},
    {verb::get, "/api/v1/proofs", auth_mode::required, scope::read, limit_class::status, false, nullptr,
     get_proofs},
    {verb::get, "/api/v1/config", auth_mode::required, scope::read, limit_class::status, false, get_config},
    {verb::patch, "/api/v1/config", auth_mode::required, scope::admin, limit_class::status, true, nullptr,
     patch_config},
    {verb::get, "/api/v1/wallet/balance", auth_mode::required, scope::read, limit_class::wallet, false,
     nullptr, get_balance},
    {verb::post, "/api/v1/wallet/send", auth_mode::required, scope::wallet, limit_class::wallet, true,
     nullptr, post_send},
    {verb::get, "/api/v1/wallet/transactions", auth_mode::required, scope::read, limit_class::wallet, false,
     nullptr, get_transactions},
    {verb::post, "/api/v1/wallet/stake", auth_mode::required, scope::wallet, limit_class::wallet, true,
     nullptr, post_stake},
    {verb::post, "/api/v1/wallet/stake/add", auth_mode::required, scope::wallet, limit_class::wallet, true,
     nullptr, post_stake_add},
    {verb::post, "/api/v1/wallet/stake/extend", auth_mode::required, scope::wallet, limit_class::wallet, true,
     nullptr, post_stake_extend},
    {verb::post, "/api/v1/wallet/unstake", auth_mode::required, scope::wallet, limit_class::wallet, true,
     nullptr, post_unstake},
    {verb::get, "/api/v1/stake/info", auth_mode::required, scope::read, limit_class::wallet, false, nullptr,
     get_stake_info},
    {verb::get, "/api/v1/wallet/stake", auth_mode::required, scope::read, limit_class::wallet, false, nullptr,
     get_stake_info},
    {verb::get, "/api/v1/wallet/rewards", auth_mode::required, scope::read, limit_class::wallet, false,
     nullptr, get_rewards},
    {verb::get, "/api/v1/rewards", auth_mode::required, scope::read, limit_class::wallet, false, nullptr,
     get_rewards},
    {verb::get, "/api/v1/wallet/reward-rate", auth_mode::required, scope::read, limit_class::wallet, false,
     nullptr, get_reward_rate},
    {verb::get, "/api/training/global", auth_mode::optional, scope::read, limit_class::status, false,
     get_training_global},
    {verb::get, "/api/v1/training/global", auth_mode::optional, scope::read, limit_class::status, false,
     get_training_global},
    {verb::get, "/api/training/verify", auth_mode::optional, scope::read, limit_class::status, false,
     get_training_verify},
    {verb::get, "/api/v1/training/verify", auth_mode::optional, scope::read, limit_class::status, false,
     get_training_verify},
};

using path_index = std::unordered_map<std::string_view, std::vector<const route*>>;

const path_index& routes_by_path() {
  static const path_index index = [] {
    path_index made;
    for (const route& r : table)
      made[r.path].push_back(&r);
    return made;
  }();
  return index;
}

} // namespace

route_match find_route(verb method, std::string_view path) {
  route_match match;
  const auto at = routes_by_path().find(path.starts_with("/assets/") ? assets_path : path);
  if (at == routes_by_path().end())
    return match;
  const verb wanted = method == verb::head ? verb::get : method;
  for (const route* r : at->second)
    if (r->method == wanted) {
      match.to = r;
      return match;
    }
  for (const route* r : at->second) {
    if (!match.allow.empty())
      match.allow += ", ";
    match.allow += r->method == verb::get ? "GET, HEAD" : to_string(r->method);
  }
  return match;
}

} // namespace neuroshard::http
