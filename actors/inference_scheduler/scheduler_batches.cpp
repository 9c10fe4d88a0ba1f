// The running batches: prefill of what waits, decode of what runs. One batch for each route and version of
// the weights; each has one prefill and one decode under way.
#include "actors/inference_scheduler/inference_scheduler.hpp"
#include "actors/relay/route_hops.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto call_timeout = std::chrono::seconds(60);
constexpr int64_t call_budget_us = 30'000'000;
constexpr auto answer_margin = std::chrono::seconds(2); ///< the relay gives up first

/// i32 [rows, columns] in host memory.
tensor_handle integer_tensor(std::vector<int32_t> values, int64_t rows, int64_t columns) {
  auto owner = std::make_shared<std::vector<int32_t>>(std::move(values));
  tensor_handle handle;
  handle.view = kernels::make_tensor(owner->data(), kernels::dtype::i32, {rows, columns});
  handle.owner = std::move(owner);
  return handle;
}

void erase(std::vector<generation_ptr>& from, const generation_ptr& g) {
  from.erase(std::remove(from.begin(), from.end(), g), from.end());
}

/// The whole route is this node: nothing can be taken over by another.
bool here_alone(const model_route& route) {
  return route.hops.size() == 1 && route.hops.front().local;
}

/// What came of one row: failed where a row is missing, or the token is none.
struct row_outcome {
  row_status status = row_status::ok;
  std::string node; ///< where it failed; empty: here
  int32_t token = -1;
  double logprob = 0;
};

row_outcome outcome_of(const routed_forward_reply& reply, const model_route& route, size_t row, bool samples,
                       uint32_t vocab) {
  const auto& last = route.hops.back();
  const std::string end = last.local ? std::string() : last.node_id;
  const auto& work = reply.work;
  if (row >= work.rows.size())
    return {row_status::unknown_session, end};
  if (work.rows[row].status != row_status::ok) {
    const auto& named = work.rows[row].failed_node;
    const auto at = std::find_if(route.hops.begin(), route.hops.end(),
                                 [&](const route_hop& hop) { return hop.node_id == named; });
    if (at != route.hops.end())
      return {work.rows[row].status, at->local ? std::string() : named};
    return {work.rows[row].status, named.empty() || here_alone(route) ? std::string() : end};
  }
  if (!samples)
    return {};
  row_outcome out;
  if (row < work.sampled.size())
    out.token = work.sampled[row];
  if (row < work.logprobs.size())
    out.logprob = work.logprobs[row];
  if (out.token < 0 || static_cast<uint32_t>(out.token) >= vocab || !std::isfinite(out.logprob))
    return {row_status::unknown_session, end}; // no answer to what was asked
  return out;
}

} // namespace

work_header inference_scheduler_state::header_of(const std::vector<generation_ptr>& rows, request_class what,
                                                 uint32_t positions) const {
  const auto& first = *rows.front();
  work_header header;
  header.request_id = first.id;
  header.trace_id = first.id;
  header.session_id = first.session_id;
  header.model_version = first.model_version;
  header.architecture_id = options.architecture_id;
  const int64_t now_us = parts.time->steady_us();
  if (here_alone(first.route)) {
    header.deadline_steady_us = now_us + call_budget_us;
    return header;
  }
  int64_t budget_us = 0, limit_us = 0;
  for (const auto& g : rows) {
    int64_t all_us = 0;
    for (const auto& hop : g->route.hops) {
      const int64_t most =
          what == request_class::decode ? hop_watch::decode_us_max : hop_watch::prefill_us_max;
      all_us += std::min(most, g->patience * watch.budget_us(hop, what, positions));
    }
    budget_us = std::max(budget_us, all_us);
    limit_us = std::max(limit_us, g->deadline_us);
  }
  header.deadline_steady_us = std::min(now_us + budget_us, std::max(limit_us, now_us + 1'000));
  return header;
}

void inference_scheduler_state::send_along(const model_route& route, forward_request call, answer well,
                                           failure badly) {
  const auto& first = route.hops.front();
  call.layer_begin = first.layer_begin;
  call.layer_end = first.layer_end;
  std::chrono::milliseconds patience = call_timeout;
  if (!here_alone(route)) {
    const auto left_us = std::max<int64_t>(call.header.deadline_steady_us - parts.time->steady_us(), 1'000);
    patience = std::chrono::milliseconds(left_us / 1'000) + answer_margin;
    call.reply_dtype = options.wire;
  }
  routed_forward whole{std::move(call), hops_after_first(route), {}};
  if (first.local) {
    self->request(parts.relay, patience, std::move(whole)).then(std::move(well), std::move(badly));
    return;
  }
  const auto budget_ms = static_cast<uint32_t>((patience - answer_margin).count());
  self->request(parts.link, patience,
                peer_call<routed_forward>{address_of(first), std::move(whole), budget_ms})
      .then(std::move(well),
            [badly, id = first.node_id](const caf::error& e) { badly(failed_at_hop(e, id)); });
}

/// A generation may end in the middle of an answer's rows: what follows from that waits until the answer is
/// worked through.
void inference_scheduler_state::pump_soon() {
  if (std::exchange(pump_pending, true))
    return;
  self->send(self, pump_atom_v);
}

void inference_scheduler_state::pump() {
  choose_prefill_groups();
  for (auto& [key, batch] : batches) {
    if (!batch.prefill_in_flight && !batch.prefilling.empty())
      send_prefill(key, batch);
    if (!batch.decode_in_flight && !batch.running.empty())
      send_decode(key, batch);
  }
  std::erase_if(batches, [](const auto& one) {
    const auto& batch = one.second;
    return batch.prefilling.empty() && batch.running.empty() && !batch.prefill_in_flight &&
           !batch.decode_in_flight;
  });
  update_gauges();
  if (!draining || !all.empty() || admitting > 0)
    return;
  for (auto& drain : drains)
    drain.deliver(caf::unit);
  drains.clear();
}

/// Generations that hold a cache, or are about to.
size_t inference_scheduler_state::at_work() const {
  size_t count = 0;
  for (const auto& [key, batch] : batches)
    count += batch.prefilling.size() + batch.running.size();
  return count;
}

// ----------------------------------------------------------------------------------------------- prefill

void inference_scheduler_state::choose_prefill_groups() {
  if (waiting.empty())
    return;
  const size_t busy = at_work();
  size_t room = options.batch_max - std::min<size_t>(options.batch_max, busy);
  // What runs keeps the memory that it can come to need: a newcomer waits, so that it never takes the cache
  // of another.
  uint64_t blocks_left = kv_blocks;
  for (const auto& [key, batch] : batches)
    for (const auto* part : {&batch.prefilling, &batch.running})
      for (const auto& g : *part)
        blocks_left -= std::min(blocks_left, g->kv_blocks());
  std::map<std::string, std::vector<generation_ptr>> groups;
  for (const auto& g : waiting) {
    if ((g->needs_room && busy > 0) || (kv_blocks > 0 && g->kv_blocks() > blocks_left))
      break; // in order: nobody overtakes what waits for memory
    blocks_left -= std::min(blocks_left, g->kv_blocks());
    const auto at = batches.find(g->batch_key);
    if (at == batches.end() || at->second.prefilling.empty())
      groups[g->batch_key].push_back(g);
  }
  for (const auto& [key, group] : groups) {
    std::vector<uint32_t> remaining;
    for (const auto& g : group)
      remaining.push_back(g->positions() - g->cached);
    const auto plan = plan_prefill(remaining, room, options.prefill_chunk);
    for (size_t i = 0; i < plan.rows; ++i) {
      const auto& g = group[i];
      waiting.erase(std::find(waiting.begin(), waiting.end(), g));
      g->at = generation::stage::prefilling;
      g->needs_room = false;
      if (!g->began) {
        g->began = true;
        g->began_us = parts.time->steady_us();
      }
      batches[key].prefilling.push_back(g);
    }
    room -= plan.rows;
  }
}

void inference_scheduler_state::send_prefill(const std::string& key, route_batch& batch) {
  const auto group = batch.prefilling;
  std::vector<uint32_t> remaining;
  for (const auto& g : group)
    remaining.push_back(g->positions() - g->cached);
  const auto plan = plan_prefill(remaining, group.size(), options.prefill_chunk);
  const auto positions = static_cast<uint32_t>(plan.rows) * plan.length;
  forward_request call;
  call.header = header_of(group, request_class::prefill, positions);
  call.mode = forward_mode::prefill;
  call.apply_head = plan.is_last;
  call.omit_tensors = !plan.is_last;
  std::vector<int32_t> ids(positions, static_cast<int32_t>(text::pad_id));
  for (size_t i = 0; i < plan.rows; ++i) {
    auto& g = *group[i];
    const uint32_t length = std::min(plan.length, remaining[i]);
    for (uint32_t p = 0; p < length; ++p)
      ids[i * plan.length + p] = g.token_at(g.cached + p);
    call.sequence_lengths.push_back(length);
    session_row row;
    row.session_id = g.session_id;
    row.cache_position = g.cached;
    row.request_id = g.id;
    if (plan.is_last)
      row.sample = g.sample(parts.tokens.vocab_size());
    call.rows.push_back(std::move(row));
    g.work.sent(g.session_id, g.route, options.layers, g.model_version, length);
    g.session_open = true;
    g.in_flight = true;
  }
  call.token_ids = integer_tensor(std::move(ids), static_cast<int64_t>(plan.rows), plan.length);
  batch.prefill_in_flight = true;
  send_along(
      group.front()->route, std::move(call),
      [me = self, key, plan, positions, route = group.front()->route,
       sent_us = parts.time->steady_us()](const routed_forward_reply& reply) {
        me->state.hops_answered(route, reply, request_class::prefill, sent_us, positions);
        me->state.prefill_answered(key, plan, reply);
      },
      [me = self, key](const caf::error& e) {
        auto& failed = me->state.batches.at(key);
        failed.prefill_in_flight = false;
        me->state.call_failed(std::exchange(failed.prefilling, {}), e, request_class::prefill);
      });
}

void inference_scheduler_state::prefill_answered(const std::string& key, const prefill_plan& plan,
                                                 const routed_forward_reply& reply) {
  auto& batch = batches.at(key);
  batch.prefill_in_flight = false;
  const auto group = std::exchange(batch.prefilling, {});
  failed_nodes failed;
  for (size_t i = 0; i < group.size(); ++i) {
    const auto& g = group[i];
    const auto out = outcome_of(reply, g->route, i, plan.is_last, parts.tokens.vocab_size());
    const uint64_t copy = i < reply.work.rows.size() ? reply.work.rows[i].copy_id : 0;
    const bool pinned_here = g->route.hops.front().local;
    g->in_flight = false;
    if (g->stop_with) {
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    } else if (out.status != row_status::ok) {
      row_failed(g, out.status, out.node, failed);
    } else if (pinned_here && g->copy_id != 0 && copy != g->copy_id) {
      // One generation, one copy of the weights: a rebuild on newer ones would be another text.
      finish(g, "error", refuse(errc::aborted, "the weights of this generation are no longer served"));
    } else {
      g->refused_calls = 0;
      if (pinned_here)
        g->copy_id = copy;
      g->cached = std::min(g->cached + plan.length, g->positions());
      if (!plan.is_last) {
        batch.prefilling.push_back(g);
      } else if (take_token(g, out.token, out.logprob)) {
        g->at = generation::stage::running;
        batch.running.push_back(g);
      }
    }
  }
  hops_failed(failed, request_class::prefill);
  pump();
}

// ------------------------------------------------------------------------------------------------ decode

void inference_scheduler_state::send_decode(const std::string& key, route_batch& batch) {
  const auto group = batch.running;
  forward_request call;
  call.header = header_of(group, request_class::decode, static_cast<uint32_t>(group.size()));
  call.header.session_id.clear();
  call.mode = forward_mode::decode;
  call.apply_head = true;
  std::vector<int32_t> ids;
  for (const auto& g : group) {
    ids.push_back(g->token_at(g->cached));
    session_row row;
    row.session_id = g->session_id;
    row.cache_position = g->cached;
    row.request_id = g->id;
    row.sample = g->sample(parts.tokens.vocab_size());
    call.rows.push_back(std::move(row));
    g->work.sent(g->session_id, g->route, options.layers, g->model_version, 1);
    g->in_flight = true;
  }
  const auto rows = static_cast<int64_t>(ids.size());
  call.token_ids = integer_tensor(std::move(ids), rows, 1);
  batch.decode_in_flight = true;
  send_along(
      group.front()->route, std::move(call),
      [me = self, key, group, sent_us = parts.time->steady_us()](const routed_forward_reply& reply) {
        me->state.hops_answered(group.front()->route, reply, request_class::decode, sent_us,
                                static_cast<uint32_t>(group.size()));
        me->state.decode_answered(key, group, reply);
      },
      [me = self, key, group](const caf::error& e) {
        auto& failed = me->state.batches.at(key);
        failed.decode_in_flight = false;
        for (const auto& g : group)
          erase(failed.running, g);
        me->state.call_failed(group, e, request_class::decode);
      });
}

void inference_scheduler_state::decode_answered(const std::string& key,
                                                const std::vector<generation_ptr>& rows,
                                                const routed_forward_reply& reply) {
  auto& batch = batches.at(key);
  batch.decode_in_flight = false;
  failed_nodes failed;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& g = rows[i];
    const auto out = outcome_of(reply, g->route, i, true, parts.tokens.vocab_size());
    g->in_flight = false;
    if (g->stop_with) {
      erase(batch.running, g);
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    } else if (out.status != row_status::ok) {
      erase(batch.running, g);
      row_failed(g, out.status, out.node, failed);
    } else {
      g->refused_calls = 0;
      ++g->cached;
      if (!take_token(g, out.token, out.logprob))
        erase(batch.running, g);
    }
  }
  hops_failed(failed, request_class::decode);
  pump();
}

bool inference_scheduler_state::take_token(const generation_ptr& g, int32_t token, double logprob) {
  if (parts.time->steady_us() >= g->deadline_us) {
    finish(g, "error", refuse(errc::timeout, "the time limit of a generation has passed"));
    return false;
  }
  const uint32_t before = g->output.count();
  auto frame = g->output.accept(token, logprob);
  g->count_work(g->cached);
  g->hop_failures.clear();
  g->route_pause_us = 0;
  if (!g->request.own)
    parts.counters->inference_tokens.fetch_add(g->output.count() - before, std::memory_order_relaxed);
  if (frame)
    g->request.sink->token(std::move(frame->text), frame->index,
                           g->request.logprobs ? std::optional<double>(frame->logprob) : std::nullopt);
  if (g->output.end() == completion_end::none)
    return true;
  finish(g, g->output.end() == completion_end::length ? "length" : "stop", std::nullopt);
  return false;
}

} // namespace neuroshard
