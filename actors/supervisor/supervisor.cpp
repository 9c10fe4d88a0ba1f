#include "actors/supervisor/supervisor.hpp"

#include "actors/common/log.hpp"
#include "actors/supervisor/front.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/exit_reason.hpp>
#include <caf/send.hpp>

#include <chrono>

namespace neuroshard {

namespace {

using std::chrono::seconds;

constexpr auto restore_patience = seconds(600); // a large checkpoint on a slow disk
constexpr auto drain_patience = seconds(12);
constexpr auto checkpoint_patience = seconds(15);
constexpr auto short_patience = seconds(3);

template <class Handle>
Handle front_of(caf::actor_system& system, std::string of) {
  return caf::actor_cast<Handle>(system.spawn(front, std::move(of)));
}

std::string text_of(const caf::error& why) {
  return problem_of(why).message;
}

} // namespace

node_actors make_fronts(caf::actor_system& system) {
  return {front_of<ledger_actor>(system, "ledger"),
          front_of<rate_limiter_actor>(system, "rate_limiter"),
          front_of<telemetry_actor>(system, "telemetry"),
          front_of<peer_manager_actor>(system, "peer_manager"),
          front_of<layer_worker_actor>(system, "layer_worker"),
          front_of<checkpointer_actor>(system, "checkpointer"),
          front_of<trainer_actor>(system, "trainer"),
          front_of<inference_scheduler_actor>(system, "inference_scheduler")};
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

void supervisor_state::begin(pointer self, size_t index, caf::response_promise done) {
  groups[index].starting = true;
  if (groups[index].plan.start == group_start::model)
    begin_model(self, index, std::move(done));
  else
    finish_begin(index, std::move(done), {});
}

void supervisor_state::begin_model(pointer self, size_t index, caf::response_promise done) {
  auto failed = [self, index, done](const caf::error& why) { self->state.finish_begin(index, done, why); };
  caf::anon_send(actors.telemetry, state_changed{node_state::syncing});
  self->request(actors.checkpointer, restore_patience, restore_latest{})
      .then(
          [self, index, done, failed](const restored& found) {
            if (found.found)
              log::info(name, "resumed checkpoint={} step={}", found.id, found.state.inner_step);
            self->request(self->state.actors.worker, restore_patience,
                          refresh_serving{found.state.outer_step, found.state.inner_step})
                .then(
                    [self, index, done, failed, found](const serving_info&) {
                      self->request(self->state.actors.trainer, restore_patience, start_atom_v, found)
                          .then([self, index, done] { self->state.finish_begin(index, done, {}); }, failed);
                    },
                    failed);
          },
          failed);
}

void supervisor_state::finish_begin(size_t index, caf::response_promise done, caf::error why) {
  auto& g = groups[index];
  g.starting = false;
  if (!why) {
    g.failed = false;
    if (g.plan.start == group_start::model) {
      caf::anon_send(actors.telemetry, health_changed{"model", "ok", ""});
      caf::anon_send(actors.telemetry, state_changed{node_state::running});
    }
    if (done.pending())
      done.deliver(caf::unit);
    return;
  }
  // A start that failed because a member died is taken up by on_down; any other failure would only repeat
  // itself.
  if (!g.ending && !stopping)
    give_up(g, text_of(why));
  if (done.pending())
    done.deliver(std::move(why));
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
      g.ending = true;
      for (const auto& child : g.plan.children)
        caf::anon_send(child.front, retarget_atom_v, caf::actor{});
      for (const auto& [address, other] : g.alive)
        if (auto handle = caf::actor_cast<caf::actor>(address))
          caf::anon_send_exit(handle, caf::exit_reason::kill);
    }
    if (g.alive.empty())
      restart(self, i);
    return;
  }
}

void supervisor_state::restart(pointer self, size_t index) {
  auto& g = groups[index];
  g.ending = false;
  if (!g.budget.take(time->steady_us()))
    return give_up(g, "restarted 5 times within a minute");
  counters->actor_restarts.fetch_add(1, std::memory_order_relaxed);
  log::warn(name, "restarting group={}", g.plan.name);
  if (auto why = spawn(self, g))
    return give_up(g, text_of(why));
  begin(self, index, caf::response_promise{});
}

void supervisor_state::give_up(group& g, const std::string& why) {
  g.failed = true;
  log::error(name, "gave-up group={} why=\"{}\"", g.plan.name, why);
  caf::anon_send(actors.telemetry, health_changed{g.plan.name == "ledger" ? "storage" : "model", "error",
                                                  g.plan.name + ": " + why});
  caf::anon_send(actors.telemetry, state_changed{node_state::error});
}

// ------------------------------------------------------------------------------------------------- stopping

void supervisor_state::stop_inference(pointer self) {
  caf::anon_send(actors.telemetry, state_changed{node_state::draining});
  auto next = [self] { self->state.stop_trainer(self); };
  self->request(actors.scheduler, drain_patience, drain_atom_v).then(next, [next](const caf::error&) {
    next();
  });
}

void supervisor_state::stop_trainer(pointer self) {
  auto next = [self] { self->state.stop_checkpointer(self); };
  self->request(actors.trainer, checkpoint_patience, stop_training{})
      .then(next, [next](const caf::error& why) {
        if (code_of(why) != errc::not_ready)
          log::warn(name, "trainer-did-not-stop why=\"{}\"", text_of(why));
        next();
      });
}

void supervisor_state::stop_checkpointer(pointer self) {
  auto next = [self] { self->state.leave_peers(self); };
  self->request(actors.checkpointer, checkpoint_patience, drain_atom_v).then(next, [next](const caf::error&) {
    next();
  });
}

void supervisor_state::leave_peers(pointer self) {
  auto next = [self] { self->state.close_ledger(self); };
  self->request(actors.peers, short_patience, leave_atom_v).then(next, [next](const caf::error&) { next(); });
}

void supervisor_state::close_ledger(pointer self) {
  auto next = [self] { self->state.end_children(self); };
  self->request(actors.ledger, short_patience, drain_atom_v).then(next, [next](const caf::error&) {
    next();
  });
}

void supervisor_state::end_children(pointer self) {
  for (auto g = groups.rbegin(); g != groups.rend(); ++g)
    for (const auto& [address, who] : g->alive)
      if (auto handle = caf::actor_cast<caf::actor>(address))
        caf::anon_send_exit(handle, caf::exit_reason::user_shutdown);
  end_if_alone(self);
}

void supervisor_state::end_if_alone(pointer self) {
  for (const auto& g : groups)
    if (!g.alive.empty())
      return;
  auto end_front = [self](const auto& handle) {
    caf::anon_send_exit(caf::actor_cast<caf::actor>(handle), caf::exit_reason::user_shutdown);
  };
  end_front(actors.scheduler);
  end_front(actors.trainer);
  end_front(actors.checkpointer);
  end_front(actors.worker);
  end_front(actors.peers);
  end_front(actors.telemetry);
  end_front(actors.limiter);
  end_front(actors.ledger);
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
        if (auto why = s.spawn(self, s.groups.back())) {
          s.give_up(s.groups.back(), text_of(why));
          return why;
        }
        auto done = self->make_response_promise<void>();
        s.begin(self, s.groups.size() - 1, static_cast<caf::response_promise&>(done));
        return done;
      },
      [self](const stop_node&) -> caf::result<void> {
        auto& s = self->state;
        if (s.stopping)
          return refuse(errc::draining, "the node is stopping already");
        s.stopping = true;
        auto stopped = self->make_response_promise<void>();
        s.stopped = stopped;
        s.stop_inference(self);
        return stopped;
      },
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
