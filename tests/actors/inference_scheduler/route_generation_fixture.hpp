#pragma once

#include "actors/layer_worker/layer_worker.hpp"
#include "tests/actors/inference_scheduler/scheduler_fixture.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/work_network.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace neuroshard::test {

/// The tiny model, three layers deep, on several nodes with the reference backend in f32; the scheduler is
/// that of node `driver`. Nodes: 0 holds the embedding and layer 0, 1 and 3 layer 1, 2 and 4 layer 2 and the
/// head.
struct route_generation_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_ledger,
                    caf::id_block::neuroshard_peer_manager, caf::id_block::neuroshard_peer_link,
                    caf::id_block::neuroshard_relay, caf::id_block::neuroshard_work_link,
                    caf::id_block::neuroshard_inference_scheduler> {
  struct range {
    uint32_t begin, end;
  };
  static model::architecture shape() {
    auto a = tiny_architecture();
    a.num_layers = 3;
    return a;
  }
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  ledger_script_ptr money = std::make_shared<ledger_script>();
  work_network_ptr network = std::make_shared<work_network>();
  inference_options options;
  std::vector<range> ranges{{0, 1}, {1, 2}, {2, 3}, {1, 2}, {2, 3}};
  size_t driver = 0;
  std::set<size_t> gone;         ///< nodes that no route leads over
  std::set<size_t> other_wallet; ///< nodes that are not this wallet's
  std::vector<layer_worker_actor> workers;
  std::vector<relay_actor> relays;
  std::vector<work_link_actor> links;
  std::vector<hop_outcome> outcomes;
  std::vector<route_request> asked_for;
  std::vector<peer_refused> refusals;
  std::string network_hash; ///< of the model, as the layer map has it
  /// Whose nodes these are; empty: nodes without keys, which make no receipts.
  std::vector<std::shared_ptr<const node_identity>> identities;
  std::map<size_t, std::vector<record_receipt>> books; ///< what a node's relay has kept
  inference_scheduler_actor scheduler;

  route_generation_fixture() {
    options.context = 64;
    options.layers = 3;
    options.prefill_chunk = 64;
    options.address = "0x00000000000000000000000000000000000000aa";
    options.architecture_id = model::architecture_id(shape());
  }
  static std::string address(size_t node) { return work_network::address_of(node); }
  std::string id(size_t node) const {
    return identities.empty() ? work_network::id_of(node) : identities[node]->node_id();
  }
  /// Each node is of a wallet of its own.
  void give_keys() {
    for (const char* token :
         {"correct-horse", "battery-staple", "purple-monkey", "dishwasher", "tr0ub4dor"}) {
      auto made = node_identity::make(*parse_token(token), 0, clock->unix_us() / 1'000);
      REQUIRE(made);
      identities.push_back(std::make_shared<const node_identity>(std::move(*made)));
    }
    options.address = identities[driver]->address();
  }
  receipt_book_actor book_of(size_t node) {
    return keep(sys.spawn([this, node](receipt_book_actor::pointer) -> receipt_book_actor::behavior_type {
      return {[this, node](const record_receipt& what) {
        books[node].push_back(what);
        return receipt_recorded{};
      }};
    }));
  }
  /// Hands what is published for one node to its relay, as that node's peer manager would.
  receipt_link_actor receipt_link() {
    return keep(sys.spawn([this](receipt_link_actor::pointer self) -> receipt_link_actor::behavior_type {
      return {[this, self](const peer_call<publish_request>& call) {
        CHECK(call.what.ttl == 0);
        CHECK(call.what.id == kernels::sha256::of(call.what.blob.payload));
        self->send(network->relays.at(call.to.address),
                   published{call.what.kind, call.what.blob, {}, id(driver)});
        return publish_reply{true, false, {}};
      }};
    }));
  }

  void spawn() {
    network->time = clock;
    auto directory = keep(sys.spawn(network_directory, network));
    auto known = std::make_shared<peer_list>();
    for (size_t i = 0; i < ranges.size(); ++i) {
      const bool embed = ranges[i].begin == 0, head = ranges[i].end == 3;
      known->push_back(work_network::node(i, ranges[i].begin, ranges[i].end, embed, head));
      known->back().node.node_id = id(i);
      auto how = tiny_options(shape());
      how.layer_begin = ranges[i].begin;
      how.layer_end = ranges[i].end;
      how.embed = embed;
      how.head = head;
      how.slice_flops = 1e12;
      how.prefill_rows_max = 64;
      layer_worker_options worker_options;
      worker_options.architecture_id = options.architecture_id;
      worker_options.seed = 7;
      worker_options.valid_vocab = text::tokenizer().vocab_size();
      worker_options.detached_hashing = false;
      workers.push_back(keep(sys.spawn(layer_worker, hand_over(tiny_stage(shape(), how)), worker_options,
                                       time_source_ptr{clock})));
      links.push_back(keep(sys.spawn(network_work_link, network, id(i))));
      relay_parts hop{workers[i], directory, links[i], time_source_ptr{clock}};
      if (!identities.empty()) {
        hop.book = book_of(i);
        hop.identity = identities[i];
        hop.random = std::make_shared<counting_random>(100 + i);
      }
      relays.push_back(keep(sys.spawn(relay, relay_options{id(i), 256}, hop)));
      network->relays[address(i)] = relays[i];
      REQUIRE(ask<serving_info>(*this, workers[i], refresh_serving{0, 0}));
    }
    network->peers = known;
    inference_parts parts;
    parts.worker = workers[driver];
    parts.relay = relays[driver];
    parts.link = links[driver];
    parts.ledger = keep(sys.spawn(scripted_ledger, money));
    parts.peers = keep(sys.spawn([this](route_source_actor::pointer) -> route_source_actor::behavior_type {
      return {[this](const route_request& wanted) { return find_route(wanted); },
              [this](const hop_outcome& of) { outcomes.push_back(of); }};
    }));
    parts.time = clock;
    parts.random = std::make_shared<counting_random>();
    parts.counters = counters;
    if (!identities.empty()) {
      auto judge = keep(sys.spawn([this](refusal_listener::pointer) -> refusal_listener::behavior_type {
        return {[this](const peer_refused& what) { refusals.push_back(what); }};
      }));
      parts.receipts = {identities[driver], parts.ledger, receipt_link(), judge, clock};
    }
    scheduler = keep(sys.spawn(inference_scheduler, options, parts));
  }

  caf::result<model_route> find_route(const route_request& wanted) {
    asked_for.push_back(wanted);
    model_route found;
    found.model_hash = network_hash;
    for (uint32_t layer = 0; layer < 3; layer = found.hops.back().layer_end) {
      const size_t before = found.hops.size();
      for (size_t i = 0; i < ranges.size() && found.hops.size() == before; ++i) {
        const auto node_id = id(i);
        if (ranges[i].begin != layer || gone.contains(i) ||
            std::find(wanted.exclude.begin(), wanted.exclude.end(), node_id) != wanted.exclude.end())
          continue;
        route_hop hop;
        hop.local = i == driver;
        hop.node_id = node_id;
        hop.address = hop.local ? "" : address(i);
        hop.layer_begin = ranges[i].begin;
        hop.layer_end = ranges[i].end;
        hop.budget_ms = hop.local ? 0 : 400;
        found.own_layers_only &= !other_wallet.contains(i);
        found.hops.push_back(std::move(hop));
      }
      if (found.hops.size() == before)
        return refuse(errc::no_route,
                      problem{"no node holds layer." + std::to_string(layer), "", "no_route", {}});
    }
    return found;
  }

  std::shared_ptr<recording_sink> start(std::string prompt = "hello", uint32_t tokens = 10,
                                        uint64_t seed = 1) {
    auto sink = std::make_shared<recording_sink>();
    auto r = scheduler_fixture::request(sink, std::move(prompt), tokens);
    r.seed = seed;
    caf::anon_send(scheduler, std::move(r));
    return sink;
  }
  void advance(int64_t us) {
    clock->advance_us(us);
    sched.advance_time(std::chrono::microseconds(us));
    sched.run();
  }
  /// Runs for so long at most; how long it took until all had their result.
  int64_t run(const std::vector<std::shared_ptr<recording_sink>>& sinks, int64_t seconds = 130) {
    const auto done = [&] {
      return std::all_of(sinks.begin(), sinks.end(),
                         [](const auto& sink) { return sink->result.has_value(); });
    };
    sched.run();
    int64_t passed_us = 0;
    while (!done() && passed_us < seconds * 1'000'000) {
      const int64_t step_us = passed_us < 5'000'000 ? 10'000 : 50'000; // shorter than a relay's margin
      advance(step_us);
      passed_us += step_us;
    }
    return passed_us;
  }
  /// Sessions that a node holds.
  std::string sessions(size_t node) {
    const auto status = ask<actor_status>(*this, workers[node], status_atom_v);
    REQUIRE(status);
    for (const auto& [key, value] : status->values)
      if (key == "sessions")
        return value;
    return {};
  }
  size_t failed_outcomes(size_t node) const {
    return static_cast<size_t>(std::count_if(outcomes.begin(), outcomes.end(), [&](const hop_outcome& of) {
      return of.failed && of.node_id == work_network::id_of(node);
    }));
  }
};

} // namespace neuroshard::test
