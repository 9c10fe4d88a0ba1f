#include <utility> // before Boost 1.74's awaitable.hpp, which lacks it

#include "gateway/http/server.hpp"

#include "actors/common/log.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/session.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

namespace neuroshard::http {

namespace asio = boost::asio;
using asio::ip::tcp;

struct server::impl {
  impl(server_settings s, node_services services)
      : settings(std::move(s)), shared(settings, std::move(services), std::max<size_t>(settings.threads, 1)) {
  }

  caf::error open_tls();
  caf::error listen();
  void accept();
  void accepted(const std::shared_ptr<io_lane>& home, tcp::socket socket);
  void close_listener();

  server_settings settings;
  gateway shared;
  server_counts counts;
  std::vector<std::shared_ptr<io_lane>> lanes;
  std::optional<asio::ssl::context> tls;
  std::optional<tcp::acceptor> listener; ///< of lanes[0]
  size_t next_lane = 0;
  uint16_t port = 0;
  bool running = false;
};

caf::error server::impl::open_tls() {
  if (settings.tls_cert.empty() && settings.tls_key.empty())
    return caf::none;
  tls.emplace(asio::ssl::context::tls_server);
  boost::system::error_code ec;
  tls->set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                       asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                       asio::ssl::context::no_tlsv1_1,
                   ec);
  std::string part = "certificate " + settings.tls_cert;
  if (!ec)
    tls->use_certificate_chain_file(settings.tls_cert, ec);
  if (!ec) {
    part = "key " + settings.tls_key;
    tls->use_private_key_file(settings.tls_key, asio::ssl::context::pem, ec);
  }
  if (!ec)
    return caf::none;
  problem what;
  what.message = fmt::format("The TLS {} cannot be used: {}.", part, ec.message());
  what.field = "api.tls";
  what.reason = "bad_tls";
  return refuse(errc::invalid_request, std::move(what));
}

caf::error server::impl::listen() {
  boost::system::error_code ec;
  const auto address = asio::ip::make_address(settings.host == "localhost" ? "127.0.0.1" : settings.host, ec);
  const auto failed = [&](const char* reason) {
    problem what;
    what.message =
        fmt::format("Cannot listen on {} port {}: {}.", settings.host, settings.port, ec.message());
    what.field = "port";
    what.reason = reason;
    listener.reset();
    return refuse(errc::unavailable, std::move(what));
  };
  if (ec)
    return failed("bind_failed");
  const tcp::endpoint at(address, settings.port);
  listener.emplace(lanes[0]->context());
  listener->open(at.protocol(), ec);
  if (!ec)
    listener->set_option(tcp::acceptor::reuse_address(true), ec); // a socket in TIME_WAIT is no obstacle
  if (!ec)
    listener->bind(at, ec);
  if (!ec)
    listener->listen(asio::socket_base::max_listen_connections, ec);
  if (ec)
    return failed(ec == asio::error::address_in_use ? "port_in_use" : "bind_failed");
  port = listener->local_endpoint(ec).port();
  return caf::none;
}

void server::impl::accept() {
  if (!listener)
    return;
  const auto home = lanes[next_lane++ % lanes.size()];
  listener->async_accept(home->context(),
                         [this, home](const boost::system::error_code& ec, tcp::socket socket) {
                           if (ec == asio::error::operation_aborted)
                             return;
                           if (ec) {
                             // Out of descriptors, most likely; they come back when connections end.
                             log::warn("http", "accept-failed why={}", ec.message());
                             lanes[0]->after(100, [this] { accept(); });
                             return;
                           }
                           accepted(home, std::move(socket));
                           accept();
                         });
}

void server::impl::accepted(const std::shared_ptr<io_lane>& home, tcp::socket socket) {
  static constexpr size_t refusals_max = 64; // connections beyond the limit that are told so
  const size_t open = counts.connections.load(std::memory_order_relaxed);
  if (open >= settings.limits.connections + refusals_max)
    return;
  const bool refused = open >= settings.limits.connections;
  auto made = tls ? make_tls_session(home, std::move(socket), *tls, refused)
                  : make_plain_session(home, std::move(socket), refused);
  if (home == lanes[0])
    home->add(made);
  else
    home->post([home, made] { home->add(made); });
}

void server::impl::close_listener() {
  boost::system::error_code ec;
  if (listener)
    listener->close(ec);
}

server::server(server_settings settings, node_services services)
    : impl_(std::make_unique<impl>(std::move(settings), std::move(services))) {}

server::~server() {
  stop(0);
}

caf::error server::start() {
  impl& me = *impl_;
  if (auto failed = me.open_tls())
    return failed;
  for (size_t i = 0; i < std::max<size_t>(me.settings.threads, 1); ++i)
    me.lanes.push_back(std::make_shared<io_lane>(i, me.shared, me.counts));
  if (auto failed = me.listen()) {
    for (const auto& l : me.lanes)
      l->stop();
    me.lanes.clear();
    return failed;
  }
  // Deadlines are looked at often enough for the shortest of them.
  const server_limits& l = me.settings.limits;
  const int64_t shortest =
      std::min({l.header_ms, l.body_ms, l.idle_ms, l.write_ms, l.delivered_ms, l.linger_ms});
  for (const auto& lane : me.lanes)
    lane->run(std::clamp<int64_t>(shortest / 4, 10, 500));
  me.running = true;
  me.lanes[0]->post([&me] { me.accept(); });
  log::info("http", "listening host={} port={} threads={} tls={}", me.settings.host, me.port, me.lanes.size(),
            me.tls.has_value());
  return caf::none;
}

uint16_t server::port() const {
  return impl_->port;
}
void server::set_rates(const rate_limits& rates) {
  impl_->shared.rates.set(rates);
}
void server::set_access_log(bool on) {
  impl_->shared.set_access_log(on);
}
void server::drain() {
  impl_->shared.draining.store(true, std::memory_order_relaxed);
}
size_t server::in_flight() const {
  return impl_->counts.in_flight.load(std::memory_order_relaxed);
}

bool server::stop(int64_t patience_ms) {
  impl& me = *impl_;
  if (!std::exchange(me.running, false))
    return true;
  drain();
  me.lanes[0]->post([&me] { me.close_listener(); });
  for (const auto& lane : me.lanes)
    lane->post([lane] { lane->shut_all(true); });
  const auto wait_until = [](int64_t due, const auto& done) {
    while (!done() && steady_ms() < due)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return done();
  };
  const int64_t due = steady_ms() + patience_ms;
  const bool clean = wait_until(due, [&] { return in_flight() == 0; });
  // What is answered may still be on its way through the sockets.
  wait_until(std::min(due, steady_ms() + 500), [&] { return me.counts.connections.load() == 0; });
  for (const auto& lane : me.lanes)
    lane->post([lane] { lane->shut_all(false); });
  wait_until(steady_ms() + 500, [&] { return me.counts.connections.load() == 0; });
  for (const auto& lane : me.lanes)
    lane->join();
  me.listener.reset();
  for (const auto& lane : me.lanes)
    lane->stop();
  log::info("http", "stopped clean={}", clean);
  return clean;
}

} // namespace neuroshard::http
