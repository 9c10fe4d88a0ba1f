// What does a Forward between two processes cost beside a bare gRPC echo of the same bytes?
//
//   rpc_bench [--rounds 7] [--seconds 0.5] [--policy sharing] [--json FILE]
//
// The program starts itself a second time as the server. All ways use mutual TLS 1.3 with the same
// certificates and the same settings of channel and server.
//   bare   raw callbacks at both ends, the server returns the buffer it got
//   ours   an actor asks the link, the server's relay hands the activations back
//   worker the relay asks an actor with a thread of its own for them, as it asks the layer worker
// --policy: how CAF's threads find work, `sharing` (as in the node) or `stealing`.
// Interleaved in each round; latency with one call at a time, throughput with 16. Medians of the rounds.
// For each call of the latency run, of both processes: switches, how often a thread stopped to wait; cpu, the
// time of its threads on a core, which other work on the machine disturbs least.

#include "actors/relay/relay_actor.hpp"
#include "bench/rpc/child_process.hpp"
#include "gateway/grpc/channels.hpp"
#include "gateway/grpc/credentials.hpp"
#include "gateway/grpc/link.hpp"
#include "gateway/grpc/server.hpp"
#include "gateway/grpc/work_codec.hpp"
#include "neuroshard/work.grpc.pb.h"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/atom.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

using namespace neuroshard;
using clock_type = std::chrono::steady_clock;

namespace {

constexpr size_t outstanding = 16;
constexpr const char* forward_path = "/neuroshard.NeuroShard/Forward";
const std::string client_id(32, 'c');
const std::string server_id(32, 'd');

struct config : caf::actor_system_config {
  explicit config(const std::string& policy) {
    add_message_types<caf::id_block::neuroshard_common>();
    add_message_types<caf::id_block::neuroshard_status>();
    add_message_types<caf::id_block::neuroshard_layer_worker>();
    add_message_types<caf::id_block::neuroshard_peer_manager>();
    add_message_types<caf::id_block::neuroshard_peer_link>();
    add_message_types<caf::id_block::neuroshard_grpc_link>();
    add_message_types<caf::id_block::neuroshard_relay>();
    add_message_types<caf::id_block::neuroshard_work_link>();
    add_message_types<caf::id_block::neuroshard_http>();
    set("scheduler.max-threads", 2);
    set("scheduler.policy", policy == "sharing" ? caf::atom("sharing") : caf::atom("stealing"));
  }
};

rpc::node_certificate certificate_of(const std::string& folder) {
  auto made = rpc::load_or_make_certificate(folder);
  if (!made) {
    std::fprintf(stderr, "no certificate in %s\n", folder.c_str());
    std::exit(1);
  }
  return std::move(*made);
}

// ---------------------------------------------------------------------------------------------- the server

relay_actor::behavior_type echo(relay_actor::pointer) {
  return {
      [](routed_forward& call) -> caf::result<routed_forward_reply> {
        routed_forward_reply reply;
        reply.work.request_id = std::move(call.work.header.request_id);
        reply.work.hidden = std::move(call.work.hidden);
        reply.hops.push_back({server_id, {}});
        return reply;
      },
      [](routed_backward&) -> caf::result<routed_backward_reply> {
        return refuse(errc::invalid_request, "not asked for here");
      },
      [](const published&) {},
      [](tick_atom) {},
      [](drain_atom) {},
      [](status_atom) { return actor_status{}; },
  };
}

/// As the node's relay with the layer worker: asks, and answers when it hears.
relay_actor::behavior_type relay_with_worker(relay_actor::pointer self, const relay_actor& worker) {
  return {
      [self, worker](routed_forward& call) -> caf::result<routed_forward_reply> {
        auto promise = self->make_response_promise<routed_forward_reply>();
        self->request(worker, caf::infinite, std::move(call))
            .then([promise](routed_forward_reply& reply) mutable { promise.deliver(std::move(reply)); },
                  [promise](caf::error& why) mutable { promise.deliver(std::move(why)); });
        return promise;
      },
      [](routed_backward&) -> caf::result<routed_backward_reply> {
        return refuse(errc::invalid_request, "not asked for here");
      },
      [](const published&) {},
      [](tick_atom) {},
      [](drain_atom) {},
      [](status_atom) { return actor_status{}; },
  };
}

class bare_echo final : public NeuroShard::WithRawCallbackMethod_Forward<NeuroShard::Service> {
  grpc::ServerUnaryReactor* Forward(grpc::CallbackServerContext* context, const grpc::ByteBuffer* in,
                                    grpc::ByteBuffer* out) override {
    *out = *in;
    auto* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

/// Runs until its standard input ends.
int serve(const std::string& folder, const std::string& policy) {
  const auto own = certificate_of(folder + "/server");
  auto callers = std::make_shared<rpc::caller_table>();
  callers->bind(certificate_of(folder + "/client").sha256, client_id, 1);
  config cfg{policy};
  caf::actor_system system{cfg};
  const auto relay = system.spawn(echo);
  const auto worker = system.spawn<caf::detached>(echo);
  const auto asking = system.spawn(relay_with_worker, worker);
  {
    const auto serve_by = [&](const relay_actor& answers) {
      auto parts = std::make_unique<rpc::service_parts>(system, peer_manager_actor{}, callers, "main", false,
                                                        nullptr, system_time(), answers);
      parts->limits.lift_rates();
      return rpc::server::start({"127.0.0.1", 0, own}, std::move(parts));
    };
    auto ours = serve_by(relay), with_worker = serve_by(asking);
    if (!ours || !with_worker)
      return 1;
    bare_echo service;
    grpc::ServerBuilder builder;
    int bare_port = 0;
    builder.AddListeningPort("127.0.0.1:0", rpc::server_credentials(own), &bare_port);
    builder.RegisterService(&service);
    rpc::set_channel_rules(builder);
    const auto bare = builder.BuildAndStart();
    std::printf("%d %u %u\n", bare_port, (*ours)->port(), (*with_worker)->port());
    std::fflush(stdout);
    char end = 0;
    while (::read(STDIN_FILENO, &end, 1) > 0) {
    }
    bare->Shutdown();
    (*ours)->stop(0);
    (*with_worker)->stop(0);
  }
  for (const auto& one : {relay, worker, asking})
    caf::anon_send_exit(one, caf::exit_reason::kill);
  return 0;
}

// ---------------------------------------------------------------------------------------------- the client

/// What a run of calls comes to.
struct run_result {
  std::vector<double> latency_us;
  double seconds = 0;
};
struct run_plan {
  size_t together = 1;
  double seconds = 0.5;
};

/// Counts a run's calls, and is held by each of them; of `together` chains of calls each ends when the time
/// is over.
class run_clock {
public:
  explicit run_clock(const run_plan& plan) : chains_(plan.together), begin_(clock_type::now()) {
    until_ = begin_ +
             std::chrono::duration_cast<clock_type::duration>(std::chrono::duration<double>(plan.seconds));
  }
  /// Whether the chain goes on.
  bool done(clock_type::time_point since) {
    const auto now = clock_type::now();
    const std::lock_guard hold{lock_};
    result_.latency_us.push_back(std::chrono::duration<double, std::micro>(now - since).count());
    if (now < until_)
      return true;
    if (--chains_ == 0) {
      result_.seconds = std::chrono::duration<double>(now - begin_).count();
      end_.set_value();
    }
    return false;
  }
  run_result wait() {
    end_.get_future().wait();
    return std::move(result_);
  }

private:
  std::mutex lock_;
  size_t chains_;
  clock_type::time_point begin_, until_;
  run_result result_;
  std::promise<void> end_;
};

tensor_handle activations(int64_t tokens) {
  tensor_handle made;
  made.view = kernels::make_tensor(nullptr, kernels::dtype::bf16, {1, tokens, 768});
  auto bytes = std::make_shared<std::vector<uint8_t>>(made.view.bytes());
  for (size_t i = 0; i < bytes->size(); ++i)
    (*bytes)[i] = static_cast<uint8_t>(i * 31 % 60);
  made.view.data = bytes->data();
  made.owner = std::move(bytes);
  return made;
}

routed_forward call_with(const tensor_handle& hidden) {
  static std::atomic<uint64_t> number{0};
  routed_forward call;
  call.work.header.request_id = "rpc-bench-" + std::to_string(1'000'000 + number++);
  call.work.header.session_id = std::string(32, '5');
  call.work.header.architecture_id = "00112233aabbccdd";
  call.work.layer_begin = 6;
  call.work.layer_end = 12;
  call.work.hidden = hidden;
  return call;
}

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::_Exit(1);
}

struct driver {
  caf::actor_system& system;
  work_link_actor link;
  peer_address to;

  run_result run(const run_plan& plan, const tensor_handle& hidden) const {
    const auto clock = std::make_shared<run_clock>(plan);
    system.spawn([this, plan, clock, hidden](caf::event_based_actor* self) {
      for (size_t i = 0; i < plan.together; ++i)
        next(self, clock, hidden);
    });
    return clock->wait();
  }
  void next(caf::event_based_actor* self, const std::shared_ptr<run_clock>& clock,
            const tensor_handle& hidden) const {
    const auto since = clock_type::now();
    self->request(link, caf::infinite, peer_call<routed_forward>{to, call_with(hidden), 30'000})
        .then(
            [this, self, clock, hidden, since](const routed_forward_reply& reply) {
              if (reply.work.hidden.view.bytes() != hidden.view.bytes())
                fail("the echo is another");
              if (clock->done(since))
                next(self, clock, hidden);
            },
            [](const caf::error& why) { fail("a call failed: " + problem_of(why).message); });
  }
};

struct bare_client {
  std::unique_ptr<rpc::raw_stub> stub;

  struct one_call {
    grpc::ClientContext context;
    grpc::ByteBuffer reply;
  };
  run_result run(const run_plan& plan, const grpc::ByteBuffer& request) const {
    const auto clock = std::make_shared<run_clock>(plan);
    for (size_t i = 0; i < plan.together; ++i)
      next(clock, request);
    return clock->wait();
  }
  void next(const std::shared_ptr<run_clock>& clock, const grpc::ByteBuffer& request) const {
    const auto since = clock_type::now();
    auto* const call = new one_call;
    call->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    stub->UnaryCall(&call->context, forward_path, {}, &request, &call->reply,
                    [this, call, clock, &request, since](const grpc::Status& status) {
                      if (!status.ok() || call->reply.Length() != request.Length())
                        fail("a bare call failed: " + status.error_message());
                      delete call;
                      if (clock->done(since))
                        next(clock, request);
                    });
  }
};

double percentile(std::vector<double> all, double part) {
  std::sort(all.begin(), all.end());
  return all.empty()
             ? 0
             : all[std::min(all.size() - 1, static_cast<size_t>(part * static_cast<double>(all.size())))];
}

/// What the threads of the processes have come to: how often they stopped to wait, and their time on a core.
struct usage {
  double waits = 0, cpu_us = 0;
};
usage usage_of(std::initializer_list<pid_t> processes) {
  usage all;
  std::error_code gone;
  for (const pid_t process : processes)
    for (const auto& thread :
         std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task", gone)) {
      double cpu_ns = 0;
      if (std::ifstream(thread.path() / "schedstat") >> cpu_ns)
        all.cpu_us += cpu_ns / 1e3;
      std::ifstream status(thread.path() / "status");
      for (std::string line; std::getline(status, line);)
        if (constexpr std::string_view key = "voluntary_ctxt_switches:"; line.starts_with(key))
          all.waits += std::atof(line.c_str() + key.size());
    }
  return all;
}

double median(const std::vector<double>& all) {
  return percentile(all, 0.5);
}

/// A way from one process to the other, and what its rounds came to: median and p99 of latency in
/// microseconds, calls a second; of the latency run switches and microseconds of a core a call.
struct way {
  const char* name;
  std::function<run_result(const run_plan&)> run;
  std::vector<double> median_us = {}, p99_us = {}, per_s = {}, switches = {}, cpu_us = {};

  void round(double seconds, pid_t server) {
    const auto before = usage_of({::getpid(), server});
    const auto latency = run({1, seconds});
    const auto after = usage_of({::getpid(), server});
    const auto throughput = run({outstanding, seconds});
    const auto calls = static_cast<double>(latency.latency_us.size());
    median_us.push_back(percentile(latency.latency_us, 0.5));
    p99_us.push_back(percentile(latency.latency_us, 0.99));
    per_s.push_back(static_cast<double>(throughput.latency_us.size()) / throughput.seconds);
    switches.push_back((after.waits - before.waits) / calls);
    cpu_us.push_back((after.cpu_us - before.cpu_us) / calls);
  }
};
/// The median of the rounds' ratios.
double ratio(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> all;
  for (size_t i = 0; i < a.size(); ++i)
    all.push_back(a[i] / b[i]);
  return median(all);
}

/// Prints what a way came to beside the bare one; the same as a line of JSON.
std::string report(int64_t tokens, size_t bytes, const way& one, const way& bare) {
  const double p50 = ratio(one.median_us, bare.median_us), p99 = ratio(one.p99_us, bare.p99_us),
               rate = ratio(one.per_s, bare.per_s), cpu = ratio(one.cpu_us, bare.cpu_us);
  std::printf("%4ldx768 %-7s %9.1f %6.2f %9.1f %6.2f %9.0f %6.2f %9.1f %8.1f %6.2f\n",
              static_cast<long>(tokens), one.name, median(one.median_us), p50, median(one.p99_us), p99,
              median(one.per_s), rate, median(one.switches), median(one.cpu_us), cpu);
  char row[512];
  std::snprintf(
      row, sizeof row,
      "    {\"tokens\": %ld, \"bytes\": %zu, \"way\": \"%s\", \"p50_us\": %.1f, \"p50_ratio\": %.3f, "
      "\"p99_us\": %.1f, \"p99_ratio\": %.3f, \"per_s\": %.0f, \"throughput_ratio\": %.3f, "
      "\"switches\": %.1f, \"cpu_us\": %.1f, \"cpu_ratio\": %.3f}",
      static_cast<long>(tokens), bytes, one.name, median(one.median_us), p50, median(one.p99_us), p99,
      median(one.per_s), rate, median(one.switches), median(one.cpu_us), cpu);
  return row;
}

int drive(int rounds, double seconds, const std::string& policy, const std::string& json) {
  const auto folder = std::filesystem::temp_directory_path() / ("rpc_bench." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto own = certificate_of(folder / "client");
  const auto other = certificate_of(folder / "server");
  bench::child_process server({"--policy", policy, "--serve", folder.string()});
  unsigned bare_port = 0, ours_port = 0, worker_port = 0;
  const auto told = server.read_line();
  if (!told || std::sscanf(told->c_str(), "%u %u %u", &bare_port, &ours_port, &worker_port) != 3)
    fail("the server did not start");

  std::string rows;
  {
    config cfg{policy};
    caf::actor_system system{cfg};
    const auto link = rpc::spawn_link(system, {own, "main", client_id, std::make_shared<rpc::caller_table>(),
                                               system_time(), system_random()});
    const auto at = [](unsigned port) { return "127.0.0.1:" + std::to_string(port); };
    const driver ours{system, link, {server_id, at(ours_port), other.sha256}};
    const driver with_worker{system, link, {server_id, at(worker_port), other.sha256}};
    const bare_client bare{std::make_unique<rpc::raw_stub>(grpc::CreateCustomChannel(
        at(bare_port),
        rpc::channel_credentials(own, other.sha256, std::make_shared<rpc::shown_certificate>()),
        rpc::channel_arguments()))};
    std::printf(
        "bf16     way           p50 us  ratio    p99 us  ratio   calls/s  ratio  switches   cpu us  ratio\n");
    for (const int64_t tokens : {int64_t{1}, int64_t{512}}) {
      const auto hidden = activations(tokens);
      grpc::ByteBuffer bytes;
      if (rpc::write(call_with(hidden), {"rpc-bench-0000000", 30'000}, bytes))
        fail("the request cannot be written");
      way ways[] = {{"bare", [&](const run_plan& plan) { return bare.run(plan, bytes); }},
                    {"ours", [&](const run_plan& plan) { return ours.run(plan, hidden); }},
                    {"worker", [&](const run_plan& plan) { return with_worker.run(plan, hidden); }}};
      for (const auto& one : ways)
        (void)one.run({outstanding, seconds / 2});
      for (int round = 0; round < rounds; ++round)
        for (auto& one : ways)
          one.round(seconds, server.id());
      for (const auto& one : ways)
        rows += (rows.empty() ? "" : ",\n") + report(tokens, bytes.Length(), one, ways[0]);
    }
    caf::anon_send_exit(link, caf::exit_reason::kill);
  }
  server.end();
  std::filesystem::remove_all(folder);
  if (!json.empty())
    std::ofstream(json) << "{\n  \"policy\": \"" << policy << "\",\n  \"rounds\": " << rounds
                        << ",\n  \"outstanding\": " << outstanding << ",\n  \"cases\": [\n"
                        << rows << "\n  ]\n}\n";
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  int rounds = 7;
  double seconds = 0.5;
  std::string policy = "sharing", json;
  rpc::allow_tls_13_only();
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    if (key == "--serve")
      return serve(argv[i + 1], policy);
    if (key == "--rounds")
      rounds = std::max(1, std::atoi(argv[i + 1]));
    else if (key == "--seconds")
      seconds = std::max(0.05, std::atof(argv[i + 1]));
    else if (key == "--policy")
      policy = argv[i + 1];
    else if (key == "--json")
      json = argv[i + 1];
    else
      fail("unknown option " + key);
  }
  return drive(rounds, seconds, policy, json);
}
