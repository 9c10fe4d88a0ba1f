#pragma once

#include "gateway/http/server.hpp"
#include "tests/gateway/http/http_client.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/test.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard::test {

/// The 64 hex digits of the wallet token of all tests, and further tokens with one scope each.
extern const std::string wallet_token;
extern const std::string read_token;
extern const std::string inference_token;
std::string bearer(const std::string& token = wallet_token);

/// What a scripted scheduler has seen, and how it answers. Thread safe.
class scheduler_script {
public:
  /// How a request is admitted; unset: under the id "inf_" + its number as 24 hex digits, 5 prompt tokens.
  std::function<caf::expected<generation_admitted>(const generation_request&, const std::string& id)> admit;
  /// Runs after admission, on the actor's thread; unset: the test drives the sink.
  std::function<void(const generation_request&, const std::string& id)> run;

  /// The nth request, once it is there.
  generation_request wait_for(size_t index);
  std::string id_of(size_t index) const;
  size_t count();
  bool wait_cancelled(const std::string& id, int patience_ms = 5000);
  size_t cancelled_count();
  /// Whether its cancellation said that its caller never knew of it.
  bool was_unheard(const std::string& id);

  caf::expected<generation_admitted> on_request(const generation_request& r);
  void on_cancel(const cancel_generation& c);

private:
  std::mutex guard_;
  std::condition_variable changed_;
  std::vector<generation_request> requests_;
  std::vector<std::string> cancelled_, unheard_;
};

/// A finished result with the numbers of the specification's example.
generation_result finished(const std::string& id, std::string text);

/// What a scripted ledger has been asked.
class ledger_script {
public:
  struct entry {
    std::optional<request_mark> mark;
    std::string what;
  };
  std::mutex guard;
  std::condition_variable changed;
  std::vector<send_neuro> sends;
  std::vector<stake_neuro> stakes;
  std::vector<add_stake> additions;
  std::vector<extend_stake> extensions;
  std::vector<unstake_neuro> unstakes;
  std::vector<keep_response> kept;
  std::vector<int64_t> delivered;
  std::optional<caf::error> refuse_with; ///< answers every move with this
  bool wait_delivered(int64_t row, int patience_ms = 5000);
};

/// A running server with a real rate limiter, a scripted scheduler and a scripted ledger. Settings and
/// services may be changed before `start`.
struct node_fixture {
  node_fixture();
  ~node_fixture();

  void start();
  void publish(const std::function<void(node_snapshot&)>& change);
  client connect(bool tls = false) { return client(server->port(), tls); }
  /// One request on a connection of its own.
  reply get(std::string_view target, const std::string& headers = bearer());
  reply post(std::string_view target, std::string_view body, const std::string& headers = bearer());

  caf::actor_system_config caf_config;
  std::unique_ptr<caf::actor_system> system;
  http::server_settings settings;
  http::node_services services;
  std::shared_ptr<manual_clock> limiter_clock;
  std::shared_ptr<scheduler_script> scheduler = std::make_shared<scheduler_script>();
  std::shared_ptr<ledger_script> ledger = std::make_shared<ledger_script>();
  std::shared_ptr<node_config> config = std::make_shared<node_config>();
  std::unique_ptr<http::server> server;
};

} // namespace neuroshard::test
