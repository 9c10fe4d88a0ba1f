#pragma once

#include "actors/checkpointer/checkpointer.hpp"
#include "actors/layer_worker/layer_worker.hpp"
#include "actors/relay/relay.hpp"
#include "actors/trainer/trainer.hpp"
#include "kernels/text/shard_writer.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/ask.hpp"
#include "tests/support/deterministic_fixture.hpp"
#include "tests/support/manual_clock.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/work_network.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace neuroshard::test {

/// What the trainer told the ledger.
struct reward_script {
  std::vector<note_checkpoint> noted;
  std::vector<std::string> preimages; ///< of gradient commitments
};

inline ledger_actor::behavior_type rewarding_ledger(ledger_actor::pointer, std::shared_ptr<reward_script> s) {
  const auto unset = [] { return refuse(errc::unavailable, "not in this test"); };
  return {
      [=](const send_neuro&) -> caf::result<send_result> { return unset(); },
      [=](const stake_neuro&) -> caf::result<stake_result> { return unset(); },
      [=](const add_stake&) -> caf::result<stake_result> { return unset(); },
      [=](const extend_stake&) -> caf::result<stake_result> { return unset(); },
      [=](const unstake_neuro&) -> caf::result<unstake_result> { return unset(); },
      [=](const reserve_inference&) -> caf::result<reserve_result> { return unset(); },
      [=](const settle_inference&) -> caf::result<settle_result> { return unset(); },
      [=](const refund_inference&) -> caf::result<refund_result> { return unset(); },
      [=](const note_checkpoint& n) -> caf::result<checkpoint_noted> {
        s->noted.push_back(n);
        return checkpoint_noted{};
      },
      [=](const keep_commitment& c) -> caf::result<commitment_kept> {
        s->preimages.push_back(c.preimage);
        return commitment_kept{kernels::sha256::of(std::string_view(c.preimage))};
      },
      [=](const record_proof&) -> caf::result<proof_result> { return unset(); },
      [=](const record_receipt&) -> caf::result<receipt_recorded> { return unset(); },
      [=](const record_offence&) -> caf::result<offence_result> { return unset(); },
      [=](const find_response&) -> caf::result<found_response> { return unset(); },
      [=](const keep_response&) -> caf::result<found_response> { return unset(); },
      [](const mark_delivered&) {},
      [=](const get_ledger_status&) -> caf::result<ledger_status> { return unset(); },
      [](status_atom) -> actor_status { return {}; },
      [](drain_atom) -> caf::result<void> { return caf::unit; },
      [](tick_atom) {},
      [](const commit_group&) {},
      [](const group_written&) {},
  };
}

/// A small corpus with a pattern that is soon learned.
inline std::shared_ptr<const text::data_loader> tiny_data(const std::string& directory) {
  text::shard_writer::options how;
  how.directory = directory;
  how.held_out = 0.1;
  const text::tokenizer tokens;
  how.tokenizer_hash = kernels::to_hex(tokens.hash());
  how.corpus_fingerprint = how.tokenizer_hash;
  auto writer = text::shard_writer::make(how);
  REQUIRE(writer.ok());
  for (int d = 0; d < 40; ++d) {
    std::string document;
    for (int i = 0; i < 20; ++i)
      document += "the " + std::string(1, static_cast<char>('a' + (d + i) % 5)) + " cat sat. ";
    REQUIRE(writer->add(tokens.encode(document), "test").ok());
  }
  REQUIRE(writer->finish().ok());
  auto opened = text::shard_set::open(directory, {});
  INFO(opened.status().message());
  REQUIRE(opened.ok());
  auto loader = text::data_loader::make(std::make_shared<const text::shard_set>(std::move(*opened)),
                                        {"0123456789abcdef0123456789abcdef", 1'000'000});
  REQUIRE(loader.ok());
  return std::make_shared<const text::data_loader>(std::move(*loader));
}

/// Worker, checkpointer and trainer over the real model and real files, in one thread. `run_to` trains up to
/// a step and pauses there.
struct node_fixture
    : deterministic<caf::id_block::neuroshard_common, caf::id_block::neuroshard_status,
                    caf::id_block::neuroshard_layer_worker, caf::id_block::neuroshard_checkpointer,
                    caf::id_block::neuroshard_checkpoint_stream, caf::id_block::neuroshard_ledger,
                    caf::id_block::neuroshard_peer_manager, caf::id_block::neuroshard_peer_link,
                    caf::id_block::neuroshard_relay, caf::id_block::neuroshard_work_link,
                    caf::id_block::neuroshard_gradient_exchanger, caf::id_block::neuroshard_trainer> {
  temporary_directory root;
  std::shared_ptr<manual_clock> clock = std::make_shared<manual_clock>();
  counters_ptr counters = std::make_shared<node_counters>();
  std::shared_ptr<reward_script> money = std::make_shared<reward_script>();
  std::shared_ptr<const text::data_loader> data = tiny_data(root.path() + "/shards");
  text::tokenizer tokens;
  trainer_options options;
  layer_worker_options worker_options;
  model::stage_options stage = tiny_options(tiny_architecture());

  layer_worker_actor worker;
  checkpointer_actor saver;
  trainer_actor loop;
  ledger_actor ledger;
  std::map<uint64_t, double> losses; ///< of each step, as published
  std::optional<uint64_t> pause_at;
  /// Puts an actor between the trainer and its worker; empty: nobody.
  std::function<layer_worker_actor(layer_worker_actor)> between;
  /// More than one: the layers are shared out, and this node is the first stage.
  size_t stages = 1;
  work_network_ptr network = std::make_shared<work_network>();
  std::vector<layer_worker_actor> others; ///< the workers of the further stages
  outer_loop_actor outer;                 ///< null: none
  outer_state_actor outer_state;          ///< of the checkpointer; null: none
  resync_parts resync;                    ///< none: no weights are taken from others
  bool shared = false;                    ///< others hold parts of the model
  int renewals = 0;                       ///< how often the trainer asked for a stage that trains
  std::function<void(const training_progress&)> watch;
  /// Whose stages these are, this node's first; empty: nodes without keys, which make no receipts.
  std::vector<std::shared_ptr<const node_identity>> identities;
  std::map<size_t, std::vector<record_receipt>> books; ///< receipts that a node has kept

  node_fixture() {
    REQUIRE(tokens.save(root.path() + "/tokenizer.json").ok());
    options.batch_size = 4;
    options.seq_len = 16;
    options.microbatches = 2;
    options.microbatch_positions_max = 64;
    options.optimizer = {1e-2, 5, 500};
    options.diloco_steps = 10;
    options.checkpoint_every_steps = 7;
    options.validate_every_steps = 1000;
    options.vocab_size = tokens.vocab_size();
    options.node_id = "0123456789abcdef0123456789abcdef";
    options.session_id = "fedcba9876543210fedcba9876543210";
    options.architecture_id = model::architecture_id(tiny_architecture());
    options.layers = 2;
    options.log_folder = root.path() + "/training_logs";
    worker_options.architecture_id = options.architecture_id;
    worker_options.seed = 3;
    worker_options.valid_vocab = options.vocab_size;
    worker_options.optimizer = options.optimizer;
    worker_options.detached_hashing = false;
    stage.slice_flops = 1e12;
  }

  std::string id(size_t node) const {
    return identities.empty() ? work_network::id_of(node) : identities[node]->node_id();
  }
  void give_keys() {
    for (const char* token : {"correct-horse", "battery-staple", "purple-monkey"}) {
      auto made = node_identity::make(*parse_token(token), 0, clock->unix_us() / 1'000);
      REQUIRE(made);
      identities.push_back(std::make_shared<const node_identity>(std::move(*made)));
    }
    options.node_id = identities[0]->node_id();
  }
  receipt_book_actor book_of(size_t node) {
    return keep(sys.spawn([this, node](receipt_book_actor::pointer) -> receipt_book_actor::behavior_type {
      return {[this, node](const record_receipt& what) {
        books[node].push_back(what);
        return receipt_recorded{};
      }};
    }));
  }
  /// What the driver's trainer works with: receipts go to the stage's relay at once.
  driver_receipts receipts_here() {
    auto link = keep(sys.spawn([this](receipt_link_actor::pointer self) -> receipt_link_actor::behavior_type {
      return {[this, self](const peer_call<publish_request>& call) {
        self->send(network->relays.at(call.to.address), published{call.what.kind, call.what.blob, {}, id(0)});
        return publish_reply{true, false, {}};
      }};
    }));
    return {identities[0], book_of(0), link, {}, clock};
  }

  void spawn(std::string folder = "checkpoints") {
    worker = make_worker(0);
    checkpointer_options how;
    how.folder = root.path() + "/" + folder;
    how.wallet_id = "0123456789abcdef";
    how.software = "test";
    how.architecture = tiny_architecture();
    how.tokenizer_path = root.path() + "/tokenizer.json";
    how.tokenizer_hash = kernels::to_hex(tokens.hash());
    how.max_storage_mb = 1000;
    how.outer = outer_state;
    saver = keep(sys.spawn(checkpointer, how, worker, time_source_ptr{clock}, counters));
    ledger = keep(sys.spawn(rewarding_ledger, money));
    const auto asked = between ? between(worker) : worker;
    trainer_parts parts;
    auto hop = make_relay(0, asked);
    if (stages > 1) {
      network->peers = std::make_shared<peer_list>();
      auto known = std::make_shared<peer_list>();
      others.clear();
      for (size_t i = 1; i < stages; ++i) {
        others.push_back(make_worker(i));
        network->relays[work_network::address_of(i)] = make_relay(i, others.back());
        REQUIRE(ask<serving_info>(*this, others.back(), refresh_serving{0, 0}));
      }
      for (size_t i = 0; i < stages; ++i) {
        const auto held = range_of(i);
        known->push_back(work_network::node(i, static_cast<uint32_t>(held.layer_begin),
                                            static_cast<uint32_t>(held.layer_end), held.embed, held.head));
        known->back().node.node_id = id(i);
      }
      network->peers = known;
      parts.link = keep(sys.spawn(network_work_link, network, id(0)));
      parts.peers = keep(sys.spawn([this](route_finder_actor::pointer) -> route_finder_actor::behavior_type {
        return {[this](const route_request& asked_for) { return find_route(asked_for); }};
      }));
    }
    parts.worker = asked;
    parts.relay = hop;
    parts.outer = outer;
    parts.shared = [this] { return shared; };
    parts.resync = resync;
    parts.checkpointer = saver;
    parts.ledger = ledger;
    parts.data = data;
    parts.time = clock;
    parts.counters = counters;
    if (!identities.empty())
      parts.receipts = receipts_here();
    parts.renew = [this] { ++renewals; };
    parts.published = [this](const training_progress_ptr& p) {
      if (p->loss && p->tokens_seen_here > 0) // before the first step of a process it is the EMA
        losses[p->inner_step] = *p->loss;
      if (watch)
        watch(*p);
      if (pause_at && p->inner_step >= *pause_at && p->enabled) {
        pause_at.reset();
        caf::anon_send(loop, set_training{false});
      }
    };
    loop = keep(sys.spawn(trainer, options, parts));
  }
  /// Layers of a stage: split evenly, the embedding first and the head last.
  model::stage_options range_of(size_t index) const {
    auto held = stage;
    const auto layers = tiny_architecture().num_layers;
    const auto n = static_cast<int64_t>(stages), i = static_cast<int64_t>(index);
    held.layer_begin = layers * i / n;
    held.layer_end = layers * (i + 1) / n;
    held.embed = index == 0;
    held.head = index + 1 == stages;
    return held;
  }
  layer_worker_actor make_worker(size_t index) {
    return keep(sys.spawn(layer_worker, hand_over(tiny_stage(tiny_architecture(), range_of(index))),
                          worker_options, time_source_ptr{clock}));
  }
  relay_actor make_relay(size_t index, layer_worker_actor of) {
    if (stages == 1)
      return keep(sys.spawn(relay, relay_options{options.node_id, 256},
                            relay_parts{of, {}, {}, time_source_ptr{clock}}));
    auto directory = keep(sys.spawn(network_directory, network));
    auto link = keep(sys.spawn(network_work_link, network, id(index)));
    relay_parts hop{of, directory, link, time_source_ptr{clock}};
    if (!identities.empty()) {
      hop.book = book_of(index);
      hop.identity = identities[index];
    }
    return keep(sys.spawn(relay, relay_options{id(index), 256}, hop));
  }
  caf::result<model_route> find_route(const route_request& asked_for) {
    model_route found;
    for (size_t i = 0; i < stages; ++i) {
      const auto node_id = id(i);
      if (std::find(asked_for.exclude.begin(), asked_for.exclude.end(), node_id) != asked_for.exclude.end())
        return refuse(errc::no_route, "Nobody holds layer " + std::to_string(range_of(i).layer_begin) + ".");
      route_hop hop;
      hop.local = i == 0;
      hop.node_id = node_id;
      hop.address = i == 0 ? "" : work_network::address_of(i);
      hop.layer_begin = static_cast<uint32_t>(range_of(i).layer_begin);
      hop.layer_end = static_cast<uint32_t>(range_of(i).layer_end);
      found.hops.push_back(std::move(hop));
    }
    return found;
  }
  /// What the supervisor does at a start.
  restored start() {
    auto found = ask<restored>(*this, saver, restore_latest{});
    INFO(problem_of(found.refused).message);
    REQUIRE(found);
    auto copied =
        ask<serving_info>(*this, worker, refresh_serving{found->state.outer_step, found->state.inner_step});
    REQUIRE(copied);
    auto begun = ask<caf::unit_t>(*this, loop, start_atom_v, *found);
    INFO(problem_of(begun.refused).message);
    REQUIRE(begun);
    return *found;
  }
  training_progress_ptr progress() { return *ask<training_progress_ptr>(*this, loop, progress_atom_v).value; }
  /// Precondition: paused, or about to start.
  void run_to(uint64_t step) {
    pause_at = step;
    caf::anon_send(loop, set_training{true});
    sched.run();
    REQUIRE(progress()->inner_step == step);
  }
  /// As kill -9 does.
  void kill() {
    for (const auto& actor : {caf::actor_cast<caf::actor>(loop), caf::actor_cast<caf::actor>(saver),
                              caf::actor_cast<caf::actor>(worker)})
      caf::anon_send_exit(actor, caf::exit_reason::kill);
    sched.run();
  }
  std::vector<float> weights() {
    std::vector<float> all;
    auto view = ask<snapshot_opened>(*this, worker, open_snapshot{true});
    REQUIRE(view);
    for (const auto& entry : view->tensors) {
      auto tensor = ask<tensor_handle>(*this, worker, read_snapshot{view->snapshot_id, entry.name});
      REQUIRE(tensor);
      const auto* first = tensor->view.as<const float>();
      all.insert(all.end(), first, first + tensor->view.elements());
    }
    return all;
  }
};

} // namespace neuroshard::test
