#pragma once

#include "gateway/http/exchange.hpp"
#include "gateway/http/task.hpp"

/// All endpoints, one file per resource. A handler parses, calls, renders; what can be tested alone lives
/// elsewhere.
namespace neuroshard::http {

class gateway;

// node.cpp
response get_status(gateway& g, exchange& x);
response get_metrics(gateway& g, exchange& x);            ///< JSON or, by Accept, Prometheus text
response get_prometheus_metrics(gateway& g, exchange& x); ///< always Prometheus text
response get_health(gateway& g, exchange& x);
response get_network(gateway& g, exchange& x);
response get_peers(gateway& g, exchange& x);
response get_layers(gateway& g, exchange& x);

// proofs.cpp
task<response> get_proofs(gateway& g, exchange& x);

// pages.cpp
response get_dashboard(gateway& g, exchange& x);
response get_asset(gateway& g, exchange& x);

// config.cpp
response get_config(gateway& g, exchange& x);
task<response> patch_config(gateway& g, exchange& x);

// inference.cpp
task<response> post_inference(gateway& g, exchange& x);

// wallet.cpp
task<response> get_balance(gateway& g, exchange& x);
task<response> get_transactions(gateway& g, exchange& x);
task<response> get_stake_info(gateway& g, exchange& x);
task<response> get_rewards(gateway& g, exchange& x);
task<response> get_reward_rate(gateway& g, exchange& x);

// wallet_moves.cpp
task<response> post_send(gateway& g, exchange& x);
task<response> post_stake(gateway& g, exchange& x);
task<response> post_stake_add(gateway& g, exchange& x);
task<response> post_stake_extend(gateway& g, exchange& x);
task<response> post_unstake(gateway& g, exchange& x);

// training.cpp
response get_training_global(gateway& g, exchange& x);
response get_training_verify(gateway& g, exchange& x);

} // namespace neuroshard::http
