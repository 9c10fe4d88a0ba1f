// The stages of the driver's route: finding, binding, asking and leaving them.
#include "actors/common/log.hpp"
#include "actors/relay/route_hops.hpp"
#include "actors/trainer/trainer.hpp"

#include <algorithm>
#include <chrono>

namespace neuroshard {

namespace {

constexpr auto route_timeout = std::chrono::seconds(30);
constexpr auto bind_timeout = std::chrono::seconds(30);
constexpr auto release_timeout = std::chrono::seconds(5);
constexpr int64_t route_pause_us = 500'000; ///< between two looks for a route

} // namespace

void trainer_state::find_route() {
  if (!parts.peers) {
    route.hops.resize(1);
    route.hops.front().layer_end = options.layers;
    return boundary();
  }
  now = phase::waiting;
  self->request(parts.peers, route_timeout,
                route_request{state.outer_step, failed_nodes, request_class::train_forward})
      .then(
          [me = self](const model_route& found) {
            auto& trainer = me->state;
            if (found.hops.empty() || !found.hops.front().local)
              return trainer.wait_for_route("this node does not hold the embedding: it drives no pipeline");
            if (trainer.waits_for_route)
              trainer.error.clear();
            trainer.waits_for_route = false;
            trainer.route = found;
            trainer.wait_for_next();
          },
          [me = self](const caf::error& e) { me->state.wait_for_route(problem_of(e).message); });
}

void trainer_state::wait_for_route(std::string why) {
  if (!waits_for_route || error != why)
    log::info(name, "waits why=\"{}\"", why);
  waits_for_route = true;
  error = std::move(why);
  failed_nodes.clear(); // they may be well again
  route_again_us = parts.time->steady_us() + route_pause_us;
  wait_for_next();
}

void trainer_state::bind() {
  now = phase::waiting;
  driven = {state.outer_step, 0, 0};
  const auto open = std::make_shared<size_t>(route.hops.size());
  const auto refused = std::make_shared<std::optional<caf::error>>();
  const auto answered = [me = self, open, refused, at = epoch](size_t stage, const caf::error* why) {
    auto& trainer = me->state;
    if (at != trainer.epoch)
      return;
    if (why && stage == 0)
      return trainer.fail(problem_of(*why).message);
    if (why) {
      log::info(trainer.name, "stage-not-bound node={} why=\"{}\"", trainer.route.hops[stage].node_id,
                problem_of(*why).message);
      trainer.failed_nodes.push_back(trainer.route.hops[stage].node_id);
      *refused = *why;
    }
    if (--*open > 0)
      return;
    trainer.bound = true;
    if (*refused) {
      trainer.release_stages();
      trainer.route.hops.clear();
    } else if (trainer.route.hops.size() > 1) {
      log::info(trainer.name, "bound stages={} outer={}", trainer.route.hops.size(),
                trainer.state.outer_step);
    }
    trainer.wait_for_next();
  };
  for (size_t stage = 0; stage < route.hops.size(); ++stage) {
    const auto& hop = route.hops[stage];
    forward_request call;
    call.header = header();
    call.mode = forward_mode::bind;
    call.layer_begin = hop.layer_begin;
    call.layer_end = hop.layer_end;
    call.step = state.inner_step;
    routed_forward whole{std::move(call), {}, {}};
    const auto well = [answered, stage](const routed_forward_reply&) { answered(stage, nullptr); };
    const auto badly = [answered, stage](const caf::error& e) { answered(stage, &e); };
    if (hop.local)
      self->request(parts.relay, bind_timeout, std::move(whole)).then(well, badly);
    else
      self->request(parts.link, bind_timeout,
                    peer_call<routed_forward>{address_of(hop), std::move(whole), 10'000})
          .then(well, badly);
  }
}

backward_request trainer_state::to_stage(size_t stage, backward_action action, uint64_t number) const {
  backward_request call;
  call.header = header();
  call.layer_begin = route.hops[stage].layer_begin;
  call.layer_end = route.hops[stage].layer_end;
  call.step = number;
  call.action = action;
  return call;
}

void trainer_state::ask_stage(size_t stage, backward_request call, std::chrono::milliseconds patience,
                              std::function<void(const backward_reply*, const caf::error&)> answered) {
  const auto& hop = route.hops[stage];
  const bool head = stage + 1 == route.hops.size();
  const bool releases = call.action == backward_action::release;
  routed_backward whole{std::move(call), {}, {}};
  const auto well = [me = self, answered, hop, head, releases,
                     count = driven](const routed_backward_reply& reply) {
    if (releases)
      me->state.stage_released(hop, head, count, reply.receipts);
    auto own = reply.work;
    if (!reply.hops.empty())
      own.report = reply.hops.front().share;
    answered(&own, {});
  };
  if (hop.local)
    return void(
        self->request(parts.relay, patience, std::move(whole)).then(well, [answered](const caf::error& e) {
          answered(nullptr, e);
        }));
  const auto budget = static_cast<uint32_t>(
      std::min<int64_t>(patience.count(), std::chrono::milliseconds(std::chrono::seconds(30)).count()));
  self->request(parts.link, patience + std::chrono::seconds(1),
                peer_call<routed_backward>{address_of(hop), std::move(whole), budget})
      .then(well,
            [answered, id = hop.node_id](const caf::error& e) { answered(nullptr, failed_at_hop(e, id)); });
}

/// Nobody waits for the answers: a stage that hears nothing ends the binding by itself.
void trainer_state::release_stages() {
  if (!std::exchange(bound, false))
    return;
  for (size_t stage = 0; stage < route.hops.size(); ++stage)
    ask_stage(stage, to_stage(stage, backward_action::release, 0), release_timeout,
              [](const backward_reply*, const caf::error&) {});
}

/// A stage has ended its binding; nothing waits for its receipt.
void trainer_state::stage_released(const route_hop& hop, bool head, driven_work count,
                                   const std::vector<signed_blob>& receipts) {
  if (!parts.receipts.identity || hop.local || receipts.empty())
    return;
  receipt_terms terms{hop.node_id, receipt_kind::training, options.session_id, hop.layer_begin,
                      hop.layer_end};
  terms.head = head;
  terms.tokens = count.tokens;
  terms.steps = count.steps;
  terms.model_version = count.model_version;
  take_receipt(self, parts.receipts, hop, terms, receipts.front(), [](const countersigned_receipt*) {});
}

void trainer_state::leave_route(const caf::error& why) {
  if (auto node = failed_hop_of(why); !node.empty() && node != options.node_id) {
    log::warn(name, "stage-lost node={} why=\"{}\"", node, problem_of(why).message);
    failed_nodes.push_back(std::move(node));
  }
  release_stages();
  route.hops.clear();
}

} // namespace neuroshard
