#include "actors/gradient_exchanger/gradient_exchanger.hpp"

#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/unit_weights.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <string_view>
#include <utility>

namespace neuroshard {

namespace {

constexpr auto exchanger_tick = std::chrono::milliseconds(100);
constexpr int64_t peers_every_ms = 1'000;
constexpr int64_t sink_every_ms = 5'000;
constexpr std::string_view velocity_prefix = "diloco.v/";
constexpr std::string_view residual_prefix = "diloco.r/";
constexpr std::string_view base_prefix = "diloco.w0/";
constexpr size_t refused_shown = 16;

caf::error exchange_precondition(const char* reason, const char* message) {
  problem what;
  what.reason = reason;
  what.message = message;
  return refuse(errc::failed_precondition, std::move(what));
}

void add_values(outer_tensors& to, std::string_view prefix, const unit_layout& layout,
                const unit_values& values) {
  for (size_t i = 0; i < values.size(); ++i)
    to.tensors.push_back(
        {std::string(prefix) + layout.tensors[i].name, handle_of(layout.tensors[i].shape, values[i])});
}
void add_handles(outer_tensors& to, std::string_view prefix, const unit_layout& layout,
                 const std::vector<tensor_handle>& values) {
  for (size_t i = 0; i < values.size(); ++i)
    to.tensors.push_back({std::string(prefix) + layout.tensors[i].name, values[i]});
}

} // namespace

// --------------------------------------------------------------------------------------------- helpers

exchange_base gradient_exchanger_state::base_of(const held_unit& unit) const {
  exchange_base made;
  made.unit = unit.name;
  made.architecture_id = options.architecture_id;
  made.round = round();
  made.base_unit_hash = unit.hash;
  made.previous_unit_hash = unit.previous_hash;
  made.diloco_steps = options.diloco_steps;
  made.peak_learning_rate = options.peak_learning_rate;
  made.min_cosine = options.min_cosine;
  made.strategy = options.aggregation.strategy;
  made.top_k = options.compression == delta_encoding::topk_i8;
  return made;
}

void gradient_exchanger_state::after(int64_t ms, std::function<void()> what) {
  later.emplace_back(now_ms() + ms, std::move(what));
}

void gradient_exchanger_state::outcome(round_outcome how) {
  settle_reputation();
  const bool alone = how.how == round_end_kind::alone;
  const bool lost_touch = how.how == round_end_kind::resync;
  previous.clear();
  last_content.clear();
  previous_until_ms = now_ms() + round_rules::window_ms;
  for (auto& [id, unit] : units) {
    if (!unit.store.all().empty()) {
      for (const auto* one : unit.store.all())
        last_content[id].emplace(one->manifest.node_id, one->manifest.content_hash);
      previous.emplace(id, std::move(unit.store));
    }
    unit.end_round(lost_touch || alone || !unit.outcome);
  }
  log::info(name, "round-over round={} how={} members={}", how.round,
            alone        ? "alone"
            : lost_touch ? "resync"
                         : "updated",
            how.members);
  now_in = phase::idle;
  if (parts.exchanging)
    parts.exchanging(false);
  must_resync = must_resync && !lost_touch;
  ahead_since_ms.reset();
  if (lost_touch)
    apart_since_ms.reset();
  else
    rounds = how.round;
  ++run;
  if (finished.pending())
    finished.deliver(std::move(how));
}

void gradient_exchanger_state::fail(caf::error why) {
  log::error(name, "round-failed round={} why={}", round(), problem_of(why).message);
  for (auto& [id, unit] : units)
    unit.end_round(false);
  now_in = phase::idle;
  if (parts.exchanging)
    parts.exchanging(false);
  ++run;
  if (finished.pending())
    finished.deliver(std::move(why));
}

void gradient_exchanger_state::tell_trainer() {
  if (now_in != phase::inner || std::exchange(told_trainer, true) || !parts.trainer)
    return;
  self->send(parts.trainer, round_ends{round()});
}

/// T0.
void gradient_exchanger_state::end_heard() {
  if (!ended_ms)
    ended_ms = now_ms();
  tell_trainer();
}

void gradient_exchanger_state::announce(uint64_t version) {
  if (!parts.announced)
    return;
  std::vector<unit_state> held;
  for (const auto& [id, unit] : units) {
    if (unit.version != version)
      continue; // its weights moved and were not read
    unit_state state{id, unit.hash, std::nullopt};
    if (!unit.velocity.empty())
      state.velocity_hash = hash_of_unit(*unit.layout, unit.velocity);
    held.push_back(std::move(state));
  }
  parts.announced(std::move(held), version);
}

// ----------------------------------------------------------------------------------------------- begin

void gradient_exchanger_state::take_restored(held_unit& unit) {
  const auto take = [&](std::string_view prefix) -> std::vector<tensor_handle> {
    const auto at = restored.find(std::string(prefix) + unit.name);
    if (at == restored.end())
      return {};
    auto [layout, values] = std::move(at->second);
    restored.erase(at);
    if (layout == *unit.layout)
      return values;
    log::warn(name, "restored-state-dropped unit={} what={}", unit.name, prefix);
    return {};
  };
  if (auto values = take(velocity_prefix); !values.empty())
    unit.velocity = values_of(values);
  if (auto values = take(residual_prefix); !values.empty())
    unit.residual = error_feedback(values_of(values));
  unit.w0 = take(base_prefix);
}

caf::result<void> gradient_exchanger_state::begin(const begin_round& what) {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  if (now_in != phase::idle && now_in != phase::inner)
    return exchange_precondition("round_under_way", "An outer step is under way.");
  auto promise = self->make_response_promise<caf::unit_t>();
  now_in = phase::beginning;
  ++run;
  base = what.base;
  ended_ms.reset();
  told_trainer = overdue = false;
  authors.clear();
  authors_failed.clear();
  for (auto& [id, unit] : units)
    unit.end_round(false);
  refresh_peers([me = self, promise, mine = run]() mutable {
    auto& state = me->state;
    if (mine != state.run)
      return void(promise.deliver(refuse(errc::aborted, "Another round has begun.")));
    auto seen = std::make_shared<std::set<std::string>>();
    auto what = std::make_shared<reading>();
    what->each = [me, seen](const std::string& id, std::shared_ptr<const unit_layout> layout,
                            std::vector<tensor_handle> values) {
      auto& state = me->state;
      seen->insert(id);
      auto& unit = state.units[id];
      if (!unit.layout || !(*unit.layout == *layout))
        unit = {};
      unit.name = id;
      unit.layout = std::move(layout);
      state.take_restored(unit);
      if (unit.w0.empty())
        unit.w0 = std::move(values);
      unit.now_at(hash_of_unit(*unit.layout, unit.w0), state.base);
      // Nodes that start together know of each other seconds later: w0 is let go of when nobody has come by
      // the time that cohorts are fixed.
      if (!state.connected())
        unit.w0.clear();
      unit.store = {unit.layout, state.options.members_max + 1};
    };
    what->done = [me, promise, seen, mine](caf::expected<uint64_t> t) mutable {
      auto& state = me->state;
      if (mine != state.run)
        return void(promise.deliver(refuse(errc::aborted, "Another round has begun.")));
      if (!t) {
        state.now_in = phase::idle;
        return void(promise.deliver(std::move(t.error())));
      }
      std::erase_if(state.units, [&](const auto& one) { return !seen->contains(one.first); });
      state.restored.clear();
      state.begun_ms = state.now_ms();
      state.now_in = phase::inner;
      state.announce(state.base);
      state.note_peers();
      promise.deliver(caf::unit);
      if (state.early_end && state.early_end->round == state.round())
        state.end_heard();
      state.early_end.reset();
      if (state.must_resync)
        state.tell_trainer();
    };
    state.read_weights(what);
  });
  return promise;
}

// ---------------------------------------------------------------------------------------------- finish

caf::result<round_outcome> gradient_exchanger_state::finish(const finish_round& what) {
  if (draining)
    return refuse(errc::draining, "The node is stopping.");
  if (now_in != phase::inner || what.round != round())
    return exchange_precondition("other_round", "Not this round is under way.");
  finished = self->make_response_promise<round_outcome>();
  auto promise = finished;
  finishing = what;
  now_in = phase::exchange;
  if (parts.exchanging)
    parts.exchanging(true);
  const bool drives = what.drives || overdue;
  const int64_t now = now_ms();
  if (connected() && drives && !ended_ms)
    self->request(parts.peers, caf::infinite,
                  publish_own{publish_kind::round_end,
                              sign_round_end(*parts.identity, {round(), options.architecture_id, own_id(),
                                                               what.inner_steps, unix_ms()})})
        .then([] {}, [](const caf::error&) {});
  if (!ended_ms)
    ended_ms = now;
  lengths.add(*ended_ms - begun_ms);
  refresh_peers([me = self, mine = run] {
    if (mine == me->state.run && me->state.now_in == phase::exchange)
      me->state.begin_exchange();
  });
  return promise;
}

// ----------------------------------------------------------------------------------- for the checkpointer

caf::result<outer_tensors> gradient_exchanger_state::read_state() const {
  outer_tensors made;
  for (const auto& [id, unit] : units) {
    add_values(made, velocity_prefix, *unit.layout, unit.velocity);
    add_values(made, residual_prefix, *unit.layout, unit.residual.residual());
    add_handles(made, base_prefix, *unit.layout, unit.w0);
  }
  for (const auto& [where, one] : restored)
    add_handles(made, where.substr(0, where.find('/') + 1), one.first, one.second);
  return made;
}

caf::result<void> gradient_exchanger_state::restore(const restore_outer_state& what) {
  if (now_in == phase::exchange || now_in == phase::writing)
    return exchange_precondition("round_under_way", "An outer step is under way.");
  std::map<std::string, std::map<std::string, tensor_handle>> sorted;
  for (const auto& [tensor, value] : what.tensors) {
    const auto slash = tensor.find('/');
    const auto prefix = tensor.substr(0, slash == std::string::npos ? 0 : slash + 1);
    const auto unit = unit_of_parameter(std::string_view(tensor).substr(prefix.size()));
    const bool named = prefix == velocity_prefix || prefix == residual_prefix || prefix == base_prefix;
    if (!named || unit.empty() || !value || value.view.type != kernels::dtype::f32 || !value.on_host() ||
        !value.view.contiguous()) {
      problem wrong;
      wrong.field = tensor;
      wrong.message = "Tensor " + tensor + " is no state of the outer loop.";
      return refuse(errc::invalid_request, std::move(wrong));
    }
    sorted[prefix + unit][tensor.substr(prefix.size())] = value;
  }
  restored.clear();
  for (auto& [where, tensors] : sorted) {
    auto& [layout, values] = restored[where];
    for (auto& [tensor, value] : tensors) {
      const auto& shape = value.view.shape;
      layout.tensors.push_back({tensor, {shape.begin(), shape.begin() + value.view.rank}});
      values.push_back(std::move(value));
    }
  }
  units.clear();
  apart_since_ms.reset();
  must_resync = false;
  now_in = phase::idle;
  ++run;
  return caf::unit;
}

caf::result<void> gradient_exchanger_state::drain() {
  draining = true;
  if (now_in == phase::exchange) // the weights were not touched yet
    fail(refuse(errc::draining, "The node is stopping."));
  return caf::unit;
}

// ------------------------------------------------------------------------------------------------ time

void gradient_exchanger_state::tick() {
  const int64_t now = now_ms();
  std::vector<std::function<void()>> due;
  std::erase_if(later, [&](auto& one) {
    if (now < one.first)
      return false;
    due.push_back(std::move(one.second));
    return true;
  });
  for (auto& one : due)
    one();
  if (!previous.empty() && now >= previous_until_ms)
    previous.clear();
  if (!connected())
    return;
  if (now >= next_sink_ms) {
    next_sink_ms = now + sink_every_ms;
    const gradient_exchanger_actor me = self;
    for (const auto kind : {publish_kind::delta_set, publish_kind::round_end})
      self->send(parts.peers, publish_sink{kind, me});
  }
  if (now >= next_peers_ms) {
    next_peers_ms = now + peers_every_ms;
    refresh_peers([me = self] { me->state.note_peers(); });
  }
  if (now_in == phase::inner && units.contains("embed") && !overdue && !ended_ms &&
      round_overdue(now - begun_ms, lengths) &&
      std::any_of(units.begin(), units.end(), [](const auto& one) { return one.second.shared(); })) {
    log::warn(name, "round-overdue round={} ms={}", round(), now - begun_ms);
    overdue = true;
    tell_trainer();
  }
  if (now_in == phase::exchange)
    advance();
}

actor_status gradient_exchanger_state::report() const {
  constexpr std::array<const char*, 5> words{"idle", "beginning", "inner", "exchange", "writing"};
  actor_status made{name, actor_status::health::ok, "", {}};
  uint64_t bytes = 0;
  size_t members = 0;
  size_t velocities = 0;
  for (const auto& [id, unit] : units) {
    bytes += unit.store.bytes();
    members = std::max(members, unit.cohort.size() + 1);
    velocities += !unit.velocity.empty();
  }
  for (const auto& [id, store] : previous)
    bytes += store.bytes();
  uint64_t all_refused = 0;
  for (const auto& [id, count] : refused)
    all_refused += count;
  made.values = {{"phase", words[static_cast<size_t>(now_in)]},
                 {"round", std::to_string(now_in == phase::idle ? rounds : round())},
                 {"members", std::to_string(members)},
                 {"velocities", std::to_string(velocities)},
                 {"held_bytes", std::to_string(bytes)},
                 {"calls", std::to_string(calls)},
                 {"refused", std::to_string(all_refused)},
                 {"last_refused", last_refused}};
  size_t shown = 0;
  for (const auto& [id, count] : refused)
    if (shown++ < refused_shown)
      made.values.emplace_back("refused." + id, std::to_string(count));
  return made;
}

void gradient_exchanger_state::start(gradient_exchanger_parts with, gradient_exchanger_options how) {
  parts = std::move(with);
  options = std::move(how);
  options.members_max = std::min(options.members_max, set_members_max - 1);
}

gradient_exchanger_actor::behavior_type gradient_exchanger(gradient_exchanger_state::pointer self,
                                                           gradient_exchanger_parts parts,
                                                           gradient_exchanger_options options) {
  self->state.self = self;
  self->state.start(std::move(parts), std::move(options));
  self->send(self, tick_atom_v);
  return {
      [self](const begin_round& what) { return self->state.begin(what); },
      [self](const finish_round& what) { return self->state.finish(what); },
      [self](const read_outer_state&) { return self->state.read_state(); },
      [self](const restore_outer_state& what) { return self->state.restore(what); },
      [self](exchange_request& call) { return self->state.exchange(call); },
      [self](const published& what) { self->state.heard(what); },
      [self](tick_atom) {
        self->state.tick();
        self->delayed_send(self, exchanger_tick, tick_atom_v);
      },
      [self](drain_atom) { return self->state.drain(); },
      [self](status_atom) { return self->state.report(); },
  };
}

} // namespace neuroshard
