#include "actors/supervisor/supervisor.hpp"

#include "actors/common/log.hpp"
#include "actors/supervisor/front.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/exit_reason.hpp>
#include <caf/sec.hpp>
#include <caf/send.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace neuroshard {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto restore_patience = seconds(600); // a large checkpoint on a slow disk
/// The end takes at most so long, whatever hangs (the process has 30 s, spec network.md section 7). A stage
/// may use what those before it have left, less what is kept for those after it.
constexpr auto stop_budget = seconds(26);
constexpr auto inference_patience = seconds(11); // 10 s to finish, then settled
constexpr auto peers_patience = seconds(1);
constexpr auto ledger_patience = seconds(2);
constexpr auto least_patience = milliseconds(100);
constexpr auto ending_patience = seconds(1); // after stop_budget, for the actors to end

std::string text_of(const caf::error& why) {
  return problem_of(why).message;
}

} // namespace

node_actors make_fronts(caf::actor_system& system) {
  node_actors made;
  const auto add = [&]<class Handle>(Handle& to, std::string of) {
    made.fronts.push_back(system.spawn(front, std::move(of)));
    to = caf::actor_cast<Handle>(made.fronts.back());
  };
  add(made.ledger, "ledger");
  add(made.limiter, "rate_limiter");
  add(made.telemetry, "telemetry");
  add(made.link, "peer_link");
  add(made.peers, "peer_manager");
  add(made.relay, "relay");
  add(made.keeper, "proof_keeper");
  add(made.worker, "layer_worker");
  add(made.checkpointer, "checkpointer");
  add(made.checkpoint_link, "checkpoint_link");
  add(made.checkpoint_server, "checkpoint_server");
  add(made.checkpoint_receiver, "checkpoint_receiver");
  add(made.exchanger, "gradient_exchanger");
  add(made.trainer, "trainer");
  add(made.scheduler, "inference_scheduler");
  return made;
}

// ------------------------------------------------------------------------------------------------- starting

caf::error supervisor_state::spawn(pointer self, group& g) {
  for (const auto& child : g.plan.children) {
    auto made = child.spawn(self->system());
    if (!made) {
      log::error(name, "spawn-failed actor={} why=\"{}\"", child.name, text_of(made.error()));
      return made.error();
    }
    self->monitor(*made);
    g.alive.emplace((*made)->address(), child.name);
    caf::anon_send(child.front, retarget_atom_v, *made);
  }
  return {};
}

void supervisor_state::begin(pointer self, size_t index) {
  auto& g = groups[index];
  ++g.attempt;
  if (g.plan.start == group_start::model)
    begin_model(self, index);
  else
    finish_begin(index, g.attempt, {});
}

/// An attempt whose group has failed meanwhile is over: its answers, good or bad, belong to actors that are
/// gone, and must neither drive the next attempt nor end it.
void supervisor_state::begin_model(pointer self, size_t index) {
  const uint64_t attempt = groups[index].attempt;
  const auto over = [self, index, attempt] {
    const auto& g = self->state.groups[index];
    return g.attempt != attempt || g.ending || self->state.stopping;
  };
  auto failed = [self, index, attempt](const caf::error& why) {
    self->state.finish_begin(index, attempt, why);
  };
  caf::anon_send(actors.telemetry, state_changed{node_state::syncing});
  self->request(actors.checkpointer, restore_patience, restore_latest{})
      .then(
          [self, index, attempt, over, failed](const restored& found) {
            if (over())
              return;
            if (found.found)
              log::info(name, "resumed checkpoint={} step={}", found.id, found.state.inner_step);
            self->request(self->state.actors.worker, restore_patience,
                          refresh_serving{found.state.outer_step, found.state.inner_step})
                .then(
                    [self, index, attempt, over, failed, found](const serving_info&) {
                      if (over())
                        return;
                      self->request(self->state.actors.trainer, restore_patience, start_atom_v, found)
                          .then([self, index, attempt] { self->state.finish_begin(index, attempt, {}); },
                                failed);
                    },
                    failed);
          },
          failed);
}

void supervisor_state::finish_begin(size_t index, uint64_t attempt, const caf::error& why) {
  auto& g = groups[index];
  if (g.attempt != attempt || g.ending || stopping)
    return;
  if (!why) {
    g.failed = false;
    if (g.plan.start == group_start::model) {
      caf::anon_send(actors.telemetry, health_changed{"model", "ok", ""});
      caf::anon_send(actors.telemetry, state_changed{node_state::running});
    }
    if (g.first.pending())
      g.first.deliver(caf::unit);
    return;
  }
  // A member that dies refuses what it was asked; on_down, which follows, starts the group again. Any other
  // failure would only repeat itself.
  if (why != caf::sec::request_receiver_down && code_of(why) != errc::draining)
    give_up(g, why);
}

// ----------------------------------------------------------------------------------------------- restarting

void supervisor_state::on_down(pointer self, const caf::down_msg& down) {
  for (size_t i = 0; i < groups.size(); ++i) {
    auto& g = groups[i];
    const auto member = g.alive.find(down.source);
    if (member == g.alive.end())
      continue;
    const std::string who = member->second;
    g.alive.erase(member);
    if (stopping)
      return end_if_alone(self);
    if (!g.ending) {
      log::error(name, "actor-failed actor={} group={} why=\"{}\"", who, g.plan.name,
                 self->system().render(down.reason));
      end_members(g);
    }
    if (g.alive.empty())
      restart(self, i);
    return;
  }
}

void supervisor_state::end_members(group& g) {
  g.ending = true;
  for (const auto& child : g.plan.children)
    caf::anon_send(child.front, retarget_atom_v, caf::actor{});
  for (const auto& [address, who] : g.alive)
    if (auto handle = caf::actor_cast<caf::actor>(address))
      caf::anon_send_exit(handle, caf::exit_reason::kill);
}

void supervisor_state::renew(pointer self, const std::string& group_name) {
  for (size_t i = 0; i < groups.size() && !stopping; ++i) {
    auto& g = groups[i];
    if (g.plan.name != group_name || g.ending)
      continue;
    log::info(name, "renewing group={}", group_name);
    g.renewed = true;
    end_members(g);
    if (g.alive.empty())
      restart(self, i);
  }
}

void supervisor_state::restart(pointer self, size_t index) {
  auto& g = groups[index];
  g.ending = false;
  if (std::exchange(g.renewed, false)) {
    if (auto why = spawn(self, g))
      return give_up(g, why);
    return begin(self, index);
  }
  if (!g.budget.take(time->steady_us()))
    return give_up(g, refuse(errc::unavailable, "restarted 5 times within a minute"));
  counters->actor_restarts.fetch_add(1, std::memory_order_relaxed);
  log::warn(name, "restarting group={}", g.plan.name);
  if (auto why = spawn(self, g))
    return give_up(g, why);
  begin(self, index);
}

void supervisor_state::give_up(group& g, const caf::error& why) {
  g.failed = true;
  log::error(name, "gave-up group={} why=\"{}\"", g.plan.name, text_of(why));
  caf::anon_send(actors.telemetry, health_changed{g.plan.name == "ledger" ? "storage" : "model", "error",
                                                  g.plan.name + ": " + text_of(why)});
  caf::anon_send(actors.telemetry, state_changed{node_state::error});
  if (g.first.pending())
    g.first.deliver(why);
}

// ------------------------------------------------------------------------------------------------- stopping

milliseconds supervisor_state::patience(milliseconds most, milliseconds kept) const {
  const milliseconds left((stop_deadline_us - time->steady_us()) / 1000);
  return std::max<milliseconds>(std::min(most, left - kept), least_patience);
}

template <class Front, class Message>
void supervisor_state::stop_stage(pointer self, const char* who, const Front& whom, milliseconds within,
                                  Message message, void (supervisor_state::*next)(pointer)) {
  auto go_on = [self, next] { (self->state.*next)(self); };
  self->request(whom, within, std::move(message)).then(go_on, [go_on, who](const caf::error& why) {
    if (code_of(why) != errc::not_ready) // it was not running
      log::warn(name, "stop-goes-on without={} why=\"{}\"", who, text_of(why));
    go_on();
  });
}

void supervisor_state::stop_inference(pointer self) {
  stop_deadline_us = time->steady_us() + std::chrono::microseconds(stop_budget).count();
  caf::anon_send(actors.telemetry, state_changed{node_state::draining});
  // What is on its way to or from another node goes on elsewhere, or later; who waits for it here waits no
  // more.
  caf::anon_send(actors.checkpoint_receiver, drain_atom_v);
  caf::anon_send(actors.checkpoint_server, drain_atom_v);
  stop_stage(self, "inference_scheduler", actors.scheduler, patience(inference_patience, {}), drain_atom_v,
             &supervisor_state::stop_trainer);
}

void supervisor_state::stop_trainer(pointer self) {
  stop_stage(self, "trainer", actors.trainer, patience(stop_budget, peers_patience + ledger_patience),
             stop_training{}, &supervisor_state::stop_checkpointer);
}

void supervisor_state::stop_checkpointer(pointer self) {
  stop_stage(self, "checkpointer", actors.checkpointer,
             patience(stop_budget, peers_patience + ledger_patience), drain_atom_v,
             &supervisor_state::leave_peers);
}

void supervisor_state::leave_peers(pointer self) {
  stop_stage(self, "peer_manager", actors.peers, patience(peers_patience, ledger_patience), leave_atom_v,
             &supervisor_state::close_ledger);
}

void supervisor_state::close_ledger(pointer self) {
  stop_stage(self, "ledger", actors.ledger, patience(ledger_patience, {}), drain_atom_v,
             &supervisor_state::end_children);
}

void supervisor_state::end_children(pointer self) {
  for (auto g = groups.rbegin(); g != groups.rend(); ++g)
    for (const auto& [address, who] : g->alive)
      if (auto handle = caf::actor_cast<caf::actor>(address))
        caf::anon_send_exit(handle, caf::exit_reason::user_shutdown);
  // What is detached may be held up by the disk; it has what is left of the time to come back.
  self->delayed_send(self, patience(stop_budget, {}) + ending_patience, tick_atom_v);
  end_if_alone(self);
}

/// The end of the stop's time: says who has not ended. The process leaves without them.
void supervisor_state::leave_behind() {
  std::string who;
  for (const auto& g : groups)
    for (const auto& [address, member] : g.alive)
      who += (who.empty() ? "" : ", ") + member;
  if (stopped.pending())
    stopped.deliver(refuse(errc::timeout, who + " did not end in time"));
}

void supervisor_state::end_if_alone(pointer self) {
  for (const auto& g : groups)
    if (!g.alive.empty())
      return;
  for (auto front = actors.fronts.rbegin(); front != actors.fronts.rend(); ++front)
    caf::anon_send_exit(*front, caf::exit_reason::user_shutdown);
  log::info(name, "stopped");
  if (stopped.pending())
    stopped.deliver(caf::unit);
  self->quit();
}

// ------------------------------------------------------------------------------------------------- behaviour

supervisor_actor::behavior_type supervisor(supervisor_state::pointer self, node_actors actors,
                                           time_source_ptr time, counters_ptr counters) {
  self->state.actors = std::move(actors);
  self->state.time = std::move(time);
  self->state.counters = std::move(counters);
  self->set_down_handler([self](const caf::down_msg& down) { self->state.on_down(self, down); });
  return {
      [self](const start_group& plan) -> caf::result<void> {
        auto& s = self->state;
        if (s.stopping)
          return refuse(errc::draining, "the node is stopping");
        s.groups.push_back({plan, {}, restart_budget{}});
        auto done = self->make_response_promise<void>();
        s.groups.back().first = done;
        if (auto why = s.spawn(self, s.groups.back()))
          s.give_up(s.groups.back(), why);
        else
          s.begin(self, s.groups.size() - 1);
        return done;
      },
      [self](const stop_node&) -> caf::result<void> {
        auto& s = self->state;
        if (s.stopping)
          return refuse(errc::draining, "the node is stopping already");
        s.stopping = true;
        for (auto& g : s.groups)
          if (g.first.pending())
            g.first.deliver(refuse(errc::draining, "the node is stopping"));
        auto stopped = self->make_response_promise<void>();
        s.stopped = stopped;
        s.stop_inference(self);
        return stopped;
      },
      [self](const renew_group& which) { self->state.renew(self, which.name); },
      [self](tick_atom) { self->state.leave_behind(); },
      [self](status_atom) -> actor_status {
        actor_status status{self->state.name, actor_status::health::ok, "", {}};
        for (const auto& g : self->state.groups) {
          status.values.emplace_back(g.plan.name, g.failed ? "failed" : std::to_string(g.alive.size()));
          if (g.failed)
            status.state = actor_status::health::error;
        }
        return status;
      },
  };
}

} // namespace neuroshard
