#include "actors/inference_scheduler/inference_scheduler.hpp"

#include "actors/common/log.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto tick_period = std::chrono::milliseconds(250);
constexpr auto hash_timeout = std::chrono::seconds(30);
constexpr int64_t drain_patience_us = 10'000'000;
constexpr size_t hashes_max = 16;

} // namespace

inference_scheduler_state::~inference_scheduler_state() {
  for (const auto& [id, g] : all) {
    if (!g->request.sink)
      continue;
    auto& result = g->result;
    result.id = id;
    result.text = g->output.text();
    result.finish_reason = "error";
    result.prompt_tokens = static_cast<uint32_t>(g->prompt.size());
    result.completion_tokens = g->output.count();
    result.seed = g->seed;
    result.failure = refuse(errc::unavailable, "the node had to start its model again");
    std::exchange(g->request.sink, nullptr)->done(std::move(result));
  }
}

/// Precondition: no call holds the generation, and it is in none of the batches.
void inference_scheduler_state::finish(generation_ptr g, std::string reason,
                                       std::optional<caf::error> failure) {
  if (g->at == generation::stage::ending)
    return;
  g->at = generation::stage::ending;
  close_session(g);
  if (auto rest = g->output.cut())
    g->request.sink->token(std::move(rest->text), rest->index,
                           g->request.logprobs ? std::optional<double>(rest->logprob) : std::nullopt);
  const int64_t now_us = parts.time->steady_us();
  auto& result = g->result;
  result.id = g->id;
  result.text = g->output.text();
  result.finish_reason = std::move(reason);
  result.prompt_tokens = static_cast<uint32_t>(g->prompt.size());
  result.completion_tokens = g->output.count();
  result.seed = g->seed;
  result.queue_ms = static_cast<double>((g->began ? g->began_us : now_us) - g->admitted_us) / 1000;
  result.inference_ms = g->began ? static_cast<double>(now_us - g->began_us) / 1000 : 0;
  if (g->request.logprobs)
    result.logprob = g->output.logprob();
  for (const auto& other : waiting)
    other->needs_room = false; // there is room now
  if (!g->reserved) {
    result.failure = std::move(failure);
    return paid(std::move(g), {});
  }
  // A failure before the first token costs nothing; a caller who goes away after the prefill began pays for
  // it.
  const bool left = failure && code_of(*failure) == errc::cancelled;
  const bool free = g->unheard || (failure && g->output.count() == 0 && !(left && g->began));
  result.failure = std::move(failure);
  pay(std::move(g), free);
}

void inference_scheduler_state::paid(generation_ptr g, neuro_amount cost) {
  g->result.cost = cost;
  const auto& hops = g->route.hops;
  if (hops.size() > 1 || (hops.size() == 1 && !hops.front().local)) { // this node holds a part, or nothing
    g->result.model_hash = g->route.model_hash;
    return deliver(g);
  }
  if (g->copy_id == 0)
    return deliver(g);
  if (const auto at = hashes.find(g->copy_id); at != hashes.end())
    return hash_known(g, at->second);
  self->request(parts.worker, hash_timeout, serving_hash{g->copy_id})
      .then([me = self, g](std::string& hash) { me->state.hash_known(g, std::move(hash)); },
            [me = self, g](const caf::error& e) {
              log::warn(name, "hash-unknown id={} copy={} why={}", g->id, g->copy_id, problem_of(e).message);
              me->state.deliver(g);
            });
}

void inference_scheduler_state::hash_known(const generation_ptr& g, std::string hash) {
  hashes[g->copy_id] = hash;
  while (hashes.size() > hashes_max)
    hashes.erase(hashes.begin());
  g->result.model_hash = std::move(hash);
  deliver(g);
}

void inference_scheduler_state::note_latency(const generation_result& result) {
  auto& counters = *parts.counters;
  const double total_us = (result.queue_ms + result.inference_ms) * 1000;
  const uint64_t place = counters.latency_count.load(std::memory_order_relaxed);
  counters.latency_us[place % node_counters::latency_ring_size].store(
      static_cast<uint32_t>(std::min(total_us, 4e9)), std::memory_order_relaxed);
  counters.latency_count.store(place + 1, std::memory_order_relaxed);
}

void inference_scheduler_state::deliver(const generation_ptr& g) {
  if (!g->request.own)
    note_latency(g->result);
  all.erase(g->id);
  g->request.sink->done(std::move(g->result));
  g->request.sink.reset();
  pump_soon();
}

void inference_scheduler_state::stop(const generation_ptr& g, caf::error why) {
  if (g->at == generation::stage::ending)
    return;
  if (g->in_flight) { // at the answer, which is at most one token away
    if (!g->stop_with)
      g->stop_with = std::move(why);
    return;
  }
  waiting.erase(std::remove(waiting.begin(), waiting.end(), g), waiting.end());
  for (auto& [key, batch] : batches) {
    std::erase(batch.prefilling, g);
    std::erase(batch.running, g);
  }
  finish(g, "error", std::move(why));
}

void inference_scheduler_state::cancel(const std::string& id, bool unheard) {
  const auto at = all.find(id);
  if (at == all.end())
    return;
  const auto g = at->second;
  g->unheard = g->unheard || unheard;
  stop(g, refuse(errc::cancelled, "the caller has gone"));
  pump();
}

void inference_scheduler_state::on_tick() {
  const int64_t now_us = parts.time->steady_us();
  const bool out_of_patience = draining && now_us >= drain_until_us;
  std::vector<generation_ptr> late;
  for (const auto& [id, g] : all)
    if (out_of_patience || now_us >= g->deadline_us)
      late.push_back(g);
  for (const auto& g : late) {
    if (now_us >= g->deadline_us && g->at == generation::stage::routing && g->no_route)
      stop(g, *g->no_route);
    else if (now_us >= g->deadline_us)
      stop(g, refuse(errc::timeout, "the time limit of a generation has passed"));
    else
      stop(g, refuse(errc::draining, "the node is shutting down"));
  }
  std::vector<generation_ptr> due, unreceipted;
  for (const auto& [id, g] : all) {
    if (g->receipts_until_us != 0 && now_us >= g->receipts_until_us)
      unreceipted.push_back(g);
    if (g->at == generation::stage::routing && !g->route_asked && now_us >= g->route_again_us)
      due.push_back(g);
  }
  for (const auto& g : unreceipted)
    settle(g);
  for (const auto& g : due)
    ask_route(g);
  pump();
}

void inference_scheduler_state::update_gauges() {
  uint64_t queued = 0, running = 0;
  for (const auto& [id, g] : all) {
    if (g->request.own || g->at == generation::stage::ending)
      continue;
    ++(g->at == generation::stage::waiting ? queued : running);
  }
  parts.counters->inference_queued.store(queued, std::memory_order_relaxed);
  parts.counters->inference_running.store(running, std::memory_order_relaxed);
}

actor_status inference_scheduler_state::report() const {
  size_t prefilling = 0, running = 0;
  for (const auto& [key, batch] : batches) {
    prefilling += batch.prefilling.size();
    running += batch.running.size();
  }
  const auto routing = std::count_if(
      all.begin(), all.end(), [](const auto& one) { return one.second->at == generation::stage::routing; });
  actor_status status;
  status.name = name;
  status.values = {{"waiting", std::to_string(waiting.size())}, {"prefilling", std::to_string(prefilling)},
                   {"running", std::to_string(running)},        {"routing", std::to_string(routing)},
                   {"routes", std::to_string(batches.size())},  {"generations", std::to_string(all.size())},
                   {"draining", draining ? "1" : "0"}};
  return status;
}

inference_scheduler_actor::behavior_type inference_scheduler(inference_scheduler_state::pointer self,
                                                             inference_options options,
                                                             inference_parts parts) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.parts = std::move(parts);
  self->send(self, tick_atom_v);
  return {
      [self](const generation_request& request) { return self->state.admit(request); },
      [self](const cancel_generation& request) { self->state.cancel(request.id, request.unheard); },
      [self](tick_atom) {
        self->state.on_tick();
        self->delayed_send(self, tick_period, tick_atom_v);
      },
      [self](pump_atom) {
        self->state.pump_pending = false;
        self->state.pump();
      },
      [self](drain_atom) -> caf::result<void> {
        auto& scheduler = self->state;
        if (!scheduler.draining) {
          scheduler.draining = true;
          scheduler.drain_until_us = scheduler.parts.time->steady_us() + drain_patience_us;
        }
        if (scheduler.all.empty() && scheduler.admitting == 0)
          return caf::unit;
        scheduler.drains.push_back(self->make_response_promise<caf::unit_t>());
        return scheduler.drains.back();
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard
