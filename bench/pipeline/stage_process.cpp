#include "bench/pipeline/stage_process.hpp"

#include "actors/layer_worker/layer_worker.hpp"
#include "actors/relay/relay.hpp"
#include "actors/trainer/trainer.hpp"
#include "bench/model/bench_corpus.hpp"
#include "bench/rpc/child_process.hpp"
#include "bench/rpc/wire_bytes.hpp"
#include "gateway/grpc/credentials.hpp"
#include "gateway/grpc/link.hpp"
#include "gateway/grpc/server.hpp"
#include "gateway/node/actor_setup.hpp"

#include <caf/actor_cast.hpp>
#include <caf/actor_system.hpp>
#include <caf/scoped_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include <sched.h>
#include <sys/resource.h>

namespace neuroshard::bench {

namespace {

using clock_type = std::chrono::steady_clock;

std::string id_of(size_t stage) {
  return std::string(32, static_cast<char>('a' + stage));
}
std::string certificate_folder(const std::string& folder, size_t stage) {
  return folder + "/stage" + std::to_string(stage);
}
rpc::node_certificate certificate_of(const std::string& folder, size_t stage) {
  auto made = rpc::load_or_make_certificate(certificate_folder(folder, stage));
  if (!made)
    die("no certificate in " + certificate_folder(folder, stage));
  return std::move(*made);
}

/// What passes by.
struct traffic {
  std::atomic<uint64_t> compute_us{0};
  std::atomic<bool> counting{false};
  std::atomic<uint64_t> bytes{0};
};
using traffic_ptr = std::shared_ptr<traffic>;

/// What of the worker a relay asks.
using working_part = caf::typed_actor<caf::replies_to<forward_request>::with<forward_reply>,
                                      caf::replies_to<backward_request>::with<backward_reply>>;

/// Between relay and worker: adds up the time that the worker computes.
working_part::behavior_type metered_worker(working_part::pointer self, layer_worker_actor worker,
                                           traffic_ptr seen) {
  const auto pass = [self, worker, seen](auto& call, auto reply_of) {
    using reply_type = decltype(reply_of);
    auto promise = self->template make_response_promise<reply_type>();
    self->request(worker, caf::infinite, std::move(call))
        .then(
            [seen, promise](reply_type& reply) mutable {
              seen->compute_us += reply.report.compute_us;
              promise.deliver(std::move(reply));
            },
            [promise](caf::error& why) mutable { promise.deliver(std::move(why)); });
    return promise;
  };
  return {
      [pass](forward_request& call) -> caf::result<forward_reply> { return pass(call, forward_reply{}); },
      [pass](backward_request& call) -> caf::result<backward_reply> { return pass(call, backward_reply{}); },
  };
}

/// Before the link: counts what goes over it, when that is asked for.
work_link_actor::behavior_type counted_link(work_link_actor::pointer self, work_link_actor link,
                                            traffic_ptr seen) {
  const auto pass = [self, link, seen](auto& call, auto reply_of) {
    using reply_type = decltype(reply_of);
    auto promise = self->template make_response_promise<reply_type>();
    const bool counts = seen->counting;
    if (counts)
      seen->bytes += wire_bytes(call.what, rpc::call_header{std::string(32, '0'), call.budget_ms});
    self->request(link, caf::infinite, std::move(call))
        .then(
            [seen, counts, promise](reply_type& reply) mutable {
              if (counts)
                seen->bytes += wire_bytes(reply);
              promise.deliver(std::move(reply));
            },
            [promise](caf::error& why) mutable { promise.deliver(std::move(why)); });
    return promise;
  };
  return {
      [pass](peer_call<routed_forward>& call) -> caf::result<routed_forward_reply> {
        return pass(call, routed_forward_reply{});
      },
      [pass](peer_call<routed_backward>& call) -> caf::result<routed_backward_reply> {
        return pass(call, routed_backward_reply{});
      },
  };
}

/// Records of all stages, once their ports are known.
struct stage_directory {
  std::mutex lock;
  peer_list_ptr all = std::make_shared<const peer_list>();
  peer_list_ptr read() {
    const std::lock_guard hold{lock};
    return all;
  }
  void set(peer_list_ptr to) {
    const std::lock_guard hold{lock};
    all = std::move(to);
  }
};

kernels::dtype type_of(const stage_plan& plan) {
  return plan.bf16 ? kernels::dtype::bf16 : kernels::dtype::f32;
}

std::unique_ptr<model::stage> make_stage(const stage_plan& plan, const model::architecture& shape,
                                         int threads) {
  model::stage_options held;
  held.layer_begin = plan.cuts[plan.index];
  held.layer_end = plan.cuts[plan.index + 1];
  held.embed = plan.index == 0;
  held.head = plan.index + 1 == plan.stages();
  held.compute = type_of(plan);
  held.train_tokens_max = int64_t{plan.rows} * plan.seq;
  auto made = model::stage::make(open_cpu(threads), shape, held);
  if (!made.ok())
    die(made.status().message());
  return std::move(*made);
}

/// Runs steps of the trainer on demand.
class step_runner {
public:
  void published(const training_progress& now) {
    const std::lock_guard hold{lock_};
    if (!now.error.empty())
      die("the trainer stands still: " + now.error);
    step_ = now.inner_step;
    loss_ = now.loss.value_or(0);
    if (wanted_ && step_ >= *wanted_) {
      wanted_.reset();
      caf::anon_send(trainer, set_training{false});
      ended_.set_value(clock_type::now());
    }
  }
  /// Seconds until so many more steps are committed.
  double run(uint64_t steps) {
    std::future<clock_type::time_point> end;
    {
      const std::lock_guard hold{lock_};
      wanted_ = step_ + steps;
      ended_ = {};
      end = ended_.get_future();
    }
    const auto begin = clock_type::now();
    caf::anon_send(trainer, set_training{true});
    return std::chrono::duration<double>(end.get() - begin).count();
  }
  double loss() {
    const std::lock_guard hold{lock_};
    return loss_;
  }

  trainer_actor trainer;

private:
  std::mutex lock_;
  uint64_t step_ = 0;
  double loss_ = 0;
  std::optional<uint64_t> wanted_;
  std::promise<clock_type::time_point> ended_;
};

/// The whole route; this process is its first stage.
model_route route_of(const stage_plan& plan, const peer_list& all) {
  model_route route;
  for (size_t i = 0; i < plan.stages(); ++i) {
    route_hop hop;
    hop.local = i == 0;
    hop.node_id = id_of(i);
    hop.layer_begin = static_cast<uint32_t>(plan.cuts[i]);
    hop.layer_end = static_cast<uint32_t>(plan.cuts[i + 1]);
    if (i > 0) {
      hop.address = all[i].node.host + ":" + std::to_string(all[i].node.grpc_port);
      hop.tls_cert_sha256 = all[i].node.tls_cert_sha256;
    }
    route.hops.push_back(std::move(hop));
  }
  return route;
}

peer_list_ptr records_of(const stage_plan& plan, const std::string& ports) {
  std::istringstream in(ports);
  auto all = std::make_shared<peer_list>();
  for (size_t i = 0; i < plan.stages(); ++i) {
    peer_info one;
    one.node.node_id = id_of(i);
    one.node.host = "127.0.0.1";
    in >> one.node.grpc_port;
    one.node.tls_cert_sha256 = certificate_of(plan.folder, i).sha256;
    one.node.layer_begin = static_cast<uint32_t>(plan.cuts[i]);
    one.node.layer_end = static_cast<uint32_t>(plan.cuts[i + 1]);
    one.node.has_embedding = i == 0;
    one.node.has_lm_head = i + 1 == plan.stages();
    one.state = peer_state::online;
    all->push_back(std::move(one));
  }
  if (!in)
    die("the ports are not told");
  return all;
}

double processor_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

void pin_to(size_t core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0)
    die("this process cannot be pinned to a core");
}

} // namespace

// --------------------------------------------------------------------------------------------------- plans

std::vector<std::string> stage_plan::words() const {
  std::string all;
  for (const auto cut : cuts)
    all += (all.empty() ? "" : ",") + std::to_string(cut);
  return {shape,
          bf16 ? "bf16" : "f32",
          all,
          std::to_string(index),
          std::to_string(rows),
          std::to_string(seq),
          std::to_string(microbatches),
          folder,
          corpus};
}

stage_plan stage_plan_of(const std::vector<std::string>& words) {
  if (words.size() != 9)
    die("a stage is told in nine words");
  stage_plan plan;
  plan.shape = words[0];
  plan.bf16 = words[1] == "bf16";
  std::istringstream cuts(words[2]);
  for (std::string one; std::getline(cuts, one, ',');)
    plan.cuts.push_back(std::atoll(one.c_str()));
  plan.index = static_cast<size_t>(std::atoll(words[3].c_str()));
  plan.rows = static_cast<uint32_t>(std::atoll(words[4].c_str()));
  plan.seq = static_cast<uint32_t>(std::atoll(words[5].c_str()));
  plan.microbatches = static_cast<uint32_t>(std::atoll(words[6].c_str()));
  plan.folder = words[7];
  plan.corpus = words[8];
  if (plan.cuts.size() < 2 || plan.index >= plan.stages())
    die("the layers are cut into nothing");
  return plan;
}

model::architecture pipeline_shape(const std::string& name) {
  if (name != "deep")
    return shape_named(name, false); // a tied head would have to be with the embedding
  model::architecture a;
  a.num_layers = 12;
  a.hidden_dim = 384;
  a.num_heads = 6;
  a.num_kv_heads = 2;
  a.ffn_dim = 1'024;
  a.vocab_capacity = 4'096;
  return a;
}

void make_certificates(const std::string& folder, size_t stages) {
  for (size_t i = 0; i < stages; ++i)
    (void)certificate_of(folder, i);
}

// ------------------------------------------------------------------------------------------------- running

int run_stage(const stage_plan& plan) {
  const auto cores = std::max(1U, std::thread::hardware_concurrency());
  if (plan.stages() > 1)
    pin_to(plan.index % cores);
  log_to_file(plan.folder + "/" + std::to_string(plan.stages()) + "_" + std::to_string(plan.index) + ".log");
  rpc::allow_tls_13_only();
  rpc::log_to_node_log();
  const auto own = certificate_of(plan.folder, plan.index);
  const auto callers = std::make_shared<rpc::caller_table>();
  for (size_t i = 0; i < plan.stages(); ++i)
    callers->bind(certificate_of(plan.folder, i).sha256, id_of(i), 1);
  const auto shape = pipeline_shape(plan.shape);
  const auto data = open_corpus(plan.corpus, plan.folder, static_cast<uint32_t>(shape.vocab_capacity));

  const auto seen = std::make_shared<traffic>();
  const auto directory = std::make_shared<stage_directory>();
  step_runner runner;
  actor_setup setup(1);
  caf::actor_system system{setup};
  layer_worker_options of_worker;
  of_worker.architecture_id = model::architecture_id(shape);
  of_worker.seed = 1;
  of_worker.valid_vocab = data.tokens.vocab_size();
  const auto worker = system.spawn<caf::detached>(
      layer_worker, hand_over(make_stage(plan, shape, plan.stages() > 1 ? 1 : static_cast<int>(cores))),
      of_worker, system_time());
  const auto metered = caf::actor_cast<layer_worker_actor>(system.spawn(metered_worker, worker, seen));
  const auto link =
      rpc::spawn_link(system, {own, "main", id_of(plan.index), callers, system_time(), system_random()});
  const auto counted = system.spawn(counted_link, caf::actor_cast<work_link_actor>(link), seen);
  const auto peers =
      system.spawn([directory](peer_directory_actor::pointer) -> peer_directory_actor::behavior_type {
        return {[directory](peers_atom) { return directory->read(); },
                [](const publish_sink&) {}}; // nobody publishes here
      });
  const auto hop = system.spawn(relay, relay_options{id_of(plan.index), 256},
                                relay_parts{metered, peers, counted, system_time()});
  {
    auto parts = std::make_unique<rpc::service_parts>(system, peer_manager_actor{}, callers, "main", false,
                                                      nullptr, system_time(), hop);
    auto server = rpc::server::start({"127.0.0.1", 0, own}, std::move(parts));
    if (!server)
      die("no port can be listened on");
    std::printf("%u\n", (*server)->port());
    std::string line;
    if (!std::getline(std::cin, line))
      return 1;
    directory->set(records_of(plan, line));

    caf::actor finder;
    if (plan.index == 0) {
      trainer_options how;
      how.enabled = false;
      how.batch_size = plan.rows * plan.microbatches;
      how.seq_len = plan.seq;
      how.microbatches = plan.microbatches;
      how.diloco_steps = UINT64_MAX;
      how.checkpoint_every_steps = UINT64_MAX / 2;
      how.checkpoint_every_s = 1'000'000;
      how.validate_every_steps = UINT64_MAX;
      how.microbatch_positions_max = uint64_t{plan.rows} * plan.seq;
      how.vocab_size = data.tokens.vocab_size();
      how.node_id = id_of(0);
      how.session_id = std::string(32, '5');
      how.architecture_id = of_worker.architecture_id;
      how.layers = static_cast<uint32_t>(shape.num_layers);
      how.wire = type_of(plan);
      trainer_parts with;
      with.worker = worker;
      with.relay = hop;
      with.link = counted;
      with.time = system_time();
      with.counters = std::make_shared<node_counters>();
      with.shared = [] { return true; }; // serving copies are those of outer steps
      with.published = [&runner](const training_progress_ptr& now) { runner.published(*now); };
      auto loader = text::data_loader::make(data.source, {how.node_id, 100'000'000});
      if (!loader.ok())
        die(loader.status().message());
      with.data = std::make_shared<const text::data_loader>(std::move(*loader));
      const auto route = route_of(plan, *directory->read());
      with.peers = system.spawn([route](route_finder_actor::pointer) -> route_finder_actor::behavior_type {
        return {[route](const route_request&) { return route; }};
      });
      finder = caf::actor_cast<caf::actor>(with.peers);
      runner.trainer = system.spawn(trainer, how, with);
      // As after a restart: no first checkpoint is written, nothing is validated before the first step.
      restored from;
      from.found = true;
      from.state.inner_step = from.state.round_first_step = 1;
      caf::scoped_actor self{system};
      self->request(runner.trainer, caf::infinite, start_atom_v, from)
          .receive([] {}, [](const caf::error& why) { die(problem_of(why).message); });
    }
    while (std::getline(std::cin, line)) {
      if (line.rfind("run ", 0) == 0) {
        const auto steps = static_cast<uint64_t>(std::atoll(line.c_str() + 4));
        const double took = runner.run(steps);
        std::printf("%.6f %.0f %.4f\n", took,
                    static_cast<double>(steps * plan.rows * plan.microbatches * plan.seq), runner.loss());
      } else if (line == "seen") {
        std::printf("%.6f %.6f\n", 1e-6 * static_cast<double>(seen->compute_us.load()), processor_seconds());
      } else if (line == "count") {
        seen->counting = !seen->counting;
        std::printf("%.0f\n", static_cast<double>(seen->bytes.exchange(0)));
      }
    }
    (*server)->stop(0);
    if (runner.trainer)
      caf::anon_send_exit(runner.trainer, caf::exit_reason::kill);
    caf::anon_send_exit(finder, caf::exit_reason::kill);
  }
  for (const auto& one : {caf::actor_cast<caf::actor>(hop), caf::actor_cast<caf::actor>(peers),
                          caf::actor_cast<caf::actor>(counted), caf::actor_cast<caf::actor>(link),
                          caf::actor_cast<caf::actor>(metered), caf::actor_cast<caf::actor>(worker)})
    caf::anon_send_exit(one, caf::exit_reason::kill);
  return 0;
}

} // namespace neuroshard::bench
