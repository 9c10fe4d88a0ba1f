#include "tests/simulation/peer_node.hpp"
#include "tests/simulation/scenario.hpp"

#include <algorithm>

namespace neuroshard::simulation {

namespace {

constexpr uint32_t simulated_layers = 6;
constexpr unsigned seeds_count = 3;
/// After the last fault: a seed is tried after a minute at most, a ghost is dead after one, a keeper is one
/// who has been ONLINE for one, its map comes with the next heartbeats.
constexpr int64_t settled_within_us = 240 * second_us;
constexpr int64_t moved_within_us = 30 * second_us; ///< a range moves still: told, loaded, announced
constexpr size_t waiting_max = 200;                 ///< messages at one actor
constexpr size_t calls_max = 64;                    ///< of one node under way

class membership_world {
public:
  membership_world(uint64_t seed, bool printed) : world_(seed, printed), network_(world_) {}
  outcome run();

private:
  void prepare();
  void start(peer_node& node);
  void disturb();
  void end_faults();
  void look_at_bounds();
  std::string wrong();
  std::vector<peer_node*> those(bool up);
  dice& draw() { return world_.random(); }

  world world_;
  network network_;
  std::vector<std::unique_ptr<peer_node>> nodes_;
  std::string failure_;
};

void membership_world::prepare() {
  const auto count = static_cast<unsigned>(draw().between(3, 8));
  for (unsigned number = 1; number <= count; ++number) {
    auto node = make_peer_node(world_, number);
    auto& options = node->options;
    options.total_layers = simulated_layers;
    options.architecture = "{}";
    options.own.architecture_id = architecture_id_of({0, options.architecture, {}, {}, 0, {}});
    options.own.max_layers = static_cast<uint32_t>(draw().between(1, simulated_layers));
    for (unsigned seed = 1; seed <= seeds_count; ++seed)
      if (seed != number)
        options.seed_peers.push_back("10.0.0." + std::to_string(seed) + ":9000");
    world_.after(draw().between(0, draw().chance(0.3) ? 90 : 10) * second_us, [this, one = node.get()] {
      if (one->life == 0)
        start(*one);
    });
    nodes_.push_back(std::move(node));
  }
}

/// What a node is told to hold it holds a while later, unless it was told something else meanwhile.
void membership_world::start(peer_node& node) {
  auto told = std::make_shared<uint64_t>(0);
  start_peers(world_, network_, node, [this, &node, told, life = node.life + 1](const placement_changed& to) {
    const held_range range{to.layer_begin, to.layer_end, to.embed, to.head};
    world_.note("node {} is to hold [{}, {})", node.number, range.begin, range.end);
    world_.after(draw().between(100, 8'000) * ms_us, [&node, told, range, mine = ++*told, life] {
      if (mine != *told || !node.up || node.life != life)
        return;
      node.board->held = range;
      node.board->units.clear();
      for (uint32_t layer = range.begin; layer < range.end; ++layer)
        node.board->units.push_back({unit_of_layer(layer), kernels::sha256::of(unit_of_layer(layer)), {}});
    });
  });
}

std::vector<peer_node*> membership_world::those(bool up) {
  std::vector<peer_node*> found;
  for (const auto& one : nodes_)
    if (one->life > 0 && one->up == up)
      found.push_back(one.get());
  return found;
}

void membership_world::disturb() {
  const auto running = those(true), ended = those(false);
  const auto any = [&](const std::vector<peer_node*>& of) -> peer_node& {
    return *of[draw().below(of.size())];
  };
  switch (draw().below(8)) {
  case 0:
  case 1:
    if (!running.empty())
      crash(world_, network_, any(running));
    break;
  case 2:
  case 3:
    if (!ended.empty()) {
      auto& node = any(ended);
      if (node.number > seeds_count && draw().chance(0.3))
        ++node.options.own.grpc_port;
      if (draw().chance(0.3)) // its disk is lost
        *node.board = {};
      start(node);
    }
    break;
  case 4:
    if (!running.empty()) {
      auto& node = any(running);
      world_.note("node {} leaves", node.number);
      world_.ask<caf::unit_t>(node.manager, leave_atom_v);
      world_.run(draw().between(0, 1'500) * ms_us);
      crash(world_, network_, node);
    }
    break;
  case 5:
    network_.split(draw());
    break;
  case 6:
    network_.degrade(draw());
    if (!running.empty() && draw().chance(0.3))
      network_.slow_down(any(running).address, draw());
    break;
  default:
    network_.heal();
  }
}

void membership_world::end_faults() {
  network_.heal();
  for (auto* node : those(false))
    if (node->number == 1 || draw().chance(0.5))
      start(*node);
}

void membership_world::look_at_bounds() {
  if (world_.waiting_most() > waiting_max && failure_.empty())
    failure_ = fmt::format("{} messages have waited at an actor", world_.waiting_most());
  if (network_.calls_most > calls_max && failure_.empty())
    failure_ = fmt::format("{} calls of one node are under way", network_.calls_most);
}

std::string membership_world::wrong() {
  auto why = strangers_among(world_, nodes_);
  return why.empty() ? maps_among(world_, nodes_) : why;
}

outcome membership_world::run() {
  prepare();
  world_.run(draw().between(1, 40) * second_us);
  for (auto faults = draw().between(0, 14); faults > 0 && failure_.empty(); --faults) {
    disturb();
    world_.run(draw().between(100, 25'000) * ms_us);
    look_at_bounds();
  }
  world_.run_until(90 * second_us, [&] { return those(true).size() + those(false).size() == nodes_.size(); });
  end_faults();
  const auto settled = [&] {
    look_at_bounds();
    return !failure_.empty() || wrong().empty();
  };
  if (!world_.run_until(settled_within_us, settled))
    failure_ =
        fmt::format("not settled {} s after the last fault: {}", settled_within_us / second_us, wrong());
  if (failure_.empty() && draw().chance(0.3)) {
    world_.run(draw().between(10, 100) * second_us);
    if (!world_.run_until(moved_within_us, settled))
      failure_ = "settled, and then no more: " + wrong();
  }
  world_.note("ends: {}", failure_.empty() ? "as it should" : failure_);
  return {failure_, world_.trace_hash(), world_.now_us(), world_.messages()};
}

} // namespace

outcome membership(uint64_t seed, bool printed) {
  return membership_world(seed, printed).run();
}

} // namespace neuroshard::simulation
