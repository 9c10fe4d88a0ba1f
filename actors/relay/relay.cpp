#include "actors/relay/relay.hpp"

#include "actors/common/log.hpp"
#include "actors/peer_link/peer_address.hpp"
#include "actors/relay/route_hops.hpp"
#include "actors/relay/row_gaps.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto relay_tick = std::chrono::seconds(1);
constexpr auto peers_timeout = std::chrono::seconds(2);
constexpr auto book_timeout = std::chrono::seconds(30);
constexpr auto own_timeout = std::chrono::seconds(600); ///< of this node's own calls that name no deadline
constexpr int64_t hop_margin_us = 20'000;
constexpr int64_t longest_hop_us = 600'000'000;

caf::error precondition_of_call(errc code, const char* reason, std::string message) {
  problem what;
  what.reason = reason;
  what.message = std::move(message);
  return refuse(code, std::move(what));
}

/// What the caller waits for: the worker ends late work itself.
std::chrono::microseconds patience(int64_t deadline_us, int64_t now_us) {
  return deadline_us == 0 ? std::chrono::duration_cast<std::chrono::microseconds>(own_timeout)
                          : std::chrono::microseconds(std::max<int64_t>(deadline_us - now_us, 1'000));
}

/// Activations handed on have the type the driver wants; told nothing, that of the input.
kernels::dtype wire_type(kernels::dtype wanted, const tensor_handle& input) {
  if (wanted != kernels::dtype::unspecified)
    return wanted;
  return input ? input.view.type : kernels::dtype::f32;
}

bool all_failed(const forward_reply& reply) {
  return std::all_of(reply.rows.begin(), reply.rows.end(),
                     [](const row_reply& row) { return row.status != row_status::ok; });
}

} // namespace

const peer_info* relay_state::known_peer(const std::string& node_id) const {
  if (!known)
    return nullptr;
  const auto at = std::find_if(known->begin(), known->end(),
                               [&](const peer_info& peer) { return peer.node.node_id == node_id; });
  return at == known->end() ? nullptr : &*at;
}

void relay_state::learn(std::function<void()> then) {
  if (!parts.peers)
    return then();
  self->request(parts.peers, peers_timeout, peers_atom_v)
      .then(
          [me = self, then](const peer_list_ptr& all) {
            me->state.known = all;
            then();
          },
          [then](const caf::error&) { then(); });
}

void relay_state::find(const work_hop& hop, std::function<void(caf::expected<peer_address>)> then) {
  const auto look = [this, id = hop.node_id]() -> std::optional<peer_address> {
    const auto* peer = known_peer(id);
    if (!peer || peer->state == peer_state::dead || peer->state == peer_state::banned)
      return std::nullopt;
    return address_of(peer->node);
  };
  if (auto found = look())
    return then(std::move(*found));
  learn([look, then, id = hop.node_id] {
    if (auto found = look())
      then(std::move(*found));
    else
      then(precondition_of_call(errc::unavailable, "unknown_hop", "Node " + id + " is not known here."));
  });
}

uint32_t relay_state::budget_ms(int64_t deadline_us, size_t hops) const {
  const int64_t left = (deadline_us == 0 ? longest_hop_us : deadline_us - parts.time->steady_us()) -
                       hop_margin_us * static_cast<int64_t>(hops);
  return static_cast<uint32_t>(std::clamp<int64_t>(left / 1'000, 0, longest_hop_us / 1'000));
}

caf::error relay_state::refuse_call(const connection_end& from, size_t hops, int64_t deadline_us) const {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  if (calls >= options.calls_max)
    return refuse(errc::overloaded, "Too many calls are under way.");
  if (hops > route_hops_max)
    return refuse(errc::invalid_request,
                  "A route has at most " + std::to_string(route_hops_max) + " further hops.");
  if (!from.node_id.empty() && hops > 0 && budget_ms(deadline_us, hops) == 0)
    return precondition_of_call(errc::timeout, "budget", "No time is left for the rest of the route.");
  return {};
}

// --------------------------------------------------------------------------------------------- forward

caf::result<routed_forward_reply> relay_state::forward(routed_forward& call) {
  if (auto refused = refuse_call(call.from, call.route.size(), call.work.header.deadline_steady_us))
    return refused;
  if (call.work.mode == forward_mode::bind && !call.route.empty())
    return refuse(errc::invalid_request, "BIND has no route.");
  auto promise = self->make_response_promise<routed_forward_reply>();
  auto held = std::make_shared<routed_forward>(std::move(call));
  const auto compute = [me = self, held, promise] {
    auto& state = me->state;
    auto mine = held->work;
    if (!held->route.empty()) { // the head, and what comes out, is the business of the last hop
      mine.apply_head = false;
      mine.omit_tensors = false;
      const auto input = mine.token_ids ? tensor_handle{} : mine.hidden;
      mine.reply_dtype = held->work.reply_dtype = wire_type(held->work.reply_dtype, input);
    }
    ++state.calls;
    const int64_t deadline_us = mine.header.deadline_steady_us;
    me->request(state.parts.worker, patience(deadline_us, state.parts.time->steady_us()), std::move(mine))
        .then([me, held, promise](forward_reply& here) { me->state.forwarded(held, promise, here); },
              [me, promise, trace = held->work.header.trace_id](caf::error& why) mutable {
                --me->state.calls;
                log::debug(name, "forward-failed trace={} why=\"{}\"", trace, problem_of(why).message);
                promise.deliver(std::move(why));
              });
  };
  // Only who holds the embedding drives a pipeline.
  if (held->work.mode != forward_mode::bind || held->from.node_id.empty()) {
    compute();
    return promise;
  }
  learn([me = self, held, promise, compute] {
    const auto* driver = me->state.known_peer(held->from.node_id);
    if (driver && driver->node.has_embedding)
      return compute();
    auto refused = promise;
    refused.deliver(precondition_of_call(errc::forbidden, "not_a_driver",
                                         "Only a node that holds the embedding binds a stage."));
  });
  return promise;
}

void relay_state::forwarded(std::shared_ptr<routed_forward> call, forward_promise promise,
                            forward_reply& here) {
  auto receipts = count_work(*call, here);
  if (!call->route.empty())
    return send_on(std::move(call), std::move(promise), here, std::move(receipts));
  --calls;
  routed_forward_reply reply;
  reply.receipts = std::move(receipts);
  reply.hops.push_back({options.node_id, std::exchange(here.report, {})});
  for (auto& row : here.rows)
    if (row.status != row_status::ok)
      row.failed_node = options.node_id;
  reply.work = std::move(here);
  promise.deliver(std::move(reply));
}

void relay_state::send_on(std::shared_ptr<routed_forward> call, forward_promise promise, forward_reply& here,
                          std::vector<signed_blob> receipts) {
  const hop_report own{options.node_id, here.report};
  const double aux_loss = here.aux_loss;
  const bool by_rows = !call->work.rows.empty();
  const bool frees_only = !call->work.hidden && !call->work.token_ids;
  if (by_rows && here.rows.size() != call->work.rows.size()) {
    --calls;
    return void(
        promise.deliver(refuse(errc::internal, "the layer worker's answer does not fit the request")));
  }
  auto told = by_rows ? std::move(here.rows) : std::vector<row_reply>{};
  if (frees_only) // a session that is not here may still be further on
    for (auto& row : told)
      row.status = row_status::ok;
  const auto gaps = std::make_shared<const row_gaps>(std::move(told));
  if (by_rows && gaps->all()) {
    --calls;
    routed_forward_reply reply;
    reply.work.request_id = call->work.header.request_id;
    (void)gaps->fill(reply.work, options.node_id);
    if (call->work.rows.front().sample && call->work.apply_head && !call->work.omit_tensors)
      reply.work.sampled.assign(call->work.rows.size(), -1);
    reply.hops.push_back(own);
    reply.receipts = std::move(receipts);
    return void(promise.deliver(std::move(reply)));
  }
  routed_forward next;
  next.work = std::move(call->work);
  const size_t hops = call->route.size();
  const auto hop = call->route.front();
  next.route.assign(call->route.begin() + 1, call->route.end());
  next.work.token_ids = {};
  next.work.hidden = std::move(here.hidden);
  next.work.layer_begin = hop.layer_begin;
  next.work.layer_end = hop.layer_end;
  if (by_rows)
    gaps->cut(next.work);
  const uint32_t budget = budget_ms(next.work.header.deadline_steady_us, hops);
  if (budget == 0 || !parts.link) {
    --calls;
    auto why = parts.link ? precondition_of_call(errc::timeout, "budget",
                                                 "No time is left for the rest of the route.")
                          : refuse(errc::unavailable, "This node calls no other.");
    return void(promise.deliver(failed_at_hop(why, hop.node_id)));
  }
  auto held = std::make_shared<routed_forward>(std::move(next));
  find(hop, [me = self, held, promise, own, aux_loss, receipts = std::move(receipts), gaps, by_rows, budget,
             id = hop.node_id, hops](caf::expected<peer_address> to) mutable {
    auto& state = me->state;
    if (!to) {
      --state.calls;
      return void(promise.deliver(failed_at_hop(to.error(), id)));
    }
    me->request(state.parts.link, std::chrono::milliseconds(budget) + std::chrono::seconds(1),
                peer_call<routed_forward>{std::move(*to), std::move(*held), budget})
        .then(
            [me, promise, own, aux_loss, receipts = std::move(receipts), gaps, by_rows, id,
             hops](routed_forward_reply& reply) mutable {
              auto& state = me->state;
              --state.calls;
              // Where every row has failed, the hops behind were not asked.
              const bool whole =
                  reply.hops.size() == hops ||
                  (by_rows && all_failed(reply.work) && !reply.hops.empty() && reply.hops.size() < hops);
              if (!whole || (by_rows && !gaps->fill(reply.work, state.options.node_id)))
                return void(promise.deliver(
                    failed_at_hop(refuse(errc::unavailable, "The peer's answer does not fit."), id)));
              reply.hops.insert(reply.hops.begin(), own);
              reply.work.aux_loss += aux_loss;
              std::move(receipts.begin(), receipts.end(), std::back_inserter(reply.receipts));
              promise.deliver(std::move(reply));
            },
            [me, promise, id](caf::error& why) mutable {
              --me->state.calls;
              promise.deliver(failed_at_hop(why, id));
            });
  });
}

// -------------------------------------------------------------------------------------------- receipts

std::vector<signed_blob> relay_state::count_work(const routed_forward& call, const forward_reply& here) {
  if (!parts.identity || call.from.node_id.empty())
    return {};
  const int64_t now_ms = parts.time->unix_us() / 1'000;
  if (call.work.mode == forward_mode::bind)
    training.bind(call.work, call.from.node_id, now_ms);
  else if (call.work.mode == forward_mode::train)
    training.train(call.work, call.route.empty());
  tally.count(call.work, here.rows, call.route.empty(), parts.time->steady_us(), now_ms);
  auto made = tally.end(call.work, call.from.node_id, *parts.identity, *parts.random, now_ms);
  for (const auto& receipt : made)
    keep_receipt({encode_signed_blob(receipt), {}});
  return made;
}

std::vector<signed_blob> relay_state::count_training(const routed_backward& call) {
  if (!parts.identity || call.from.node_id.empty())
    return {};
  const auto& session = call.work.header.session_id;
  if (call.work.action == backward_action::commit)
    training.commit(session, call.work.step);
  else if (call.work.action == backward_action::discard)
    training.discard(session, call.work.step);
  else if (call.work.action == backward_action::release)
    if (auto made = training.release(session, call.from.node_id, *parts.identity, *parts.random,
                                     parts.time->unix_us() / 1'000)) {
      keep_receipt({encode_signed_blob(*made), {}});
      return {std::move(*made)};
    }
  return {};
}

/// What could not be kept is still handed over: counter-signed it comes back whole.
void relay_state::keep_receipt(record_receipt what) {
  if (!parts.book)
    return;
  self->request(parts.book, book_timeout, std::move(what))
      .then([](const receipt_recorded&) {},
            [](const caf::error& why) {
              log::warn(name, "receipt-not-kept why=\"{}\"", problem_of(why).message);
            });
}

/// The book checks both signatures, and that this node did the work.
void relay_state::receipt_handed_back(const published& what) {
  if (what.kind == publish_kind::receipt)
    keep_receipt({what.blob.payload, encode_signed_blob(what.blob)});
}

// -------------------------------------------------------------------------------------------- backward

caf::result<routed_backward_reply> relay_state::backward(routed_backward& call) {
  if (auto refused = refuse_call(call.from, call.route.size(), call.work.header.deadline_steady_us))
    return refused;
  if (call.work.action != backward_action::gradient && !call.route.empty())
    return refuse(errc::invalid_request, "Only GRADIENT has a route.");
  auto promise = self->make_response_promise<routed_backward_reply>();
  auto held = std::make_shared<routed_backward>(std::move(call));
  if (held->work.grad_output)
    held->work.reply_dtype = wire_type(held->work.reply_dtype, held->work.grad_output);
  ++calls;
  self->request(parts.worker, patience(held->work.header.deadline_steady_us, parts.time->steady_us()),
                held->work)
      .then([me = self, held, promise](backward_reply& here) { me->state.computed(held, promise, here); },
            [me = self, promise](caf::error& why) mutable {
              --me->state.calls;
              promise.deliver(std::move(why));
            });
  return promise;
}

void relay_state::computed(std::shared_ptr<routed_backward> call, backward_promise promise,
                           backward_reply& here) {
  const hop_report own{options.node_id, std::exchange(here.report, {})};
  if (call->route.empty()) {
    --calls;
    routed_backward_reply reply;
    reply.receipts = count_training(*call);
    reply.work = std::move(here);
    reply.hops.push_back(own);
    return void(promise.deliver(std::move(reply)));
  }
  const auto hop = call->route.front();
  const size_t hops = call->route.size();
  const uint32_t budget = budget_ms(call->work.header.deadline_steady_us, hops);
  if (!here.grad_input || budget == 0 || !parts.link) {
    --calls;
    auto why =
        !here.grad_input ? refuse(errc::invalid_request, "A stage that holds the embedding ends the route.")
        : parts.link
            ? precondition_of_call(errc::timeout, "budget", "No time is left for the rest of the route.")
            : refuse(errc::unavailable, "This node calls no other.");
    return void(promise.deliver(failed_at_hop(why, hop.node_id)));
  }
  auto next = std::make_shared<routed_backward>();
  next->work = std::move(call->work);
  next->work.layer_begin = hop.layer_begin;
  next->work.layer_end = hop.layer_end;
  next->work.grad_output = std::move(here.grad_input);
  next->route.assign(call->route.begin() + 1, call->route.end());
  find(hop, [me = self, next, promise, own, budget, id = hop.node_id,
             hops](caf::expected<peer_address> to) mutable {
    auto& state = me->state;
    if (!to) {
      --state.calls;
      return void(promise.deliver(failed_at_hop(to.error(), id)));
    }
    me->request(state.parts.link, std::chrono::milliseconds(budget) + std::chrono::seconds(1),
                peer_call<routed_backward>{std::move(*to), std::move(*next), budget})
        .then(
            [me, promise, own, id, hops](routed_backward_reply& reply) mutable {
              auto& state = me->state;
              --state.calls;
              if (reply.hops.size() != hops)
                return void(promise.deliver(
                    failed_at_hop(refuse(errc::unavailable, "The peer's answer does not fit."), id)));
              reply.hops.insert(reply.hops.begin(), own);
              promise.deliver(std::move(reply));
            },
            [me, promise, id](caf::error& why) mutable {
              --me->state.calls;
              promise.deliver(failed_at_hop(why, id));
            });
  });
}

void relay_state::on_tick() {
  learn([] {});
  tally.forget_idle(parts.time->steady_us());
  if (parts.identity) // a peer manager that was made anew has forgotten it
    self->send(parts.peers, publish_sink{publish_kind::receipt, relay_actor{self}});
}

actor_status relay_state::report() const {
  return {name,
          actor_status::health::ok,
          "",
          {{"calls", std::to_string(calls)}, {"known", std::to_string(known ? known->size() : 0)}}};
}

relay_actor::behavior_type relay(relay_state::pointer self, relay_options options, relay_parts parts) {
  auto& state = self->state;
  state.self = self;
  state.options = std::move(options);
  state.parts = std::move(parts);
  if (state.parts.peers)
    self->send(self, tick_atom_v);
  return {
      [self](routed_forward& call) { return self->state.forward(call); },
      [self](routed_backward& call) { return self->state.backward(call); },
      [self](const published& what) { self->state.receipt_handed_back(what); },
      [self](tick_atom) {
        self->state.on_tick();
        self->delayed_send(self, relay_tick, tick_atom_v);
      },
      [self](drain_atom) -> caf::result<void> {
        self->state.draining = true;
        return caf::unit;
      },
      [self](status_atom) -> actor_status { return self->state.report(); },
  };
}

} // namespace neuroshard
