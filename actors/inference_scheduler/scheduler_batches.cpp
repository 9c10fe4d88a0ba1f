// The running batch: prefill of what waits, decode of what runs, rows that fail one by one.
#include "actors/common/log.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto call_timeout = std::chrono::seconds(60);
constexpr int64_t call_budget_us = 30'000'000;
constexpr uint32_t failed_calls_max = 3; ///< for the time being refused, in a row
constexpr auto retry_delay = std::chrono::milliseconds(50);
constexpr uint32_t rebuilds_max = 3;

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

} // namespace

work_header inference_scheduler_state::header_of(const generation& g) const {
  work_header header;
  header.request_id = g.id;
  header.session_id = g.session_id;
  header.model_version = g.model_version;
  header.architecture_id = options.architecture_id;
  header.deadline_steady_us = parts.time->steady_us() + call_budget_us;
  return header;
}

/// A generation may end in the middle of an answer's rows: what follows from that waits until the answer is
/// worked through.
void inference_scheduler_state::pump_soon() {
  if (std::exchange(pump_pending, true))
    return;
  self->send(self, pump_atom_v);
}

void inference_scheduler_state::pump() {
  if (!prefill_in_flight && prefilling.empty())
    choose_prefill_group();
  if (!prefill_in_flight && !prefilling.empty())
    send_prefill();
  if (!decode_in_flight && !running.empty())
    send_decode();
  update_gauges();
  if (!draining || !all.empty() || admitting > 0)
    return;
  for (auto& drain : drains)
    drain.deliver(caf::unit);
  drains.clear();
}

// ----------------------------------------------------------------------------------------------- prefill

void inference_scheduler_state::choose_prefill_group() {
  const size_t room = options.batch_max - std::min<size_t>(options.batch_max, running.size());
  // What runs keeps the memory that it can come to need: a newcomer waits, so that it never takes the cache
  // of another.
  uint64_t blocks_left = kv_blocks;
  for (const auto& g : running)
    blocks_left -= std::min(blocks_left, g->kv_blocks());
  std::vector<uint32_t> remaining;
  for (const auto& g : waiting) {
    if ((g->needs_room && !running.empty()) || (kv_blocks > 0 && g->kv_blocks() > blocks_left))
      break; // in order: nobody overtakes what waits for memory
    blocks_left -= std::min(blocks_left, g->kv_blocks());
    remaining.push_back(g->positions() - g->cached);
  }
  const auto plan = plan_prefill(remaining, room, options.prefill_chunk);
  for (size_t i = 0; i < plan.rows; ++i) {
    auto g = std::move(waiting.front());
    waiting.pop_front();
    g->at = generation::stage::prefilling;
    g->needs_room = false;
    if (!g->began) {
      g->began = true;
      g->began_us = parts.time->steady_us();
    }
    prefilling.push_back(std::move(g));
  }
}

void inference_scheduler_state::send_prefill() {
  std::vector<uint32_t> remaining;
  for (const auto& g : prefilling)
    remaining.push_back(g->positions() - g->cached);
  const auto plan = plan_prefill(remaining, prefilling.size(), options.prefill_chunk);
  forward_request call;
  call.header = header_of(*prefilling.front());
  call.mode = forward_mode::prefill;
  call.layer_begin = prefilling.front()->route.hops.front().layer_begin;
  call.layer_end = prefilling.front()->route.hops.front().layer_end;
  call.apply_head = plan.is_last;
  call.omit_tensors = !plan.is_last;
  std::vector<int32_t> ids(plan.rows * plan.length, static_cast<int32_t>(text::pad_id));
  for (size_t i = 0; i < plan.rows; ++i) {
    auto& g = *prefilling[i];
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
    g.session_open = true;
    g.in_flight = true;
  }
  call.token_ids = integer_tensor(std::move(ids), static_cast<int64_t>(plan.rows), plan.length);
  prefill_in_flight = true;
  self->request(parts.worker, call_timeout, std::move(call))
      .then([me = self, plan](const forward_reply& reply) { me->state.prefill_answered(plan, reply); },
            [me = self](const caf::error& e) {
              me->state.prefill_in_flight = false;
              me->state.call_failed(std::exchange(me->state.prefilling, {}), e);
            });
}

void inference_scheduler_state::prefill_answered(const prefill_plan& plan, const forward_reply& reply) {
  prefill_in_flight = false;
  failed_calls = 0;
  auto group = std::exchange(prefilling, {});
  for (size_t i = 0; i < group.size(); ++i) {
    const auto& g = group[i];
    g->in_flight = false;
    if (g->stop_with) {
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    } else if (i >= reply.rows.size() || reply.rows[i].status != row_status::ok) {
      row_failed(g, i < reply.rows.size() ? reply.rows[i].status : row_status::unknown_session);
    } else if (g->copy_id != 0 && reply.rows[i].copy_id != g->copy_id) {
      // One generation, one copy of the weights: a rebuild on newer ones would be another text.
      finish(g, "error", refuse(errc::aborted, "the weights of this generation are no longer served"));
    } else {
      g->copy_id = reply.rows[i].copy_id;
      g->cached = std::min(g->cached + plan.length, g->positions());
      if (!plan.is_last) {
        prefilling.push_back(g);
      } else if (i < reply.sampled.size() &&
                 take_token(g, reply.sampled[i], i < reply.logprobs.size() ? reply.logprobs[i] : 0)) {
        g->at = generation::stage::running;
        running.push_back(g);
      }
    }
  }
  pump();
}

// ------------------------------------------------------------------------------------------------ decode

void inference_scheduler_state::send_decode() {
  forward_request call;
  call.header = header_of(*running.front());
  call.header.session_id.clear();
  call.mode = forward_mode::decode;
  call.layer_begin = running.front()->route.hops.front().layer_begin;
  call.layer_end = running.front()->route.hops.front().layer_end;
  call.apply_head = true;
  std::vector<int32_t> ids;
  for (const auto& g : running) {
    ids.push_back(g->token_at(g->cached));
    session_row row;
    row.session_id = g->session_id;
    row.cache_position = g->cached;
    row.request_id = g->id;
    row.sample = g->sample(parts.tokens.vocab_size());
    call.rows.push_back(std::move(row));
    g->in_flight = true;
  }
  const auto rows = static_cast<int64_t>(ids.size());
  call.token_ids = integer_tensor(std::move(ids), rows, 1);
  decode_in_flight = true;
  self->request(parts.worker, call_timeout, std::move(call))
      .then([me = self,
             group = running](const forward_reply& reply) { me->state.decode_answered(group, reply); },
            [me = self, group = running](const caf::error& e) {
              me->state.decode_in_flight = false;
              for (const auto& g : group)
                erase(me->state.running, g);
              me->state.call_failed(group, e);
            });
}

void inference_scheduler_state::decode_answered(const std::vector<generation_ptr>& rows,
                                                const forward_reply& reply) {
  decode_in_flight = false;
  failed_calls = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto& g = rows[i];
    g->in_flight = false;
    if (g->stop_with) {
      erase(running, g);
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    } else if (i >= reply.rows.size() || i >= reply.sampled.size() ||
               reply.rows[i].status != row_status::ok) {
      erase(running, g);
      row_failed(g, i < reply.rows.size() ? reply.rows[i].status : row_status::unknown_session);
    } else {
      ++g->cached;
      if (!take_token(g, reply.sampled[i], i < reply.logprobs.size() ? reply.logprobs[i] : 0))
        erase(running, g);
    }
  }
  pump();
}

bool inference_scheduler_state::take_token(const generation_ptr& g, int32_t token, double logprob) {
  if (parts.time->steady_us() >= g->deadline_us) {
    finish(g, "error", refuse(errc::timeout, "the time limit of a generation has passed"));
    return false;
  }
  const uint32_t before = g->output.count();
  auto frame = g->output.accept(token, logprob);
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

// ---------------------------------------------------------------------------------------------- failures

void inference_scheduler_state::call_failed(const std::vector<generation_ptr>& rows, const caf::error& why) {
  const auto code = code_of(why);
  const auto what = problem_of(why);
  const bool newer = code == errc::failed_precondition && what.reason == "model_version";
  const bool for_now =
      (code == errc::overloaded || code == errc::timeout) && ++failed_calls <= failed_calls_max;
  for (const auto& g : rows) {
    g->in_flight = false;
    if (g->stop_with)
      finish(g, "error", std::exchange(g->stop_with, std::nullopt));
    else if (newer && g->output.count() == 0 && g->rebuilds < rebuilds_max) {
      // The weights were changed between admission and prefill; nothing of it has been computed on the old
      // ones.
      for (const auto& [key, value] : what.details)
        if (const auto* version = std::get_if<int64_t>(&value); key == "model_version" && version != nullptr)
          g->model_version = static_cast<uint64_t>(*version);
      rebuild(g, false);
    } else if (for_now) {
      rebuild(g, false);
    } else {
      finish(g, "error", why);
    }
  }
  if (for_now)
    self->delayed_send(self, retry_delay, pump_atom_v); // the queue there needs a moment
  else
    pump();
}

void inference_scheduler_state::row_failed(const generation_ptr& g, row_status status) {
  switch (status) {
  case row_status::no_memory:
    // Another generation that ends gives its cache back; alone there is nothing to wait for.
    if (!running.empty() && g->rebuilds < rebuilds_max)
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
  close_session(*g);
  ++g->rebuilds;
  g->session_id = random_hex(*parts.random, 16);
  g->session_open = false;
  g->cached = 0;
  if (g->output.count() == 0)
    g->copy_id = 0; // nothing has been said yet: it may begin again with newer weights
  g->needs_room = needs_room;
  g->at = generation::stage::waiting;
  waiting.push_front(g);
}

void inference_scheduler_state::close_session(const generation& g) {
  if (!g.session_open)
    return;
  forward_request call;
  call.header = header_of(g);
  call.header.deadline_steady_us = 0;
  call.mode = forward_mode::decode;
  call.layer_begin = g.route.hops.front().layer_begin;
  call.layer_end = g.route.hops.front().layer_end;
  session_row row;
  row.session_id = g.session_id;
  row.request_id = g.id;
  row.close = true;
  call.rows.push_back(std::move(row));
  self->request(parts.worker, call_timeout, std::move(call))
      .then([](const forward_reply&) {},
            [](const caf::error& e) { log::debug(name, "close-failed why={}", problem_of(e).message); });
}

} // namespace neuroshard
