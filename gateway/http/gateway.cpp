#include "gateway/http/gateway.hpp"

#include "actors/common/log.hpp"
#include "gateway/http/errors.hpp"
#include "gateway/http/router.hpp"

namespace neuroshard::http {

namespace {

void count(node_counters::counter& c) {
  c.fetch_add(1, std::memory_order_relaxed);
}

} // namespace

gateway::gateway(const server_settings& s, node_services services, size_t lanes)
    : settings(s), node(std::move(services)), asker(*node.system), rates(s.rates),
      generations(std::make_shared<generation_desk>(s.limits)), tokens_(node.tokens),
      proxies_(s.trusted_proxies), cors_(s.cors_origins),
      plain_ok_(s.allow_plain_http || is_loopback_host(s.host) || !s.tls_cert.empty()),
      access_log_(s.access_log) {
  if (!node.counters)
    node.counters = std::make_shared<node_counters>();
  for (size_t i = 0; i < lanes; ++i)
    lanes_.push_back(std::make_unique<per_lane>(*node.random));
}

gateway::~gateway() {
  reader.stop();
  generations->clear();
}

response gateway::cached(const exchange& x, page which, std::string (*render)(const node_snapshot&)) {
  auto& entry = lanes_[x.link.home()->index()]->pages[static_cast<size_t>(which)];
  node_snapshot_ptr now = node.board->read();
  if (entry.of != now) {
    entry.body = std::make_shared<const std::string>(render(*now));
    entry.of = std::move(now);
  }
  response r;
  r.shared_body = entry.body;
  return r;
}

task<caf::expected<admit_verdict>> gateway::admit(const exchange& x, limit_class of, bool peek) {
  admit_request question;
  question.identity = budget_identity(x, of);
  question.of = of;
  question.peek = peek;
  return ask_actor<admit_verdict>(x, node.rate_limiter, std::move(question));
}

task<caf::error> gateway::authenticate(exchange& x, const route& to) {
  if (to.auth == auth_mode::none)
    co_return caf::error();
  const auth_finding found = tokens_.look(x);
  if (found == auth_finding::known || (found == auth_finding::anonymous && to.auth == auth_mode::optional))
    co_return check_access(x, to.auth, to.needed, plain_ok_);
  count(node.counters->auth_failures);
  // Guesses, and requests that bring no token where one is needed, spend a budget of their own; it is asked
  // before anything is computed for them.
  if (rates.limited(limit_class::auth_failures)) {
    const auto verdict = co_await admit(x, limit_class::auth_failures, false);
    if (!verdict)
      co_return verdict.error();
    if (!verdict->allowed)
      co_return over_limit(*verdict);
  }
  if (found == auth_finding::words) {
    const std::string words(*token_authority::bearer(x.in.header("Authorization")));
    // Named: g++ 12 destroys a closure that is a temporary of a co_await expression twice.
    const auto derive = [this, words] { return caf::expected<const known_token*>(tokens_.derive(words)); };
    const auto derived = co_await run_blocking<const known_token*>(reader, x.link.home(), derive);
    if (!derived)
      co_return derived.error();
    x.who.token = *derived;
    if (x.who.token)
      co_return check_access(x, to.auth, to.needed, plain_ok_);
  }
  co_return unauthorized();
}

task<response> gateway::answer(exchange& x) {
  proxies_.find_client(x);
  cors_.apply(x);
  if (x.malformed && !x.header_whole)
    co_return error_response(errc::invalid_request, *x.malformed, x.request_id);
  const route_match match = find_route(x.in.method, x.in.path);
  if (!match.to) {
    if (x.malformed)
      co_return error_response(errc::invalid_request, *x.malformed, x.request_id);
    response out;
    if (x.in.method == verb::options && cors_.preflight(x, match.allow, out))
      co_return out;
    out = not_found("path", x.in.path.substr(0, 256), x.request_id);
    if (!match.allow.empty())
      add_header_line(out.headers, "Allow", match.allow);
    co_return out;
  }
  const route& to = *match.to;
  const caf::error refused = co_await authenticate(x, to);
  if (rates.limited(to.of)) {
    // A request that is refused already spends nothing of its class, but says how much there is.
    const auto verdict = co_await admit(x, to.of, static_cast<bool>(refused));
    if (!verdict)
      co_return error_response(refused ? refused : verdict.error(), x.request_id);
    add_rate_headers(x, *verdict);
    if (!refused && !verdict->allowed)
      co_return error_response(over_limit(*verdict), x.request_id);
  }
  // What is no valid request is answered with 400 (RFC 9112, 3.2), or with the news that a budget is spent.
  if (x.malformed && (!refused || code_of(refused) != errc::rate_limited))
    co_return error_response(errc::invalid_request, *x.malformed, x.request_id);
  if (refused)
    co_return error_response(refused, x.request_id);
  if (to.work && draining.load(std::memory_order_relaxed))
    co_return error_response(refuse(errc::draining, "The node is shutting down."), x.request_id);
  if (to.plain)
    co_return to.plain(*this, x);
  co_return co_await to.waiting(*this, x);
}

task<response> gateway::serve(exchange& x) {
  count(node.counters->http_requests);
  x.request_id = lanes_[x.link.home()->index()]->ids.next(x.in.header("X-Request-Id"));
  response out;
  try {
    out = co_await answer(x);
  } catch (const std::exception& e) {
    // Only a lack of memory, or a bug, comes here; the details stay in the log.
    log::error("http", "handler-failed path={} id={} what={}", x.in.path, x.request_id, e.what());
    out = error_response(refuse(errc::internal, "The request failed inside the node."), x.request_id);
  }
  if (out.status == 500)
    count(node.counters->http_errors);
  if (out.status == 429)
    count(node.counters->rate_limited);
  co_return out;
}

response gateway::refuse_connection(exchange& x) {
  x.request_id = lanes_[x.link.home()->index()]->ids.next({});
  count(node.counters->http_errors);
  return error_response(refuse(errc::overloaded, "Too many connections."), x.request_id);
}

bool gateway::logs_access() const noexcept {
  return access_log_.load(std::memory_order_relaxed) && log::enabled(log::level::info);
}

void gateway::note_access(const exchange& x, const access_record& line) {
  lanes_[x.link.home()->index()]->log.note(line, node.clock->steady_us() / 1'000'000);
}

} // namespace neuroshard::http
