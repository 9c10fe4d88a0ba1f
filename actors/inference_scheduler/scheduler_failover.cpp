// Calls and rows that fail. What fails here is tried again here; what fails at another node goes on over
// another route: a new session, the whole route prefilled with prompt and produced tokens (spec/grpc-api.md
// section 4, "Rebuild"; spec/network.md section 4).
#include "actors/common/log.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"
#include "actors/relay/route_hops.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr uint32_t refused_calls_max = 3; ///< for the time being refused, in a row
constexpr auto retry_delay = std::chrono::milliseconds(50);
constexpr uint32_t rebuilds_max = 3;
constexpr uint32_t replacements_max = 3; ///< of a hop, without a token and without a pause
constexpr uint32_t patience_max = 16;
constexpr int64_t pause_us_min = 250'000, pause_us_max = 5'000'000; ///< between looks for a route
constexpr auto route_timeout = std::chrono::seconds(10);
constexpr int64_t close_budget_us = 5'000'000; ///< over other nodes; a session that stays ends by itself

std::string detail_of(const problem& what, const char* name) {
  for (const auto& [key, value] : what.details)
    if (const auto* text = std::get_if<std::string>(&value); text != nullptr && key == name)
      return *text;
  return {};
}

/// The place of the node in the route that a failed call is laid to; nothing: this node. A failed hop that is
/// not on the route, or is the driver itself, is the word of the one behind it.
std::optional<size_t> place_of_failure(const model_route& route, const problem& what) {
  const auto named = detail_of(what, "failed_hop");
  if (named.empty())
    return std::nullopt;
  std::optional<size_t> nearest;
  for (size_t i = 0; i < route.hops.size(); ++i) {
    if (route.hops[i].node_id == named && !(route.hops[i].local && i == 0))
      return route.hops[i].local ? std::nullopt : std::optional(i);
    if (!route.hops[i].local && !nearest)
      nearest = i;
  }
  return nearest;
}

/// Which hop a failure is laid to. A hop that refuses what it was sent may have been sent it wrongly, and one
/// that there was no time for is not the slow one: first the hop before it is replaced. One that was late may
/// have waited for the next: when its replacement is late too, it is that one. Nothing: this node.
std::optional<size_t> culprit_of(const generation& g, size_t place, const caf::error& why) {
  const auto& hops = g.route.hops;
  const auto replaced = [&](size_t hop) { return g.hop_failures.contains(hops[hop].layer_begin); };
  const bool no_time = code_of(why) == errc::timeout && problem_of(why).reason == "budget";
  if (place > 0 && (no_time || code_of(why) == errc::invalid_request)) {
    if (hops[place - 1].local)
      return no_time ? std::nullopt : std::optional(place);
    return replaced(place - 1) ? place : place - 1;
  }
  if (code_of(why) == errc::timeout)
    while (place + 1 < hops.size() && replaced(place) && !hops[place + 1].local)
      ++place;
  return place;
}

bool newer_weights(const caf::error& why) {
  return code_of(why) == errc::failed_precondition && problem_of(why).reason == "model_version";
}

caf::error weights_gone() {
  return refuse(errc::aborted, "the weights of this generation are no longer served");
}

} // namespace

// ------------------------------------------------------------------------------------------- what is told

void inference_scheduler_state::hops_answered(const model_route& route, const routed_forward_reply& reply,
                                              request_class what, int64_t sent_us, uint32_t positions) {
  const int64_t now_us = parts.time->steady_us();
  for (auto& outcome : watch.answered(route, reply.hops, what, now_us - sent_us, positions, now_us))
    if (parts.peers)
      self->send(parts.peers, std::move(outcome));
}

void inference_scheduler_state::hops_failed(const failed_nodes& nodes, request_class what) {
  for (const auto& node : nodes)
    if (parts.peers)
      self->send(parts.peers, hop_outcome{node, what, 0, true});
}

// ------------------------------------------------------------------------------------------------ failures

void inference_scheduler_state::call_failed(const std::vector<generation_ptr>& rows, const caf::error& why,
                                            request_class what) {
  const auto code = code_of(why);
  const bool newer = newer_weights(why);
  const auto place = place_of_failure(rows.front()->route, problem_of(why));
  failed_nodes failed;
  bool again_later = false;
  for (const auto& g : rows) {
    const auto culprit = place ? culprit_of(*g, *place, why) : std::nullopt;
    g->in_flight = false;
    if (g->stop_with) {
      if (culprit) {
        close_session(g, g->route.hops[*culprit].node_id);
        g->session_open = false;
      }
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    } else if (culprit) {
      const auto node = g->route.hops[*culprit].node_id;
      failed.insert(node);
      fail_over(g, node, why);
    } else if (newer && g->output.count() > 0) {
      finish(g, "error", weights_gone());
    } else if (newer && g->rebuilds < rebuilds_max) {
      // The weights were changed between admission and prefill; nothing of it has been computed on the old
      // ones.
      for (const auto& [key, value] : problem_of(why).details)
        if (const auto* version = std::get_if<int64_t>(&value); key == "model_version" && version != nullptr)
          set_route(*g, static_cast<uint64_t>(*version), g->route);
      if (g->route.hops.size() == 1) {
        rebuild(g, false);
      } else { // the other nodes must have them too
        close_session(g);
        ++g->rebuilds;
        renew_session(g);
        ask_route(g);
      }
    } else if ((code == errc::overloaded || code == errc::timeout) &&
               ++g->refused_calls <= refused_calls_max) {
      if (code == errc::timeout)
        g->patience = std::min(patience_max, 2 * g->patience);
      rebuild(g, false);
      again_later = true;
    } else {
      finish(g, "error", why);
    }
  }
  hops_failed(failed, what);
  leave_hops(failed);
  if (again_later)
    self->delayed_send(self, retry_delay, pump_atom_v); // the queue there needs a moment
  else
    pump();
}

void inference_scheduler_state::row_failed(const generation_ptr& g, row_status status,
                                           const std::string& node, failed_nodes& failed) {
  if (!node.empty()) {
    if (status != row_status::no_memory) // full is not unwell
      failed.insert(node);
    return fail_over(g, node,
                     status == row_status::no_memory
                         ? refuse(errc::overloaded, "a node has no memory for the keys and values")
                         : refuse(errc::not_found, "a node lost the session"));
  }
  switch (status) {
  case row_status::no_memory:
    // Another generation that ends gives its cache back; alone there is nothing to wait for.
    if (at_work() > 0 && g->rebuilds < rebuilds_max)
      return rebuild(g, true);
    return finish(g, "error",
                  refuse(errc::overloaded, "no memory for the keys and values of this generation"));
  case row_status::unknown_session:
  case row_status::cache_mismatch:
  case row_status::evicted:
    if (g->rebuilds < rebuilds_max)
      return rebuild(g, false);
    return finish(g, "error", refuse(errc::aborted, "the session of this generation was lost"));
  case row_status::ok:
    break;
  }
  finish(g, "error", refuse(errc::internal, "the layer worker's answer does not fit the request"));
}

void inference_scheduler_state::rebuild(const generation_ptr& g, bool needs_room) {
  close_session(g);
  ++g->rebuilds;
  renew_session(g);
  g->needs_room = needs_room;
  g->at = generation::stage::waiting;
  waiting.push_front(g);
}

void inference_scheduler_state::renew_session(const generation_ptr& g) {
  g->session_id = random_hex(*parts.random, 16);
  g->session_open = false;
  g->cached = 0;
  if (g->output.count() == 0)
    g->copy_id = 0; // nothing has been said yet: it may begin again with newer weights
}

// ------------------------------------------------------------------------------------------ another route

void inference_scheduler_state::fail_over(const generation_ptr& g, const std::string& node,
                                          const caf::error& why) {
  log::info(name, "failover id={} node={} tokens={} why=\"{}\"", g->id, node, g->output.count(),
            problem_of(why).message);
  close_session(g, node);
  renew_session(g);
  if (code_of(why) == errc::timeout)
    g->patience = std::min(patience_max, 2 * g->patience);
  if (newer_weights(why))
    g->version_gone = true;
  if (std::find(g->exclude.begin(), g->exclude.end(), node) == g->exclude.end())
    g->exclude.push_back(node);
  uint32_t failures = 0;
  for (const auto& hop : g->route.hops)
    if (hop.node_id == node)
      failures = ++g->hop_failures[hop.layer_begin];
  if (failures > replacements_max)
    wait_for_route(g, why);
  else
    ask_route(g);
}

/// Who waits for a place on a route over nodes that just failed looks for another one first.
void inference_scheduler_state::leave_hops(const failed_nodes& nodes) {
  if (nodes.empty())
    return;
  const auto concerns = [&](const generation_ptr& g) {
    return std::any_of(g->route.hops.begin(), g->route.hops.end(),
                       [&](const route_hop& hop) { return !hop.local && nodes.contains(hop.node_id); });
  };
  const auto from = std::stable_partition(waiting.begin(), waiting.end(),
                                          [&](const generation_ptr& g) { return !concerns(g); });
  const std::vector<generation_ptr> leaving(from, waiting.end());
  waiting.erase(from, waiting.end());
  for (const auto& g : leaving) {
    close_session(g);
    renew_session(g);
    g->exclude.insert(g->exclude.end(), nodes.begin(), nodes.end());
    ask_route(g);
  }
}

/// The next route is asked for at the version of this node's own weights, which must be those the generation
/// began with.
void inference_scheduler_state::ask_route(const generation_ptr& g) {
  g->at = generation::stage::routing;
  if (!parts.peers) // nobody knows another way: the same again, after a pause
    return wait_for_route(g, refuse(errc::no_route, "no other node is known"));
  g->route_asked = true;
  self->request(parts.worker, route_timeout, session_copy{})
      .then(
          [me = self, g](const serving_info& copy) {
            auto& state = me->state;
            if (g->at != generation::stage::routing)
              return;
            if (g->output.count() > 0 && copy.model_version != g->model_version)
              return state.finish(g, "error", weights_gone());
            const uint64_t version = copy.model_version;
            me->request(state.parts.peers, route_timeout,
                        route_request{version, g->exclude, request_class::decode})
                .then([me, g,
                       version](model_route& route) { me->state.new_route(g, version, std::move(route)); },
                      [me, g](const caf::error& e) { me->state.wait_for_route(g, e); });
          },
          [me = self, g](const caf::error& e) { me->state.wait_for_route(g, e); });
}

void inference_scheduler_state::wait_for_route(const generation_ptr& g, const caf::error& why) {
  g->route_asked = false;
  if (g->at == generation::stage::ending)
    return;
  if (g->version_gone && g->output.count() > 0 && code_of(why) == errc::no_route)
    return finish(g, "error", weights_gone());
  g->at = generation::stage::routing;
  if (code_of(why) == errc::no_route) {
    g->no_route = why;
    g->exclude.clear(); // they may be well again
  } else {
    auto what = problem_of(why);
    what.reason = "no_route";
    what.message = "no route through the model works: " + what.message;
    g->no_route = refuse(errc::no_route, std::move(what));
  }
  g->hop_failures.clear();
  g->version_gone = false;
  g->route_pause_us = std::clamp(2 * g->route_pause_us, pause_us_min, pause_us_max);
  g->route_again_us = parts.time->steady_us() + g->route_pause_us;
}

bool inference_scheduler_state::usable(const model_route& route) const {
  return !route.hops.empty() && (route.hops.front().local || parts.link);
}

void inference_scheduler_state::new_route(const generation_ptr& g, uint64_t model_version,
                                          model_route route) {
  if (g->at != generation::stage::routing)
    return;
  if (!usable(route))
    return wait_for_route(g, refuse(errc::no_route, "this node calls no other"));
  const bool leaves_own = g->route.own_layers_only && !route.own_layers_only;
  if (!leaves_own || g->request.own || g->reserved || !parts.ledger)
    return take_route(g, model_version, std::move(route));
  charge_rest(g, [this, g, model_version, route]() { take_route(g, model_version, route); });
}

void inference_scheduler_state::take_route(const generation_ptr& g, uint64_t model_version,
                                           model_route route) {
  g->route_asked = false;
  g->no_route.reset();
  set_route(*g, model_version, std::move(route));
  g->at = generation::stage::waiting;
  waiting.push_front(g);
  pump();
}

void inference_scheduler_state::set_route(generation& g, uint64_t model_version, model_route route) const {
  g.model_version = model_version;
  g.route = std::move(route);
  g.batch_key = std::to_string(model_version);
  for (const auto& hop : g.route.hops)
    g.batch_key +=
        '/' + hop.node_id + ':' + std::to_string(hop.layer_begin) + '-' + std::to_string(hop.layer_end);
}

/// Every node is told directly, for nothing passes one that has failed, and each answers its driver with a
/// receipt. What goes on meanwhile does not wait for them.
void inference_scheduler_state::close_session(const generation_ptr& g, const std::string& except) {
  if (!g->session_open)
    return;
  const auto& hops = g->route.hops;
  const bool alone = hops.size() == 1 && hops.front().local;
  forward_request call;
  call.header.request_id = g->id;
  call.header.trace_id = g->id;
  call.header.session_id = g->session_id;
  call.header.model_version = g->model_version;
  call.header.architecture_id = options.architecture_id;
  call.header.deadline_steady_us = alone ? 0 : parts.time->steady_us() + close_budget_us;
  call.mode = forward_mode::decode;
  session_row row;
  row.session_id = g->session_id;
  row.request_id = g->id;
  row.close = true;
  call.rows.push_back(std::move(row));
  for (const auto& hop : hops)
    if (hop.local || (hop.node_id != except && parts.link))
      close_hop(g, hop, call);
}

void inference_scheduler_state::close_hop(const generation_ptr& g, const route_hop& hop,
                                          const forward_request& call) {
  model_route single;
  single.hops.push_back(hop);
  if (hop.local)
    return send_along(
        single, call, [](const routed_forward_reply&) {},
        [](const caf::error& e) { log::debug(name, "close-failed why={}", problem_of(e).message); });
  ++g->receipts_open;
  send_along(
      single, call,
      [me = self, g, hop, session_id = g->session_id](const routed_forward_reply& reply) {
        me->state.session_closed(g, hop, session_id, reply.receipts);
      },
      [me = self, g](const caf::error& e) {
        log::debug(name, "close-failed why={}", problem_of(e).message);
        me->state.receipt_done(g);
      });
}

} // namespace neuroshard
