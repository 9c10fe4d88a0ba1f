#include "gateway/node/model_group.hpp"

#include "actors/checkpointer/checkpointer.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/common/log.hpp"
#include "actors/gradient_exchanger/gradient_exchanger.hpp"
#include "actors/inference_scheduler/inference_scheduler.hpp"
#include "actors/layer_worker/layer_worker.hpp"
#include "actors/trainer/trainer.hpp"
#include "gateway/node/live_settings.hpp"
#if NEUROSHARD_HAVE_CPU_BACKEND
#include "kernels/cpu/cpu_backend.hpp"
#endif

#include <caf/actor_system.hpp>
#include <caf/send.hpp>
#include <fmt/format.h>

#include <algorithm>

namespace neuroshard {

namespace {

constexpr int64_t sessions_max = 64;

/// Bytes of the KV pool: a fifth of the usable memory (60 % of what the node offers), but no more than all
/// sessions can fill.
uint64_t kv_pool_bytes(const node_config& c, const kernels::device& on, const model::architecture& a,
                       int64_t layers, kernels::dtype compute) {
  const uint64_t offered =
      c.memory_mb > 0 ? static_cast<uint64_t>(c.memory_mb) << 20 : on.info().memory_total / 10 * 7;
  const uint64_t wanted =
      static_cast<uint64_t>(sessions_max * a.max_seq_len * layers) * model::kv_bytes_per_token(a, compute);
  return std::min(offered / 10 * 6 / 5, wanted);
}

/// Read when the group is made: a node that begins without training holds nothing for it.
bool trains_from_start(const node_config& c) {
  return c.training.enabled && !c.observer;
}

/// What the layer map gives this node; the whole model while none does.
held_range held_by(const model_plan& plan) {
  return plan.held->read().value_or(held_range{0, static_cast<uint32_t>(plan.shape.num_layers), true, true});
}

caf::expected<caf::actor> make_worker(caf::actor_system& system, const model_plan& plan) {
  const auto c = plan.config();
  model::stage_options how;
  const auto held = held_by(plan);
  how.layer_begin = held.begin;
  how.layer_end = held.end;
  how.embed = held.embed;
  how.head = held.head;
  how.compute = compute_type(*c, *plan.device);
  how.train = trains_from_start(*c);
  how.train_tokens_max = static_cast<int64_t>(microbatch_positions(*c));
  how.kv_pool_bytes =
      kv_pool_bytes(*c, *plan.device, plan.shape, how.layer_end - how.layer_begin, how.compute);
  how.sessions_max = sessions_max;
  auto stage = model::stage::make(plan.device, plan.shape, how);
  if (!stage)
    return refuse(stage.status());
  layer_worker_options options;
  options.architecture_id = model::architecture_id(plan.shape);
  options.seed = c->model.seed;
  options.valid_vocab = plan.tokens->vocab_size();
  options.optimizer = optimizer_of(*c);
#if NEUROSHARD_HAVE_CPU_BACKEND
  options.set_threads = [device = plan.device](uint32_t threads) {
    if (auto why = kernels::set_cpu_threads(*device, static_cast<int>(threads)); !why)
      log::warn("layer_worker", "threads-not-changed why=\"{}\"", why.message());
  };
#endif
  return caf::actor_cast<caf::actor>(
      system.spawn<caf::detached>(layer_worker, hand_over(std::move(*stage)), std::move(options), plan.time));
}

caf::expected<caf::actor> make_checkpointer(caf::actor_system& system, const model_plan& plan,
                                            const node_actors& fronts) {
  const auto c = plan.config();
  checkpointer_options options;
  options.folder = checkpoint_folder(plan);
  options.wallet_id = plan.identity->wallet_id();
  options.software = plan.software;
  options.architecture = plan.shape;
  options.tokenizer_path = c->data.tokenizer;
  options.tokenizer_hash = kernels::to_hex(plan.tokens->hash());
  options.keep = static_cast<uint32_t>(c->checkpoint.keep);
  options.max_storage_mb = static_cast<uint64_t>(c->checkpoint.max_storage_mb);
  options.outer = fronts.exchanger;
  return caf::actor_cast<caf::actor>(
      system.spawn<caf::detached>(checkpointer, std::move(options), fronts.worker, plan.time, plan.counters));
}

/// Whether another node that can be reached holds a part of this model.
bool shared_with_others(const node_snapshot& now, const std::string& architecture_id) {
  return std::any_of(now.peers->begin(), now.peers->end(), [&](const peer_info& peer) {
    const auto& node = peer.node;
    return peer.state == peer_state::online && node.architecture_id == architecture_id &&
           (node.layer_begin < node.layer_end || node.has_embedding || node.has_lm_head);
  });
}

caf::expected<caf::actor> make_exchanger(caf::actor_system& system, const model_plan& plan,
                                         const node_actors& fronts) {
  const auto c = plan.config();
  const auto& t = c->training;
  gradient_exchanger_options options;
  options.architecture_id = model::architecture_id(plan.shape);
  options.diloco_steps = static_cast<uint32_t>(t.diloco_steps);
  // Names were checked when the configuration was read.
  options.aggregation.strategy =
      parse_aggregation(t.aggregation).value_or(aggregation_strategy::trimmed_mean);
  options.aggregation.trim_fraction = t.trim_fraction;
  options.compression = t.compression == "none"       ? delta_encoding::f32
                        : t.compression == "dense_i4" ? delta_encoding::dense_i4
                        : t.compression == "topk_i8"  ? delta_encoding::topk_i8
                                                      : delta_encoding::dense_i8;
  options.top_k_ratio = t.top_k_ratio;
  options.outer = {t.outer_lr, t.outer_momentum};
  options.min_cosine = t.min_cosine;
  options.peak_learning_rate = t.learning_rate;
  options.batches_per_minute = static_cast<uint64_t>(c->economics.steps_per_minute);
  gradient_exchanger_parts parts;
  parts.worker = fronts.worker;
  parts.peers = fronts.peers;
  parts.link = caf::actor_cast<exchange_link_actor>(fronts.link);
  parts.identity = plan.identity;
  parts.time = plan.time;
  parts.random = plan.random;
  parts.trainer = fronts.trainer;
  parts.announced = [held = plan.held](std::vector<unit_state> units, uint64_t version) {
    held->announce(std::move(units), version);
  };
  parts.exchanging = [held = plan.held](bool under_way) { held->exchanging(under_way); };
  parts.counters = plan.counters;
  return caf::actor_cast<caf::actor>(
      system.spawn<caf::detached>(gradient_exchanger, std::move(parts), std::move(options)));
}

driver_receipts receipts_of(const model_plan& plan, const node_actors& fronts) {
  return {plan.identity, fronts.ledger, caf::actor_cast<receipt_link_actor>(fronts.link), fronts.peers,
          plan.time};
}

caf::expected<caf::actor> make_scheduler(caf::actor_system& system, const model_plan& plan,
                                         const node_actors& fronts) {
  const auto c = plan.config();
  inference_options options;
  options.max_queue = static_cast<uint32_t>(c->inference.max_queue);
  options.timeout_s = static_cast<uint32_t>(c->inference.timeout_s);
  options.charge_self = c->inference.charge_self;
  options.context = static_cast<uint32_t>(plan.shape.max_seq_len);
  options.layers = static_cast<uint32_t>(plan.shape.num_layers);
  options.architecture_id = model::architecture_id(plan.shape);
  options.address = plan.identity->address();
  options.wire = compute_type(*c, *plan.device);
  inference_parts parts;
  parts.worker = fronts.worker;
  parts.relay = fronts.relay;
  parts.link = caf::actor_cast<work_link_actor>(fronts.link);
  parts.ledger = fronts.ledger;
  parts.peers = fronts.peers;
  parts.tokens = *plan.tokens;
  parts.time = plan.time;
  parts.random = plan.random;
  parts.counters = plan.counters;
  parts.receipts = receipts_of(plan, fronts);
  return caf::actor_cast<caf::actor>(system.spawn(inference_scheduler, std::move(options), std::move(parts)));
}

caf::expected<caf::actor> make_trainer(caf::actor_system& system, const model_plan& plan,
                                       const node_actors& fronts) {
  const auto c = plan.config();
  const auto& t = c->training;
  trainer_options options;
  options.enabled = trains_from_start(*c);
  options.serves_only = !options.enabled;
  options.batch_size = static_cast<uint32_t>(t.batch_size);
  options.seq_len = static_cast<uint32_t>(t.seq_len);
  options.microbatches = static_cast<uint32_t>(t.microbatches);
  options.optimizer = optimizer_of(*c);
  options.diloco_steps = static_cast<uint64_t>(t.diloco_steps);
  options.checkpoint_every_steps = static_cast<uint64_t>(c->checkpoint.every_steps);
  options.refresh_s = static_cast<uint32_t>(c->inference.refresh_s);
  options.microbatch_positions_max = microbatch_positions(*c);
  options.vocab_size = plan.tokens->vocab_size();
  options.node_id = plan.identity->node_id();
  options.session_id = plan.training_session;
  const auto held = held_by(plan);
  options.drives = held.embed;
  for (const auto& unit : model::units_of(plan.shape, held.begin, held.end, held.embed, held.head))
    options.units.push_back(unit.name);
  options.wire = compute_type(*c, *plan.device);
  options.architecture_id = model::architecture_id(plan.shape);
  options.layers = static_cast<uint32_t>(plan.shape.num_layers);
  options.log_folder = plan.paths.training_logs();
  trainer_parts parts;
  parts.worker = fronts.worker;
  parts.relay = fronts.relay;
  parts.link = caf::actor_cast<work_link_actor>(fronts.link);
  parts.checkpointer = fronts.checkpointer;
  parts.ledger = fronts.ledger;
  parts.keeper = fronts.keeper;
  parts.peers = fronts.peers;
  parts.outer = fronts.exchanger;
  parts.shared = [board = plan.board, architecture = options.architecture_id] {
    return shared_with_others(*board->read(), architecture);
  };
  parts.resync.fetcher = fronts.checkpoint_receiver;
  parts.resync.peers = [board = plan.board] { return board->read()->peers; };
  parts.resync.announced = [held = plan.held](uint64_t version) { return held->units_at(version); };
  parts.resync.announce = [held = plan.held](std::vector<unit_state> units, uint64_t version) {
    held->announce(std::move(units), version);
  };
  parts.published = [held = plan.held](const training_progress_ptr& p) {
    held->completed(p->outer_step);
    held->syncing(p->syncing);
  };
  parts.time = plan.time;
  parts.counters = plan.counters;
  parts.receipts = receipts_of(plan, fronts);
  parts.renew = [to = plan.supervisor] { caf::anon_send(to, renew_group{"model"}); };
  if (plan.data) {
    auto loader = text::data_loader::make(
        plan.data->source,
        {plan.identity->node_id(), static_cast<uint64_t>(c->data.max_storage_mb) * 1'000'000});
    if (!loader)
      return refuse(loader.status());
    parts.data = std::make_shared<const text::data_loader>(std::move(*loader));
  }
  return caf::actor_cast<caf::actor>(system.spawn(trainer, std::move(options), std::move(parts)));
}

} // namespace

start_result<model::architecture> shape_of(const node_config& c) {
  if (!c.model.adopted.empty()) {
    auto adopted = model::parse_architecture(c.model.adopted); // it was checked when it was read
    if (!adopted)
      return start_error{exit_code::data_directory, adopted.status().message()};
    return *adopted;
  }
  model::architecture shape;
  const std::string name = c.model.preset == "auto" ? "pico" : c.model.preset;
  if (const auto* preset = model::find_preset(name)) {
    shape = preset->shape;
  } else {
    const auto& m = c.model;
    shape.num_layers = m.num_layers;
    shape.hidden_dim = m.hidden_dim;
    shape.num_heads = m.num_heads;
    shape.num_kv_heads = m.num_kv_heads;
    shape.ffn_dim = m.ffn_dim;
    shape.vocab_capacity = m.vocab_capacity;
    shape.max_seq_len = m.max_seq_len;
    shape.rope_base = fmt::format("{:g}", m.rope_base);
    shape.norm_eps = fmt::format("{:g}", m.norm_eps);
    shape.num_experts = m.num_experts;
    shape.top_k = m.top_k;
    shape.tie_embeddings = m.tie_embeddings;
  }
  if (auto why = model::check(shape); !why)
    return start_error{exit_code::bad_configuration, "model." + why.message()};
  return shape;
}

start_result<kernels::device_ptr> open_device(const node_config& c, const thread_budget& threads) {
  kernels::device_options how;
  how.threads = static_cast<int>(threads.compute);
  if (c.device != "cpu") {
    if (const auto colon = c.device.find(':'); colon != std::string::npos)
      how.index = std::stoi(c.device.substr(colon + 1));
    auto found = kernels::find_backend("cuda");
    auto opened =
        found ? kernels::device::open(**found, how) : kernels::result<kernels::device_ptr>(found.status());
    if (opened)
      return *opened;
    if (c.device != "auto")
      return start_error{exit_code::device, "device = " + c.device + ": " + opened.status().message()};
    log::info("device", "using-cpu why=\"{}\"", opened.status().message());
    how.index = 0;
  }
  auto found = kernels::find_backend("cpu");
  if (!found) {
    log::warn("device", "using-reference-kernels why=\"{}\"", found.status().message());
    found = kernels::reference_backend();
  }
  auto opened = kernels::device::open(**found, how);
  if (!opened)
    return start_error{exit_code::device, "device = cpu: " + opened.status().message()};
  return *opened;
}

kernels::dtype compute_type(const node_config& c, const kernels::device& on) {
  return c.model.dtype == "bf16" && on.info().fast_bf16 ? kernels::dtype::bf16 : kernels::dtype::f32;
}

uint64_t microbatch_positions(const node_config& c) {
  const auto& t = c.training;
  return static_cast<uint64_t>((t.batch_size + t.microbatches - 1) / t.microbatches * t.seq_len);
}

std::string checkpoint_folder(const model_plan& plan) {
  return plan.paths.checkpoints(plan.identity->wallet_id(), plan.config()->instance);
}

start_group model_group(std::shared_ptr<const model_plan> plan, const node_actors& fronts) {
  start_group group;
  group.name = "model";
  group.start = group_start::model;
  const auto add = [&](std::string name, const auto& front, auto make) {
    group.children.push_back({std::move(name), caf::actor_cast<caf::actor>(front), std::move(make)});
  };
  add("layer_worker", fronts.worker,
      [plan](caf::actor_system& system) { return make_worker(system, *plan); });
  add("checkpointer", fronts.checkpointer,
      [plan, fronts](caf::actor_system& system) { return make_checkpointer(system, *plan, fronts); });
  add("gradient_exchanger", fronts.exchanger,
      [plan, fronts](caf::actor_system& system) { return make_exchanger(system, *plan, fronts); });
  add("inference_scheduler", fronts.scheduler,
      [plan, fronts](caf::actor_system& system) { return make_scheduler(system, *plan, fronts); });
  add("trainer", fronts.trainer,
      [plan, fronts](caf::actor_system& system) { return make_trainer(system, *plan, fronts); });
  return group;
}

} // namespace neuroshard
