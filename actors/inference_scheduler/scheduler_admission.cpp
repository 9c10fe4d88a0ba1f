// From a request to a place in the queue: form, context, weights, route, money.
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"
#include "kernels/text/utf8.hpp"

#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto answer_timeout = std::chrono::seconds(10);
constexpr size_t prompt_bytes_max = size_t{256} << 10;
constexpr size_t stops_max = 16;
constexpr size_t stop_bytes_max = 128;
constexpr int64_t retry_after_s = 1;

caf::error field(const char* name, std::string message) {
  problem what;
  what.field = name;
  what.message = std::move(message);
  return refuse(errc::invalid_request, std::move(what));
}

caf::error later(errc code, const char* reason, const char* message) {
  problem what;
  what.reason = reason;
  what.message = message;
  what.details = {{"retry_after", retry_after_s}};
  return refuse(code, std::move(what));
}

/// The gateway has checked the ranges; a caller inside the node is checked here again, for the limits guard
/// memory.
caf::error check_request(const generation_request& request) {
  if (!request.sink)
    return refuse(errc::internal, "a generation needs somewhere to go");
  if (request.prompt.empty() || request.prompt.size() > prompt_bytes_max)
    return field("prompt", "must have 1 byte to 256 KiB");
  if (request.max_tokens < 1)
    return field("max_tokens", "must be at least 1");
  if (!(request.temperature >= 0 && request.temperature <= 2))
    return field("temperature", "must be 0 - 2");
  if (!(request.top_p > 0 && request.top_p <= 1))
    return field("top_p", "must be above 0 and at most 1");
  if (request.stop.size() > stops_max)
    return field("stop", "at most 16 stop strings");
  for (const auto& stop : request.stop)
    if (stop.empty() || stop.size() > stop_bytes_max)
      return field("stop", "a stop string has 1 - 128 bytes");
  return {};
}

} // namespace

caf::expected<generation_ptr> inference_scheduler_state::make_generation(const generation_request& request) {
  if (auto refused = check_request(request))
    return refused;
  auto normal = text::normalize_nfc(request.prompt);
  if (!normal.ok())
    return refuse(normal.status());
  std::vector<int32_t> ids{static_cast<int32_t>(text::bos_id)};
  for (const auto id : parts.tokens.encode(*normal))
    ids.push_back(static_cast<int32_t>(id));
  if (ids.size() + uint64_t{request.max_tokens} > options.context) {
    problem what;
    what.field = "prompt";
    what.reason = "context_length";
    what.message = "prompt tokens and max_tokens together exceed the context length";
    what.details = {{"limit", static_cast<int64_t>(options.context)},
                    {"prompt_tokens", static_cast<int64_t>(ids.size())}};
    return refuse(errc::invalid_request, std::move(what));
  }
  auto g = std::make_shared<generation>(request, std::move(ids), parts.tokens);
  g->id = "inf_" + random_hex(*parts.random, 12);
  g->session_id = random_hex(*parts.random, 16);
  if (request.seed)
    g->seed = *request.seed;
  else
    parts.random->fill(&g->seed, sizeof g->seed);
  g->admitted_us = parts.time->steady_us();
  g->deadline_us = g->admitted_us + int64_t{options.timeout_s} * 1'000'000;
  return g;
}

caf::result<generation_admitted> inference_scheduler_state::admit(const generation_request& request) {
  if (draining)
    return later(errc::draining, "draining", "the node is shutting down");
  // A sample for the terminal takes nobody's place: it is for idle moments.
  if (waiting.size() + admitting >= (request.own ? 1 : options.max_queue))
    return later(errc::overloaded, "overloaded", "too many requests are waiting");
  auto g = make_generation(request);
  if (!g)
    return std::move(g.error());
  ++admitting;
  auto promise = self->make_response_promise<generation_admitted>();
  self->request(parts.worker, answer_timeout, session_copy{})
      .then(
          [me = self, g = *g, promise](const serving_info& copy) { me->state.copy_known(g, promise, copy); },
          [me = self, promise](caf::error& e) { me->state.not_admitted(promise, std::move(e)); });
  return promise;
}

void inference_scheduler_state::copy_known(generation_ptr g, admission_promise promise,
                                           const serving_info& copy) {
  g->model_version = copy.model_version;
  if (copy.kv_blocks > 0)
    kv_blocks = copy.kv_blocks;
  if (kv_blocks > 0 && g->kv_blocks() > kv_blocks) {
    problem what;
    what.reason = "overloaded";
    what.message =
        "this node's memory for keys and values holds fewer positions than prompt and max_tokens need";
    what.details = {{"retry_after", retry_after_s},
                    {"limit", static_cast<int64_t>(kv_blocks) * kernels::kv_block},
                    {"prompt_tokens", static_cast<int64_t>(g->prompt.size())}};
    return not_admitted(std::move(promise), refuse(errc::overloaded, std::move(what)));
  }
  if (!parts.peers) {
    model_route own;
    own.hops.push_back({true, {}, {}, 0, options.layers});
    return route_known(std::move(g), std::move(promise), std::move(own));
  }
  self->request(parts.peers, answer_timeout, route_request{copy.model_version, {}})
      .then([me = self, g,
             promise](model_route& route) { me->state.route_known(g, promise, std::move(route)); },
            [me = self, promise](caf::error& e) { me->state.not_admitted(promise, std::move(e)); });
}

void inference_scheduler_state::route_known(generation_ptr g, admission_promise promise, model_route route) {
  if (!usable(route)) {
    problem what;
    what.reason = "no_route";
    what.message = "this node calls no other, and does not hold the first layers of the model itself";
    return not_admitted(std::move(promise), refuse(errc::no_route, std::move(what)));
  }
  const uint64_t version = g->model_version;
  set_route(*g, version, std::move(route));
  if (g->request.own || (g->route.own_layers_only && !options.charge_self))
    return admitted(std::move(g), std::move(promise));
  if (!parts.ledger)
    return not_admitted(std::move(promise), later(errc::not_ready, "not_ready", "the ledger is not open"));
  reserve_inference reservation{g->id, g->prompt.size(), g->request.max_tokens};
  self->request(parts.ledger, answer_timeout, std::move(reservation))
      .then(
          [me = self, g, promise](const reserve_result&) {
            g->reserved = true;
            me->state.admitted(g, promise);
          },
          [me = self, promise](caf::error& e) { me->state.not_admitted(promise, std::move(e)); });
}

void inference_scheduler_state::admitted(generation_ptr g, admission_promise promise) {
  --admitting;
  g->at = generation::stage::waiting;
  if (!g->request.own)
    parts.counters->inference_requests.fetch_add(1, std::memory_order_relaxed);
  all.emplace(g->id, g);
  promise.deliver(generation_admitted{g->id, static_cast<uint32_t>(g->prompt.size())});
  waiting.push_back(std::move(g));
  pump();
}

void inference_scheduler_state::not_admitted(admission_promise promise, caf::error why) {
  --admitting;
  promise.deliver(std::move(why));
  pump(); // a drain may have waited for it
}

} // namespace neuroshard
