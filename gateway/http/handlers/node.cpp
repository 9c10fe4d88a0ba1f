#include "gateway/http/errors.hpp"
#include "gateway/http/gateway.hpp"
#include "gateway/http/handlers/handlers.hpp"
#include "gateway/http/query.hpp"
#include "gateway/http/snapshot_pages.hpp"

#include <algorithm>
#include <charconv>

namespace neuroshard::http {

namespace {

/// Whether an Accept header prefers text/plain over JSON. Only what is named counts: `*/*` gets JSON.
bool prefers_plain_text(std::string_view accept) noexcept {
  double plain = 0, json = 0;
  while (!accept.empty()) {
    const size_t comma = accept.find(',');
    std::string_view part = accept.substr(0, comma);
    accept = comma == std::string_view::npos ? std::string_view() : accept.substr(comma + 1);
    double quality = 1;
    const size_t semicolon = part.find(';');
    const std::string_view type = trimmed(part.substr(0, semicolon));
    if (semicolon != std::string_view::npos)
      if (const size_t q = part.find("q=", semicolon); q != std::string_view::npos)
        std::from_chars(part.data() + q + 2, part.data() + part.size(), quality);
    if (equal_ignoring_case(type, "text/plain") || equal_ignoring_case(type, "text/*"))
      plain = std::max(plain, quality);
    if (equal_ignoring_case(type, "application/json") || equal_ignoring_case(type, "application/*"))
      json = std::max(json, quality);
  }
  return plain > json;
}

} // namespace

response get_status(gateway& g, exchange& x) {
  return g.cached(x, page::status, render_status);
}

response get_prometheus_metrics(gateway& g, exchange& x) {
  response r = g.cached(x, page::prometheus, render_prometheus);
  r.content_type = "text/plain; version=0.0.4; charset=utf-8";
  return r;
}

response get_metrics(gateway& g, exchange& x) {
  if (prefers_plain_text(x.in.joined_header("Accept")))
    return get_prometheus_metrics(g, x);
  return g.cached(x, page::metrics, render_metrics);
}

response get_health(gateway& g, exchange& x) {
  query_reader query(x.in.query);
  const bool strict = query.boolean("strict", false);
  if (query.failed())
    return error_response(query.complaint(), x.request_id);
  if (strict)
    if (const node_snapshot_ptr now = g.node.board->read(); !now->healthy()) {
      response r;
      r.status = 500;
      json_writer out;
      out.begin()
          .key("error")
          .begin()
          .put("code", "INTERNAL_ERROR")
          .put("message", "The node is not healthy.");
      out.key("details").begin().put("reason", "unhealthy").put("request_id", x.request_id);
      out.key("checks").raw(render_checks(*now)).end().end().end();
      r.body = out.take();
      return r;
    }
  return g.cached(x, page::health, render_health);
}

response get_network(gateway& g, exchange& x) {
  return g.cached(x, page::network, render_network);
}

response get_peers(gateway& g, exchange& x) {
  return g.cached(x, page::peers, render_peers);
}

response get_layers(gateway& g, exchange& x) {
  return g.cached(x, page::layers, render_layers);
}

} // namespace neuroshard::http
