#include "tests/simulation/network.hpp"
#include "tests/simulation/scenario.hpp"

#include "actors/layer_worker/layer_worker.hpp"
#include "tests/actors/inference_scheduler/scheduler_fixture.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/work_network.hpp"

#include <algorithm>
#include <array>

namespace neuroshard::simulation {

namespace {

using test::recording_sink;

constexpr uint32_t stages = 3;
/// A generation's own time limit, and a moment to say so.
constexpr int64_t ended_within_us = 125 * second_us;
/// A session whose end was not heard of goes after 120 s without use.
constexpr int64_t sessions_end_within_us = 135 * second_us;
constexpr int64_t stale_after_us = 15 * second_us; ///< until then a route may lead over one that is gone

model::architecture staged_architecture() {
  auto a = test::tiny_architecture();
  a.num_layers = stages;
  return a;
}

/// Node 0 drives; it holds the first layer and the embedding. The others hold one of the later layers each.
struct stage_node {
  size_t index = 0;
  uint32_t layer = 0;
  bool other_wallet = false;
  layer_worker_actor worker = {};
  relay_actor relay = {};
  std::vector<caf::strong_actor_ptr> actors = {};
  int64_t gone_since_us = -1; ///< -1: it is up
  std::string id() const { return test::work_network::id_of(index); }
  std::string address() const { return test::work_network::address_of(index); }
};

/// One request, its reader, and what became of it.
struct simulated_generation {
  std::string prompt;
  uint32_t tokens = 0;
  uint64_t seed = 0;
  std::shared_ptr<recording_sink> sink = std::make_shared<recording_sink>();
  std::optional<int64_t> sent_us = {};
  std::optional<std::optional<generation_admitted>> admitted = {}; ///< nothing inside: refused
  bool cancelled = false;
  bool over() const { return sink->result || (admitted && !*admitted); }
};

class generations_world {
public:
  generations_world(uint64_t seed, bool printed) : world_(seed, printed), network_(world_) {}
  outcome run();
  /// The text of a generation that nothing disturbs.
  std::string calm_text(const simulated_generation& of);

private:
  void prepare(bool drawn);
  void add_stage(uint32_t layer);
  void start(stage_node& node);
  void stop(stage_node& node);
  void make_scheduler();
  caf::result<model_route> find_route(const route_request& wanted);
  void send(simulated_generation& one);
  void send_some();
  void disturb();
  void look();
  void check_texts();
  void check_nothing_left();
  uint64_t status_of(const layer_worker_actor& worker, const std::string& key);
  void fail(std::string why) {
    if (failure_.empty())
      failure_ = std::move(why);
  }
  dice& draw() { return world_.random(); }

  world world_;
  network network_;
  std::vector<std::unique_ptr<stage_node>> nodes_;
  std::shared_ptr<peer_list> known_ = std::make_shared<peer_list>();
  test::ledger_script_ptr money_ = std::make_shared<test::ledger_script>();
  inference_options options_;
  inference_scheduler_actor scheduler_;
  std::vector<std::unique_ptr<simulated_generation>> generations_;
  std::string failure_;
};

/// Asked of a world of its own; the same again is remembered.
std::string text_without_faults(const simulated_generation& of) {
  static std::map<std::tuple<std::string, uint32_t, uint64_t>, std::string> texts;
  auto& text = texts[{of.prompt, of.tokens, of.seed}];
  if (text.empty())
    text = generations_world(1, false).calm_text(of);
  return text;
}

void generations_world::add_stage(uint32_t layer) {
  auto node = std::make_unique<stage_node>();
  node->index = nodes_.size();
  node->layer = layer;
  known_->push_back(test::work_network::node(node->index, layer, layer + 1, layer == 0, layer + 1 == stages));
  nodes_.push_back(std::move(node));
}

void generations_world::prepare(bool drawn) {
  options_.context = 64;
  options_.layers = stages;
  options_.prefill_chunk = drawn && draw().chance(0.5) ? 8 : 64;
  options_.address = "0x00000000000000000000000000000000000000aa";
  options_.architecture_id = model::architecture_id(staged_architecture());
  for (uint32_t layer = 0; layer < stages; ++layer)
    add_stage(layer);
  if (drawn)
    for (uint32_t layer = 1; layer < stages; ++layer)
      for (auto replicas = draw().between(0, 2); replicas > 0; --replicas)
        add_stage(layer);
  for (auto& node : nodes_) {
    node->other_wallet = drawn && node->index > 0 && draw().chance(0.5);
    start(*node);
  }
  make_scheduler();
}

void generations_world::start(stage_node& node) {
  node.gone_since_us = -1;
  auto how = test::tiny_options(staged_architecture());
  how.layer_begin = node.layer;
  how.layer_end = node.layer + 1;
  how.embed = node.layer == 0;
  how.head = node.layer + 1 == stages;
  how.slice_flops = 1e12;
  how.prefill_rows_max = 64;
  layer_worker_options of_worker;
  of_worker.architecture_id = options_.architecture_id;
  of_worker.seed = 7;
  of_worker.valid_vocab = text::tokenizer().vocab_size();
  of_worker.detached_hashing = false;
  auto& system = world_.system();
  const time_source_ptr clock = world_.clock();
  node.worker = world_.keep(
      system.spawn(layer_worker, hand_over(test::tiny_stage(staged_architecture(), how)), of_worker, clock));
  const auto directory = world_.keep(
      system.spawn([known = known_](peer_directory_actor::pointer) -> peer_directory_actor::behavior_type {
        return {[known](peers_atom) -> peer_list_ptr { return known; }, [](const publish_sink&) {}};
      }));
  auto& here = network_.connect({node.id(), node.address(), std::nullopt, {}, {}, {}, {}});
  for (const auto& other : *known_) // they have met
    here.bound.insert(other.node.node_id);
  node.relay = world_.keep(system.spawn(relay, relay_options{node.id(), 256},
                                        relay_parts{node.worker, directory, here.link, clock}));
  here.relay = node.relay;
  node.actors.clear();
  for (const auto& actor : {caf::actor_cast<caf::strong_actor_ptr>(here.link),
                            caf::actor_cast<caf::strong_actor_ptr>(node.worker),
                            caf::actor_cast<caf::strong_actor_ptr>(directory),
                            caf::actor_cast<caf::strong_actor_ptr>(node.relay)})
    node.actors.push_back(actor);
  if (!world_.ask<serving_info>(node.worker, refresh_serving{0, 0}))
    fail(fmt::format("node {} serves no weights", node.index));
  world_.note("node {} starts with layer {}", node.index, node.layer);
}

void generations_world::stop(stage_node& node) {
  world_.note("node {} ends", node.index);
  world_.kill(node.actors);
  network_.disconnect(node.address());
  node.gone_since_us = world_.now_us();
}

void generations_world::make_scheduler() {
  auto& system = world_.system();
  inference_parts parts;
  parts.worker = nodes_[0]->worker;
  parts.relay = nodes_[0]->relay;
  parts.link = network_.find(nodes_[0]->address())->link;
  parts.ledger = world_.keep(system.spawn(test::scripted_ledger, money_));
  parts.peers = world_.keep(system.spawn([this](route_source_actor::pointer)
                                             -> route_source_actor::behavior_type {
    return {[this](const route_request& wanted) { return find_route(wanted); }, [](const hop_outcome&) {}};
  }));
  parts.time = world_.clock();
  parts.random = std::make_shared<dice_random>(draw().fork());
  parts.counters = std::make_shared<node_counters>();
  scheduler_ = world_.keep(system.spawn(inference_scheduler, options_, parts));
}

/// Any replica of each layer, as long as it is not known to be gone.
caf::result<model_route> generations_world::find_route(const route_request& wanted) {
  model_route found;
  for (uint32_t layer = 0; layer < stages; ++layer) {
    std::vector<const stage_node*> able;
    for (const auto& node : nodes_)
      if (node->layer == layer &&
          (node->gone_since_us < 0 || world_.now_us() - node->gone_since_us < stale_after_us) &&
          std::find(wanted.exclude.begin(), wanted.exclude.end(), node->id()) == wanted.exclude.end())
        able.push_back(node.get());
    if (able.empty())
      return refuse(errc::no_route,
                    problem{"no node holds layer." + std::to_string(layer), "", "no_route", {}});
    const auto& node = *able[draw().below(able.size())];
    route_hop hop;
    hop.local = node.index == 0;
    hop.node_id = node.id();
    hop.address = hop.local ? "" : node.address();
    hop.layer_begin = layer;
    hop.layer_end = layer + 1;
    hop.budget_ms = hop.local ? 0 : 400;
    found.own_layers_only &= !node.other_wallet;
    found.hops.push_back(std::move(hop));
  }
  return found;
}

void generations_world::send(simulated_generation& one) {
  generation_request what;
  what.prompt = one.prompt;
  what.max_tokens = one.tokens;
  what.seed = one.seed;
  what.sink = one.sink;
  one.sent_us = world_.now_us();
  world_.request<generation_admitted>(
      scheduler_, [&one](std::optional<generation_admitted> answer) { one.admitted = std::move(answer); },
      std::move(what));
}

void generations_world::send_some() {
  constexpr std::array prompts{"hello", "the quick brown fox jumps over the dog", "a", "one two three four"};
  constexpr std::array<uint32_t, 4> lengths{1, 5, 10, 16};
  for (auto count = draw().between(1, 6); count > 0; --count) {
    auto one = std::make_unique<simulated_generation>();
    one->prompt = prompts[draw().below(prompts.size())];
    one->tokens = lengths[draw().below(lengths.size())];
    one->seed = draw().below(3);
    const bool gives_up = draw().chance(0.15);
    world_.after(draw().between(0, 20'000) * ms_us, [this, gives_up, it = one.get()] {
      send(*it);
      if (gives_up)
        world_.after(draw().between(0, 3'000) * ms_us, [this, it] {
          if (!it->admitted || !*it->admitted)
            return;
          it->cancelled = true;
          caf::anon_send(scheduler_, cancel_generation{(*it->admitted)->id, draw().chance(0.5)});
        });
    });
    generations_.push_back(std::move(one));
  }
}

void generations_world::disturb() {
  auto& node = *nodes_[1 + draw().below(nodes_.size() - 1)];
  switch (draw().below(6)) {
  case 0:
  case 1:
    if (node.gone_since_us < 0)
      stop(node);
    else
      start(node);
    break;
  case 2:
    network_.degrade(draw());
    break;
  case 3:
    network_.slow_down(node.address(), draw());
    break;
  case 4:
    network_.groups[node.address()] = 1;
    break;
  default:
    network_.heal();
  }
}

/// What must hold at any time.
void generations_world::look() {
  for (const auto& one : generations_)
    if (one->sent_us && !one->over() && world_.now_us() - *one->sent_us > ended_within_us)
      fail(fmt::format("a generation has not ended after {} s",
                       (world_.now_us() - *one->sent_us) / second_us));
  if (money_->open.size() > generations_.size())
    fail("more is reserved than there are generations");
}

void generations_world::check_texts() {
  for (const auto& one : generations_) {
    if (!one->sink->result) {
      if (!one->admitted || *one->admitted)
        fail("a generation did not end");
      continue;
    }
    const auto& result = *one->sink->result;
    if (result.failure) {
      const auto code = code_of(*result.failure);
      world_.note("failed: {}", problem_of(*result.failure).message);
      if (code == errc::internal || (code == errc::aborted && !one->cancelled))
        fail(fmt::format("a generation ends with: {}", problem_of(*result.failure).message));
    } else if (!one->cancelled && result.text != text_without_faults(*one)) {
      fail(fmt::format("the text is \"{}\" instead of \"{}\"", result.text, text_without_faults(*one)));
    }
    if (result.text != one->sink->text())
      fail("what was streamed is not the text");
  }
}

uint64_t generations_world::status_of(const layer_worker_actor& worker, const std::string& key) {
  if (const auto status = world_.ask<actor_status>(worker, status_atom_v))
    for (const auto& [name, value] : status->values)
      if (name == key)
        return std::stoull(value);
  fail("a layer worker does not tell " + key);
  return 0;
}

void generations_world::check_nothing_left() {
  if (!money_->open.empty())
    fail(fmt::format("{} reservations are neither settled nor refunded", money_->open.size()));
  for (const auto& node : nodes_) {
    if (node->gone_since_us >= 0)
      continue;
    if (const auto left = status_of(node->worker, "sessions"); left > 0)
      fail(fmt::format("node {} holds {} sessions of nobody", node->index, left));
    if (status_of(node->worker, "kv_blocks_free") != status_of(node->worker, "kv_blocks_total"))
      fail(fmt::format("node {} has keys and values of nobody", node->index));
  }
  if (const auto status = world_.ask<actor_status>(scheduler_, status_atom_v); !status)
    fail("the scheduler does not answer");
  else
    for (const auto& [name, value] : status->values)
      if (name != "draining" && value != "0")
        fail(fmt::format("the scheduler has {} {}", value, name));
}

std::string generations_world::calm_text(const simulated_generation& of) {
  prepare(false);
  simulated_generation one;
  one.prompt = of.prompt;
  one.tokens = of.tokens;
  one.seed = of.seed;
  send(one);
  world_.run_until(ended_within_us, [&] { return one.over(); });
  return one.sink->result ? one.sink->result->text : "";
}

outcome generations_world::run() {
  prepare(true);
  send_some();
  for (auto faults = draw().between(0, 10); faults > 0 && failure_.empty(); --faults) {
    world_.run(draw().between(1, 6'000) * ms_us);
    disturb();
    look();
  }
  if (draw().chance(0.5))
    network_.heal();
  const auto all_over = [&] {
    look();
    return !failure_.empty() ||
           std::all_of(generations_.begin(), generations_.end(), [](const auto& one) { return one->over(); });
  };
  world_.run_until(ended_within_us + 30 * second_us, all_over);
  check_texts();
  world_.run(sessions_end_within_us);
  check_nothing_left();
  world_.note("ends: {}", failure_.empty() ? "as it should" : failure_);
  return {failure_, world_.trace_hash(), world_.now_us(), world_.messages()};
}

} // namespace

outcome generations(uint64_t seed, bool printed) {
  return generations_world(seed, printed).run();
}

} // namespace neuroshard::simulation
