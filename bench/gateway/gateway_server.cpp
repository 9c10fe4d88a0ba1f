#include "actors/identity/token.hpp"
#include "actors/rate_limiter/rate_limiter.hpp"
#include "gateway/config/logging.hpp"
#include "gateway/http/bridge.hpp"
#include "gateway/http/server.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/send.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

/// The HTTP gateway of an idle node for gateway_bench: the real server with all its middlewares, a rate
/// limiter with its limits off, and a snapshot that telemetry would publish once a second.
///
/// With LOG_FILE it logs as a node does, its requests included.
///
///   gateway_server PORT THREADS TOKEN [STATUS_LIMIT [LOG_FILE]]
namespace {

using namespace neuroshard;

node_snapshot idle_node() {
  node_snapshot s;
  s.uptime_s = 1;
  s.state = node_state::running;
  s.identity = {std::string(32, '0'),
                "0x" + std::string(40, 'a'),
                "0.1.0",
                std::string(16, '1'),
                "pico",
                6,
                256,
                308'800'000,
                2048};
  s.roles = {node_role::driver, node_role::validator, node_role::worker};
  for (uint32_t i = 0; i < 6; ++i)
    s.layers.push_back({i, "transformer", 3, "active"});
  s.layers.push_back({0, "embedding", 16, "active"});
  s.layers.push_back({6, "lm_head", 16, "active"});
  s.serving_hash = std::string(64, 'e');
  s.training = std::make_shared<training_progress>();
  s.peers = std::make_shared<peer_list>();
  s.ram_total = 16ULL << 30;
  return s;
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: gateway_server PORT THREADS TOKEN [STATUS_LIMIT [LOG_FILE]]\n");
    return 1;
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  caf::actor_system_config config;
  config.add_message_types<caf::id_block::neuroshard_common>();
  config.add_message_types<caf::id_block::neuroshard_status>();
  config.add_message_types<caf::id_block::neuroshard_rate_limiter>();
  config.add_message_types<caf::id_block::neuroshard_http>();
  config.set("scheduler.max-threads", 1);
  caf::actor_system system(config);

  http::server_settings settings;
  settings.port = static_cast<uint16_t>(std::atoi(argv[1]));
  settings.threads = static_cast<size_t>(std::atoi(argv[2]));
  settings.rates = {argc > 4 ? static_cast<uint32_t>(std::atoi(argv[4])) : 0, 0, 0, 0, 0};
  settings.access_log = argc > 5;
  log_options log_to;
  log_to.file = argc > 5 ? argv[5] : "";
  log_to.to_stderr = false;
  const auto log = logging::start(log_to);
  if (!log) {
    std::fprintf(stderr, "%s\n", log.error().line.c_str());
    return 2;
  }
  http::node_services services;
  services.system = &system;
  services.board = std::make_shared<snapshot_board>(idle_node());
  services.counters = std::make_shared<node_counters>();
  services.rate_limiter.set(system.spawn(rate_limiter, settings.rates, system_time()));
  const auto token = parse_token(argv[3]);
  if (!token) {
    std::fprintf(stderr, "not a token\n");
    return 1;
  }
  services.tokens.push_back({token_digest(*token), http::all_scopes});
  {
    http::server server(settings, services);
    if (const caf::error why = server.start()) {
      std::fprintf(stderr, "%s\n", problem_of(why).message.c_str());
      return 2;
    }
    std::printf("listening\n");
    std::fflush(stdout);
    const timespec second{1, 0};
    while (sigtimedwait(&stop, nullptr, &second) < 0) {
      node_snapshot next = *services.board->read();
      ++next.uptime_s;
      services.board->publish(std::make_shared<const node_snapshot>(std::move(next)));
    }
    server.stop(1000);
  }
  caf::anon_send_exit(services.rate_limiter.get(), caf::exit_reason::user_shutdown);
  services = {};
}
