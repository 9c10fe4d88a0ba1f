#pragma once

#include "gateway/http/access_log.hpp"
#include "gateway/http/blocking.hpp"
#include "gateway/http/bridge.hpp"
#include "gateway/http/exchange.hpp"
#include "gateway/http/generations.hpp"
#include "gateway/http/middlewares/auth.hpp"
#include "gateway/http/middlewares/client_address.hpp"
#include "gateway/http/middlewares/cors.hpp"
#include "gateway/http/middlewares/rate_limit.hpp"
#include "gateway/http/middlewares/request_id.hpp"
#include "gateway/http/server.hpp"
#include "gateway/http/task.hpp"
#include "gateway/http/unsettled.hpp"

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::http {

struct route;

/// Bodies that are the same for everyone until telemetry publishes the next snapshot.
enum class page : uint8_t {
  status,
  metrics,
  prometheus,
  health,
  network,
  peers,
  layers,
  training_global,
  training_verify
};
inline constexpr size_t page_count = 9;

/// What all handlers share: the node's services, the middlewares, the caches. Knows no socket. Made by the
/// server, which calls `serve` on a lane for every request.
class gateway {
public:
  gateway(const server_settings& settings, node_services services, size_t lanes);

  ~gateway();

  /// Takes one request through request id, CORS, routing, authentication, rate limits and its handler. Never
  /// fails: whatever goes wrong is a response. A malformed one whose header is whole spends budgets like any
  /// other; its connection is closed after it.
  task<response> serve(exchange& x);
  /// The answer to a connection beyond the limit.
  response refuse_connection(exchange& x);

  /// Whether anybody reads of finished requests.
  bool logs_access() const noexcept;
  void set_access_log(bool on) noexcept { access_log_.store(on, std::memory_order_relaxed); }
  void note_access(const exchange& x, const access_record& line);

  /// A body made by `render` once per snapshot and lane.
  response cached(const exchange& x, page which, std::string (*render)(const node_snapshot&));
  /// Asks an actor, with the gateway's patience.
  template <class Reply, class Handle, class... Ts>
  task<caf::expected<Reply>> ask_actor(const exchange& x, const actor_slot<Handle>& of, Ts... message) {
    return ask<Reply>(asker, x.link.home(), of.get(), settings.limits.actor_ms, std::move(message)...);
  }

  const server_settings& settings;
  node_services node;
  bridge asker;
  blocking_worker reader;
  shared_rates rates;
  std::atomic<bool> draining{false};
  const std::shared_ptr<generation_desk> generations;
  unsettled_responses unsettled;

private:
  struct per_lane {
    explicit per_lane(random_source& random) : ids(random) {}
    request_ids ids;
    access_log log;
    struct entry {
      node_snapshot_ptr of;
      shared_text body;
    };
    std::array<entry, page_count> pages;
  };

  task<response> answer(exchange& x);
  task<caf::error> authenticate(exchange& x, const route& to);
  task<caf::expected<admit_verdict>> admit(const exchange& x, limit_class of, bool peek);

  token_authority tokens_;
  trusted_proxies proxies_;
  cors_policy cors_;
  bool plain_ok_;
  std::atomic<bool> access_log_;
  std::vector<std::unique_ptr<per_lane>> lanes_;
};

} // namespace neuroshard::http
