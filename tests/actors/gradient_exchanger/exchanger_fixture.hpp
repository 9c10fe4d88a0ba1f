#pragma once

#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/gradient_exchanger/unit_weights.hpp"
#include "tests/actors/gradient_exchanger/exchange_fixture.hpp"
#include "tests/actors/layer_worker/worker_fixture.hpp"
#include "tests/support/exchange_network.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::test {

using exchange_tests::draws;
using weight_map = std::map<std::string, std::vector<float>>;

inline round_listener::behavior_type note_round_ends(round_listener::pointer,
                                                     std::shared_ptr<std::vector<uint64_t>> heard) {
  return {[heard](const round_ends& what) { heard->push_back(what.round); }};
}

/// Exchangers with a layer worker each, of equal weights, on one network and one clock. What a round's inner
/// steps do to the weights is written into the worker: a drift that all share and noise of each node's own.
struct exchanger_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_peer_manager,
                    caf::id_block::neuroshard_peer_link, caf::id_block::neuroshard_gradient_exchanger,
                    caf::id_block::neuroshard_exchange_link> {
  struct node {
    std::shared_ptr<const node_identity> who;
    layer_worker_actor worker;
    exchange_peers_actor peers;
    exchange_link_actor link;
    round_listener listener;
    gradient_exchanger_actor exchanger;
    std::shared_ptr<bool> exchanging = std::make_shared<bool>(false);
    std::shared_ptr<std::vector<uint64_t>> ends = std::make_shared<std::vector<uint64_t>>();
    std::string id() const { return who->node_id(); }
  };
  using outcome_answer = answer<round_outcome>;

  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  exchange_network_ptr network = std::make_shared<exchange_network>();
  std::string architecture = model::architecture_id(tiny_architecture());
  gradient_exchanger_options options;
  std::vector<std::unique_ptr<node>> nodes;

  explicit exchanger_fixture(size_t count, gradient_exchanger_options how = {}) : options(std::move(how)) {
    options.architecture_id = architecture;
    options.diloco_steps = 10;
    options.peak_learning_rate = 1e-2;
    for (size_t i = 0; i < count; ++i)
      join();
  }

  /// What of the two layers' model a node holds.
  struct range {
    uint32_t begin = 0, end = 2;
    bool embed = true, head = true;
  };
  node& join() { return join(range{}); }
  node& join(range held) {
    const auto number = nodes.size() + 1;
    auto made = std::make_unique<node>();
    auto token = parse_token(std::string(60, 'b') + std::to_string(1'000 + number));
    REQUIRE(static_cast<bool>(token));
    auto identity = node_identity::make(*token, 0, clock->unix_us() / 1'000);
    REQUIRE(static_cast<bool>(identity));
    made->who = std::make_shared<const node_identity>(std::move(*identity));
    const std::string host = "10.0.0." + std::to_string(number);
    layer_worker_options of_worker;
    of_worker.architecture_id = architecture;
    of_worker.seed = 7;
    of_worker.valid_vocab = 266;
    of_worker.detached_hashing = false;
    const auto shape = tiny_architecture();
    auto how = tiny_options(shape);
    how.layer_begin = held.begin;
    how.layer_end = held.end;
    how.embed = held.embed;
    how.head = held.head;
    made->worker =
        keep(sys.spawn(layer_worker, hand_over(tiny_stage(shape, how)), of_worker, time_source_ptr{clock}));
    peer_info record;
    record.node.node_id = made->id();
    record.node.host = host;
    record.node.grpc_port = 9'000;
    record.node.has_embedding = held.embed;
    record.node.has_lm_head = held.head;
    record.node.layer_begin = held.begin;
    record.node.layer_end = held.end;
    record.node.architecture_id = architecture;
    record.node.training = true;
    record.state = peer_state::online;
    for (const auto& unit : model::units_of(shape, held.begin, held.end, held.embed, held.head))
      record.node.units.push_back({unit.name, {}, {}});
    network->records[made->id()] = record;
    network->addresses[made->id()] = host + ":9000";
    made->peers = keep(sys.spawn(network_exchange_peers, network, made->id()));
    made->link = keep(sys.spawn(network_exchange_link, network, made->id()));
    made->listener = keep(sys.spawn(note_round_ends, made->ends));
    nodes.push_back(std::move(made));
    start(nodes.size() - 1);
    return *nodes.back();
  }
  /// Makes a node's exchanger, anew where there was one.
  void start(size_t i) {
    auto& one = *nodes[i];
    gradient_exchanger_parts parts{one.worker,  one.peers, one.link,
                                   one.who,     clock,     std::make_shared<counting_random>(i + 1),
                                   one.listener};
    parts.announced = [network = network, id = one.id()](std::vector<unit_state> held, uint64_t version) {
      network->records[id].node.units = std::move(held);
      network->records[id].node.model_version = version;
    };
    parts.exchanging = [flag = one.exchanging](bool under_way) { *flag = under_way; };
    one.exchanger = keep(sys.spawn(gradient_exchanger, parts, options));
    network->exchangers[network->addresses[one.id()]] = one.exchanger;
    sched.run();
  }
  void die(size_t i) {
    network->down.insert(nodes[i]->id());
    network->exchangers.erase(network->addresses[nodes[i]->id()]);
    network->records[nodes[i]->id()].state = peer_state::stale;
    caf::anon_send_exit(nodes[i]->exchanger, caf::exit_reason::kill);
    sched.run();
  }

  void run_ms(int64_t ms) {
    for (int64_t at = 0; at < ms; at += 100) {
      clock->advance_us(100'000);
      sched.advance_time(std::chrono::milliseconds(100));
      sched.run();
    }
  }

  /// All f32 tensors of a node's worker; with the moments on demand.
  weight_map weights(size_t i, bool moments = false, uint64_t* t = nullptr) {
    weight_map made;
    auto opened = ask<snapshot_opened>(*this, nodes[i]->worker, open_snapshot{moments});
    REQUIRE(opened);
    if (t)
      *t = opened->optimizer_step;
    for (const auto& entry : opened->tensors) {
      auto value =
          ask<tensor_handle>(*this, nodes[i]->worker, read_snapshot{opened->snapshot_id, entry.name});
      REQUIRE(value);
      const auto floats = floats_of(*value);
      made[entry.name].assign(floats.begin(), floats.end());
    }
    return made;
  }
  void set_weights(size_t i, const weight_map& to) {
    auto opened = ask<snapshot_opened>(*this, nodes[i]->worker, open_snapshot{false});
    REQUIRE(opened);
    REQUIRE(ask<caf::unit_t>(*this, nodes[i]->worker, close_snapshot{opened->snapshot_id}));
    for (const auto& entry : opened->tensors)
      REQUIRE(ask<caf::unit_t>(*this, nodes[i]->worker,
                               write_tensor{entry.name, handle_of(entry.shape, to.at(entry.name))}));
    REQUIRE(ask<caf::unit_t>(*this, nodes[i]->worker, finish_load{opened->optimizer_step}));
  }
  /// Inner steps: weights move by at most about a tenth of what 10 steps can do.
  void train(size_t i, uint64_t round, double noise = 0.005) {
    auto now = weights(i);
    draws shared(1'000 + round), own(2'000 + 100 * round + i);
    for (auto& [name, values] : now)
      for (auto& value : values)
        value += shared.normal(0.01) + own.normal(noise);
    set_weights(i, now);
  }

  void begin(size_t i, uint64_t base) {
    auto begun = ask<caf::unit_t>(*this, nodes[i]->exchanger, begin_round{base});
    INFO(problem_of(begun.refused).message);
    REQUIRE(begun);
  }
  void begin_all(uint64_t base) {
    for (size_t i = 0; i < nodes.size(); ++i)
      if (!network->down.contains(nodes[i]->id()))
        begin(i, base);
    run_ms(2'000);
  }
  auto finish_later(size_t i, uint64_t round, bool drives = false, uint32_t steps = 10) {
    return ask_later<round_outcome>(*this, nodes[i]->exchanger,
                                    finish_round{round, drives, steps, steps, steps * 512ULL, 5.0});
  }
  /// Nodes of `who` train and finish a round; node who[0] drives. Their outcomes.
  std::vector<outcome_answer> finish_all(uint64_t round, const std::vector<size_t>& who, int64_t ms = 4'000,
                                         bool trained = true) {
    if (trained)
      for (const size_t i : who)
        train(i, round);
    std::vector<decltype(finish_later(0, 0))> asked_of;
    for (const size_t i : who) {
      asked_of.push_back(finish_later(i, round, i == who.front()));
      sched.run();
    }
    run_ms(ms);
    std::vector<outcome_answer> made;
    for (const size_t i : who)
      REQUIRE(value(i, "phase") == "idle"); // it has answered
    for (auto& one : asked_of)
      made.push_back(one.receive());
    return made;
  }
  /// The answer to finish_later, which must have come.
  template <class Asked>
  outcome_answer got(size_t i, Asked& asked) {
    REQUIRE(value(i, "phase") == "idle");
    return asked.receive();
  }
  std::string value(size_t i, const std::string& key) {
    auto status = ask<actor_status>(*this, nodes[i]->exchanger, status_atom_v);
    REQUIRE(status);
    for (const auto& [name, what] : status->values)
      if (name == key)
        return what;
    return {};
  }
  const std::vector<unit_state>& announced(size_t i) { return network->records[nodes[i]->id()].node.units; }
  /// Same weights in the workers, same hashes and velocity hashes in the records.
  void check_equal(const std::vector<size_t>& who) {
    const auto first = weights(who.front());
    for (const size_t i : who) {
      CHECK((weights(i) == first));
      CHECK((announced(i) == announced(who.front())));
    }
  }
};

} // namespace neuroshard::test
