#include "tests/simulation/round_node.hpp"

#include "actors/gradient_exchanger/unit_weights.hpp"

#include <algorithm>
#include <cmath>

namespace neuroshard::simulation {

namespace {

constexpr uint32_t simulated_depth = 2;
constexpr float mark_off = 1e-5F; ///< of a sum of a few marks in f32

exchange_peers_actor::behavior_type listening_peers(exchange_peers_actor::pointer self,
                                                    peer_manager_actor manager, round_rulebook* rules) {
  return {
      [=](peers_atom what) -> caf::result<peer_list_ptr> { return self->delegate(manager, what); },
      [=](const publish_sink& what) { self->send(manager, what); },
      [=](const peer_refused& what) { self->send(manager, what); },
      [=](const publish_own& what) -> caf::result<void> {
        if (what.kind == publish_kind::delta_set)
          if (auto set = decode_delta_set(what.blob.payload))
            rules->sets[{set->unit, set->round}].push_back(std::move(*set));
        return self->delegate(manager, what);
      },
  };
}

round_listener::behavior_type listening_trainer(round_listener::pointer,
                                                std::function<void(uint64_t)> heard) {
  return {[heard = std::move(heard)](const round_ends& what) { heard(what.round); }};
}

std::vector<std::string> units_in(const held_range& held) {
  std::vector<std::string> made;
  if (held.embed)
    made.emplace_back("embed");
  for (uint32_t layer = held.begin; layer < held.end; ++layer)
    made.push_back(unit_of_layer(layer));
  if (held.head)
    made.emplace_back("head");
  return made;
}

/// Every node begins with the same weights.
std::vector<float> first_weights(const tensor_shape& of) {
  uint64_t seed = 7;
  for (const char c : of.name)
    seed = seed * 131 + static_cast<unsigned char>(c);
  dice from(seed);
  std::vector<float> made(of.elements());
  for (auto& one : made)
    one = static_cast<float>(from.unit() - 0.5);
  return made;
}

const tensor_handle* tensor_in(const outer_tensors& of, const std::string& name) {
  for (const auto& one : of.tensors)
    if (one.name == name)
      return &one.value;
  return nullptr;
}

std::string marked_tensor(const std::string& unit) {
  return "layers." + unit.substr(unit.find('.') + 1) + ".attn_norm.weight";
}

} // namespace

unit_layout simulated_unit(const std::string& unit) {
  unit_layout made;
  if (unit == "embed") {
    made.tensors = {{"embed.weight", {16, 24}}};
  } else if (unit == "head") {
    made.tensors = {{"head.weight", {24, 16}}, {"norm.weight", {24}}};
  } else {
    const auto prefix = "layers." + unit.substr(unit.find('.') + 1);
    made.tensors = {{prefix + ".attn_norm.weight", {marks}}, {prefix + ".ffn.up.weight", {24, 50}}};
  }
  return made;
}

round_node::round_node(world& in, network& on, round_rulebook& rules, unsigned number, held_range held)
    : world_(in), network_(on), rules_(rules), random_(in.random().fork()),
      node_(make_peer_node(in, number)) {
  node_->board->held = held;
  node_->options.own.architecture_id = rules.options.architecture_id;
  for (const auto& unit : units_in(held))
    for (const auto& tensor : simulated_unit(unit).tensors)
      disk_.weights[tensor.name] = first_weights(tensor);
}

weight_map round_node::in_worker() const {
  weight_map made;
  for (const auto& [name, tensor] : worker_->tensors)
    made[name] = tensor.values;
  return made;
}
void round_node::into_worker(const weight_map& weights) {
  for (auto& [name, tensor] : worker_->tensors)
    tensor.values = weights.at(name);
}

void round_node::start() {
  ++turn_;
  inner_ = false;
  asked_us.reset();
  node_->board->exchanging = false;
  start_peers(world_, network_, *node_);
  worker_ = std::make_shared<test::worker_script>();
  for (const auto& unit : units_in(node_->board->held))
    for (const auto& tensor : simulated_unit(unit).tensors)
      worker_->tensors.push_back({tensor.name, {tensor.shape, disk_.weights.at(tensor.name)}});
  auto& system = world_.system();
  const auto worker = world_.keep(system.spawn(test::scripted_worker, worker_));
  const auto peers = world_.keep(system.spawn(listening_peers, node_->manager, &rules_));
  const auto listener =
      world_.keep(system.spawn(listening_trainer, [this, life = node_->life](uint64_t round) {
        if (!node_->up || node_->life != life || !inner_ || round != disk_.base + 1)
          return;
        // The step it is in is finished first.
        world_.after(draw().between(0, 2'000) * ms_us, [this, turn = turn_] {
          if (same(turn) && inner_)
            finish(false);
        });
      }));
  auto* here = network_.find(node_->address);
  gradient_exchanger_parts parts{worker,          peers,        here->link,
                                 node_->identity, node_->clock, std::make_shared<dice_random>(draw().fork()),
                                 listener};
  parts.announced = [this](std::vector<unit_state> units, uint64_t version) {
    for (const auto& unit : units)
      hashes_[unit.unit] = unit.unit_hash;
    node_->board->units = std::move(units);
    node_->board->model_version = version;
  };
  parts.exchanging = [board = node_->board](bool under_way) { board->exchanging = under_way; };
  exchanger_ = world_.keep(system.spawn(gradient_exchanger, std::move(parts), rules_.options));
  here->exchanger = exchanger_;
  for (const auto& actor :
       {caf::actor_cast<caf::strong_actor_ptr>(worker), caf::actor_cast<caf::strong_actor_ptr>(peers),
        caf::actor_cast<caf::strong_actor_ptr>(listener), caf::actor_cast<caf::strong_actor_ptr>(exchanger_)})
    node_->actors.push_back(actor);
  if (disk_.outer.tensors.empty())
    return begin();
  world_.request<caf::unit_t>(
      exchanger_,
      [this, turn = turn_](std::optional<caf::unit_t> done) {
        if (!same(turn))
          return;
        if (!done)
          rules_.fail(fmt::format("node {} refuses its own checkpoint", node_->number));
        begin();
      },
      restore_outer_state{disk_.outer.tensors});
}

void round_node::end() {
  ++turn_;
  asked_us.reset();
  crash(world_, network_, *node_);
}

void round_node::begin() {
  const uint64_t turn = ++turn_;
  w0_ = in_worker();
  before_ = disk_.outer;
  world_.request<caf::unit_t>(
      exchanger_,
      [this, turn](std::optional<caf::unit_t> done) {
        if (!same(turn))
          return;
        if (!done)
          return rules_.fail(fmt::format("node {} cannot begin a round", node_->number));
        node_->board->training = true;
        inner_ = true;
        train_until(draw().between(2'000, 40'000) * ms_us);
      },
      begin_round{disk_.base});
}

/// Only who holds the embedding counts to H; the others are told.
void round_node::train_until(int64_t us) {
  world_.after(us, [this, turn = turn_] {
    if (same(turn) && inner_ && node_->board->held.embed)
      finish(true);
  });
}

void round_node::inner_steps() {
  for (auto& [name, tensor] : worker_->tensors) {
    if (name.ends_with("attn_norm.weight")) {
      tensor.values[node_->number] += mark;
      continue;
    }
    dice common(disk_.base * 1'009 + tensor.values.size());
    for (auto& value : tensor.values)
      value += static_cast<float>(0.01 * (common.unit() - 0.5) + 0.003 * (draw().unit() - 0.5));
  }
}

void round_node::finish(bool drives) {
  inner_ = false;
  const bool trained = draw().chance(0.95);
  if (trained)
    inner_steps();
  finish_round what;
  what.round = disk_.base + 1;
  what.drives = drives;
  const uint32_t most = rules_.options.diloco_steps;
  what.inner_steps = !trained ? 0 : drives ? most : static_cast<uint32_t>(draw().between(1, most));
  what.batches = 10; // all alike, so that the mean tells how many were counted
  what.tokens = what.inner_steps * 512ULL;
  what.loss = 5;
  asked_us = world_.now_us();
  world_.note("node {} finishes round {}{}", node_->number, what.round, drives ? ", drives" : "");
  world_.request<round_outcome>(
      exchanger_,
      [this, turn = turn_](std::optional<round_outcome> how) {
        if (!same(turn))
          return;
        asked_us.reset();
        if (how)
          ended(*how);
        else
          rules_.fail(fmt::format("node {}: finish_round fails", node_->number));
      },
      what);
}

void round_node::ended(const round_outcome& how) {
  world_.note("node {} round {}: {} with {}", node_->number, how.round,
              how.how == round_end_kind::alone     ? "alone"
              : how.how == round_end_kind::updated ? "updated"
                                                   : "resync",
              how.members);
  if (how.how == round_end_kind::resync) {
    ++resyncs;
    return resync();
  }
  ++updated;
  members = how.members;
  world_.request<outer_tensors>(
      exchanger_,
      [this, turn = turn_, how](std::optional<outer_tensors> outer) {
        if (!same(turn))
          return;
        if (!outer)
          return rules_.fail(fmt::format("node {} does not tell its outer state", node_->number));
        if (how.how == round_end_kind::updated)
          check_marks(how, *outer);
        disk_ = {in_worker(), std::move(*outer), how.round};
        for (const auto& [name, values] : disk_.weights)
          for (const float value : values)
            if (!std::isfinite(value))
              return rules_.fail(fmt::format("node {} has a weight that is not finite", node_->number));
        begin();
      },
      read_outer_state{});
}

/// Whether the marks in an aggregate are those of one published set, each once. What a liar in a set adds is
/// anything.
bool round_node::marks_fit(const std::string& unit, const std::vector<float>& dbar) const {
  const auto fits = [&](const std::set<size_t>& counted) {
    for (size_t i = 0; i < marks; ++i) {
      const float wanted = counted.contains(i) ? mark / static_cast<float>(counted.size()) : 0;
      if (std::abs(dbar[i] - wanted) > mark_off)
        return false;
    }
    return true;
  };
  // No contribution; or, where nobody else holds the unit, the own inner steps.
  if (fits({}) || fits({node_->number}))
    return true;
  const auto sets = rules_.sets.find({unit, disk_.base + 1});
  return sets != rules_.sets.end() &&
         std::any_of(sets->second.begin(), sets->second.end(), [&](const delta_set& set) {
           std::set<size_t> counted;
           for (const auto& entry : set.members) {
             if (rules_.liars.contains(entry.node_id))
               return true;
             for (const auto* one : others)
               if (one->at().id() == entry.node_id)
                 counted.insert(one->at().number);
             if (entry.node_id == node_->id())
               counted.insert(node_->number);
           }
           return fits(counted);
         });
}

void round_node::check_marks(const round_outcome& how, const outer_tensors& after) {
  if (!honest() || rules_.options.aggregation.strategy != aggregation_strategy::mean)
    return;
  const auto& by = rules_.options.outer;
  for (const auto& unit : units_in(node_->board->held)) {
    const auto name = marked_tensor(unit);
    if (!w0_.contains(name))
      continue;
    const auto now = in_worker().at(name);
    const auto* v_before = tensor_in(before_, "diloco.v/" + name);
    const auto* v_after = tensor_in(after, "diloco.v/" + name);
    std::vector<float> by_momentum(marks), plain(marks);
    bool moved = false;
    for (size_t i = 0; i < marks; ++i) {
      const float old_v = v_before ? floats_of(*v_before)[i] : 0;
      const float new_v = v_after ? floats_of(*v_after)[i] : 0;
      by_momentum[i] = new_v - static_cast<float>(by.momentum) * old_v;
      plain[i] = now[i] - w0_.at(name)[i];
      moved = moved || new_v != old_v;
    }
    if (!marks_fit(unit, moved ? by_momentum : plain))
      return rules_.fail(fmt::format("node {} round {} {}: no set explains what was counted ({})",
                                     node_->number, how.round, unit,
                                     fmt::join(moved ? by_momentum : plain, " ")));
  }
}

/// Weights and velocity of the largest group, of equal ones that which is furthest, as GetCheckpoint would
/// give them; asked again while nobody is reached.
void round_node::resync() {
  const uint64_t turn = ++turn_;
  node_->board->training = false;
  world_.after(draw().between(500, 8'000) * ms_us, [this, turn] {
    if (!same(turn))
      return;
    const auto seen = world_.ask<peer_list_ptr>(node_->manager, peers_atom_v);
    std::map<std::pair<uint64_t, std::map<std::string, kernels::digest>>, std::vector<round_node*>> groups;
    for (auto* other : others) {
      const bool known = seen && std::any_of((*seen)->begin(), (*seen)->end(), [&](const peer_info& one) {
                           return one.node.node_id == other->node_->id() && one.state == peer_state::online;
                         });
      const bool whole = std::all_of(disk_.weights.begin(), disk_.weights.end(), [&](const auto& one) {
        return other->disk_.weights.contains(one.first);
      });
      if (known && whole && other->node_->up && other->node_->board->model_version == other->disk_.base)
        groups[{other->disk_.base, other->hashes_}].push_back(other);
    }
    const auto best = std::max_element(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
      return std::pair(a.second.size(), a.first.first) < std::pair(b.second.size(), b.first.first);
    });
    if (best == groups.end())
      return resync();
    const auto& from = best->second.front()->disk_;
    for (auto& [name, values] : disk_.weights)
      values = from.weights.at(name);
    disk_.base = from.base;
    disk_.outer.tensors.clear();
    for (const auto& one : from.outer.tensors)
      if (one.name.starts_with("diloco.v/") && disk_.weights.contains(one.name.substr(9)))
        disk_.outer.tensors.push_back(one);
    world_.note("node {} takes outer step {} of node {}", node_->number, disk_.base,
                best->second.front()->at().number);
    into_worker(disk_.weights);
    world_.request<caf::unit_t>(
        exchanger_,
        [this, turn](std::optional<caf::unit_t> done) {
          if (!same(turn))
            return;
          if (!done)
            return rules_.fail(fmt::format("node {} cannot take others' weights", node_->number));
          begin();
        },
        restore_outer_state{disk_.outer.tensors});
  });
}

} // namespace neuroshard::simulation
