#include "tests/simulation/round_liar.hpp"
#include "tests/simulation/scenario.hpp"

#include <algorithm>
#include <array>

namespace neuroshard::simulation {

namespace {

/// 60 s of a window, 15 s for each of 3 collectors, 15 s to fetch from each of them, 15 s for late records.
constexpr int64_t answered_within_us = 185 * second_us;
/// Found again within 64 s, seen to be behind for 15 s, a round to end, weights to fetch, and a round
/// together.
constexpr int64_t together_within_us = 900 * second_us;
constexpr int64_t round_together_us = 400 * second_us;
constexpr size_t messages_waiting_max = 400;
constexpr uint64_t contribution_bytes_max = 64'000; ///< of one node's units, in any encoding

class rounds_world {
public:
  rounds_world(uint64_t seed, bool printed) : world_(seed, printed), network_(world_) {}
  outcome run();

private:
  void prepare();
  void add_node(unsigned number, held_range held);
  void add_liar();
  void disturb();
  void end_faults();
  void look();
  std::string apart();
  std::vector<round_node*> those(bool up);
  dice& draw() { return world_.random(); }

  world world_;
  network network_;
  round_rulebook rules_;
  std::vector<std::unique_ptr<round_node>> nodes_;
  std::unique_ptr<round_liar> liar_;
};

void rounds_world::add_node(unsigned number, held_range held) {
  auto node = std::make_unique<round_node>(world_, network_, rules_, number, held);
  auto& options = node->at().options;
  for (unsigned seed = 1; seed <= 2; ++seed)
    if (seed != number)
      options.seed_peers.push_back("10.0.0." + std::to_string(seed) + ":9000");
  nodes_.push_back(std::move(node));
}

void rounds_world::add_liar() {
  const auto what = static_cast<lie>(draw().below(lies));
  const auto& who = nodes_.back()->at();
  rules_.liars.insert(who.id());
  world_.note("node {} lies: {}", who.number, to_string(what));
  liar_ = std::make_unique<round_liar>(who.identity, what, draw().fork());
  network_.on_exchange = [this, id = who.id()](const std::string& from, const std::string& to,
                                               exchange_request& call) {
    if (from == id && call.manifest)
      liar_->change(to, *call.manifest, call.part_data);
  };
  network_.on_exchange_reply = [this, id = who.id()](const std::string& from, const std::string& to,
                                                     bool fetched, exchange_reply& reply) {
    if (from == id && !fetched && reply.reply_manifest)
      liar_->change(to, *reply.reply_manifest, reply.reply_data);
  };
}

void rounds_world::prepare() {
  auto& options = rules_.options;
  options.architecture_id = "0123456789abcdef";
  options.diloco_steps = 10;
  options.peak_learning_rate = 1e-2;
  options.aggregation.strategy =
      draw().chance(0.6) ? aggregation_strategy::mean : static_cast<aggregation_strategy>(draw().below(6));
  constexpr std::array encodings{delta_encoding::f32, delta_encoding::dense_i8, delta_encoding::dense_i4};
  options.compression = encodings[draw().below(encodings.size())];
  const auto count = static_cast<unsigned>(draw().between(2, 6));
  const bool parts = draw().chance(0.3);
  for (unsigned number = 1; number <= count; ++number) {
    held_range held{0, 2, true, true};
    if (parts && number > 2 && draw().chance(0.5))
      held = draw().chance(0.5) ? held_range{0, 1, true, false} : held_range{1, 2, false, true};
    add_node(number, held);
  }
  for (auto& node : nodes_)
    for (auto& other : nodes_)
      if (other != node)
        node->others.push_back(other.get());
  if (count >= 4 && draw().chance(0.5))
    add_liar();
  world_.note("{} nodes, {}, encoding {}", count, to_string(options.aggregation.strategy),
              static_cast<int>(options.compression));
  for (auto& node : nodes_)
    world_.after(draw().between(0, 5'000) * ms_us, [one = node.get()] {
      if (one->at().life == 0)
        one->start();
    });
}

std::vector<round_node*> rounds_world::those(bool up) {
  std::vector<round_node*> found;
  for (const auto& one : nodes_)
    if (one->at().life > 0 && one->at().up == up)
      found.push_back(one.get());
  return found;
}

void rounds_world::disturb() {
  const auto running = those(true), ended = those(false);
  switch (draw().below(6)) {
  case 0:
    if (running.size() > 1)
      running[draw().below(running.size())]->end();
    break;
  case 1:
    if (!ended.empty())
      ended[draw().below(ended.size())]->start();
    break;
  case 2:
    network_.split(draw());
    break;
  case 3:
    network_.degrade(draw());
    break;
  case 4:
    if (!running.empty())
      network_.slow_down(running[draw().below(running.size())]->at().address, draw());
    break;
  default:
    network_.heal();
  }
}

void rounds_world::end_faults() {
  network_.heal();
  for (auto* node : those(false))
    if (node->at().number <= 2 || draw().chance(0.7))
      node->start();
}

/// What must hold at any time.
void rounds_world::look() {
  if (world_.waiting_most() > messages_waiting_max)
    rules_.fail(fmt::format("{} messages have waited at an actor", world_.waiting_most()));
  for (const auto& node : nodes_) {
    if (!node->at().up)
      continue;
    if (node->asked_us && world_.now_us() - *node->asked_us > answered_within_us)
      rules_.fail(fmt::format("node {} has not ended its round for {} s", node->at().number,
                              (world_.now_us() - *node->asked_us) / second_us));
    const auto status = world_.ask<actor_status>(node->exchanger(), status_atom_v);
    if (!status) {
      rules_.fail(fmt::format("the exchanger of node {} does not answer", node->at().number));
      continue;
    }
    for (const auto& [name, value] : status->values) {
      if (name == "calls" && std::stoull(value) > rules_.options.calls_max)
        rules_.fail(fmt::format("node {} has {} calls under way", node->at().number, value));
      // Of this round and of the one before, of each node two where it says two things.
      if (name == "held_bytes" && std::stoull(value) > 4 * nodes_.size() * contribution_bytes_max)
        rules_.fail(fmt::format("node {} holds {} bytes of contributions", node->at().number, value));
    }
  }
}

/// Whether the honest nodes that are up stand at one outer step with equal weights; else who does not.
std::string rounds_world::apart() {
  round_node* first = nullptr;
  std::map<std::string, unit_state> units;
  for (auto* node : those(true)) {
    if (!node->honest())
      continue;
    if (!first)
      first = node;
    const auto& board = *node->at().board;
    if (board.model_version != first->at().board->model_version)
      return fmt::format("node {} is at outer step {}, node {} at {}", node->at().number, board.model_version,
                         first->at().number, first->at().board->model_version);
    for (const auto& unit : board.units)
      if (const auto at = units.emplace(unit.unit, unit).first; !(at->second == unit))
        return fmt::format("at outer step {} node {} holds another {}", board.model_version,
                           node->at().number, unit.unit);
  }
  return {};
}

outcome rounds_world::run() {
  prepare();
  const auto looking = [&] {
    look();
    return !rules_.failure.empty();
  };
  world_.run_until(draw().between(10, 120) * second_us, looking);
  for (auto faults = draw().between(0, 8); faults > 0 && rules_.failure.empty(); --faults) {
    disturb();
    world_.run_until(draw().between(1'000, 60'000) * ms_us, looking);
  }
  end_faults();
  const auto settled = [&](uint64_t steps) {
    std::map<round_node*, uint64_t> goals;
    for (auto* node : those(true))
      if (node->honest())
        goals[node] = node->updated + steps;
    return [this, goals] {
      look();
      return !rules_.failure.empty() ||
             (apart().empty() && std::all_of(goals.begin(), goals.end(), [](const auto& one) {
                return one.first->updated >= one.second;
              }));
    };
  };
  if (rules_.failure.empty() && !world_.run_until(together_within_us, settled(1)))
    rules_.fail(
        fmt::format("not together {} s after the last fault: {}", together_within_us / second_us, apart()));
  if (rules_.failure.empty() && !world_.run_until(round_together_us, settled(2)))
    rules_.fail("together, and then not two rounds more: " + apart());
  world_.note("ends: {}", rules_.failure.empty() ? "as it should" : rules_.failure);
  return {rules_.failure, world_.trace_hash(), world_.now_us(), world_.messages()};
}

} // namespace

outcome rounds(uint64_t seed, bool printed) {
  return rounds_world(seed, printed).run();
}

} // namespace neuroshard::simulation
