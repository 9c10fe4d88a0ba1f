#include "bench/model/bench_support.hpp"

#include <array>
#include <cstdio>
#include <random>

/// How fast is a whole training step (forward, backward, clip, AdamW, layouts remade) of 4 x 256 tokens,
/// beside the product peak of the same minute? Counted as (6 P + 12 L T d) operations a token. Every case
/// runs in a process of its own, so that its peak memory can be compared with what the program counts.
namespace neuroshard::bench {

namespace {

constexpr int64_t sequences = 4;
constexpr int64_t positions = 256;
constexpr const char* usage = "train_bench [--json FILE] [--threads N] [--quick] [SHAPE:TYPE ...]   (default "
                              "S:bf16 S:f32 M:bf16 M:f32)";

template <class T>
T must(kernels::result<T> r) {
  if (!r.ok())
    die(r.status().message());
  return std::move(*r);
}
void must(const kernels::status& s) {
  if (!s.ok())
    die(s.message());
}

model::train_input random_batch(const model::architecture& a, uint64_t step) {
  std::mt19937_64 random(step);
  model::train_input in;
  in.key = {"bench", step, 0};
  in.sequences = sequences;
  in.positions_per_sequence = positions;
  for (int64_t i = 0; i < sequences * positions; ++i) {
    in.token_ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(a.vocab_capacity)));
    in.labels.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(a.vocab_capacity)));
  }
  return in;
}

/// One shape and type; prints a table row and, for the parent, a JSON object.
void run_case(const std::string& shape, kernels::dtype type, const bench_options& options) {
  const model::architecture a = shape_named(shape, true);
  model::stage_options o;
  o.layer_end = a.num_layers;
  o.embed = o.head = true;
  o.compute = type;
  o.train_tokens_max = sequences * positions;
  const auto device = open_cpu(options.threads);
  auto s = must(model::stage::make(device, a, o));
  must(s->initialize(1).run());
  must(s->make_serving_copy(0, false).run()); // as a node that also serves
  const int rounds = options.quick ? 3 : shape == "M" ? 9 : 15;
  std::vector<double> step_seconds, apply_seconds, peaks, shares, longest;
  const double tokens = static_cast<double>(sequences * positions);
  const double operations = tokens * (6.0 * static_cast<double>(a.parameters()) +
                                      12.0 * static_cast<double>(a.num_layers * positions * a.hidden_dim));
  double loss = 0;
  for (int round = -1; round < rounds; ++round) {
    const double peak = product_peak(type, options.threads);
    auto input = random_batch(a, static_cast<uint64_t>(round + 1));
    double slice_longest = 0;
    const auto sliced_run = [&](auto work) {
      for (bool done = false; !done;) {
        const double took = seconds_of([&] { done = work.resume(); });
        slice_longest = std::max(slice_longest, took);
      }
      return must(work.take());
    };
    const double forward_backward =
        seconds_of([&] { loss = sliced_run(s->forward_train(std::move(input))).loss; });
    const double apply = seconds_of([&] {
      model::optimizer_step step;
      step.learning_rate = 1e-4F;
      (void)sliced_run(s->apply(step));
    });
    if (round < 0)
      continue; // warm-up
    step_seconds.push_back(forward_backward + apply);
    apply_seconds.push_back(apply);
    peaks.push_back(peak);
    shares.push_back(operations / step_seconds.back() * 1e-9 / peak);
    longest.push_back(slice_longest);
  }
  const uint64_t resident = peak_resident_bytes();
  const model::memory_use planned = s->planned();
  const spread step = spread_of(step_seconds);
  const char* type_name = type == kernels::dtype::bf16 ? "bf16" : "f32";
  std::printf("%-2s %-5s %9.0f %9.1f %9.1f %7.1f %% %9.1f %9.1f %9.1f %9.0f %9.0f %6.2f\n", shape.c_str(),
              type_name, tokens / step.median, operations / step.median * 1e-9, spread_of(peaks).median,
              100 * spread_of(shares).median, step.median * 1e3, spread_of(apply_seconds).median * 1e3,
              spread_of(longest).median * 1e3, static_cast<double>(planned.total()) * 1e-6,
              static_cast<double>(resident) * 1e-6,
              static_cast<double>(resident) / static_cast<double>(planned.total()));
  json_object memory;
  memory.add("weights", static_cast<double>(planned.weights))
      .add("master", static_cast<double>(planned.master))
      .add("gradients", static_cast<double>(planned.gradients))
      .add("moments", static_cast<double>(planned.moments))
      .add("serving", static_cast<double>(planned.serving))
      .add("activations", static_cast<double>(planned.activations))
      .add("kv_pool", static_cast<double>(planned.kv_pool))
      .add("workspace", static_cast<double>(planned.workspace));
  json_object out;
  out.add("shape", shape)
      .add("type", type_name)
      .add("parameters", static_cast<double>(a.parameters()))
      .add("tokens_per_second", tokens / step.median)
      .add("gflops", operations / step.median * 1e-9)
      .add("product_peak_gflops", spread_of(peaks).median)
      .add("share_of_peak", spread_of(shares).median)
      .add("step_ms", step.median * 1e3)
      .add("step_ms_deviation", step.deviation * 1e3)
      .add("step_ms_low", step.low * 1e3)
      .add("step_ms_high", step.high * 1e3)
      .add("apply_ms", spread_of(apply_seconds).median * 1e3)
      .add("longest_slice_ms", spread_of(longest).median * 1e3)
      .add("rounds", rounds)
      .add("last_loss", loss)
      .add("planned_bytes", static_cast<double>(planned.total()))
      .add("peak_resident_bytes", static_cast<double>(resident))
      .add_raw("planned", memory.text());
  if (!options.json.empty())
    write_file(options.json, out.text());
}

/// Runs this program again for one case.
std::string run_child(const char* program, const std::string& name, const bench_options& options) {
  const std::string file =
      (options.json.empty() ? std::string("/tmp/train_bench.json") : options.json) + ".part";
  std::string command = std::string("'") + program + "' case " + name + " --json '" + file + "' --threads " +
                        std::to_string(options.threads) + (options.quick ? " --quick" : "");
  std::fflush(stdout);
  if (std::system(command.c_str()) != 0)
    die("the case " + name + " failed");
  std::string text;
  if (std::FILE* in = std::fopen(file.c_str(), "r")) {
    std::array<char, 4096> block{};
    for (size_t n = 0; (n = std::fread(block.data(), 1, block.size(), in)) > 0;)
      text.append(block.data(), n);
    std::fclose(in);
  }
  std::remove(file.c_str());
  return text;
}

} // namespace

int run_train_bench(int argc, char** argv) {
  bench_options options = parse_options(argc, argv, usage);
  if (options.rest.size() == 2 && options.rest[0] == "case") {
    const std::string& name = options.rest[1];
    const size_t colon = name.find(':');
    if (colon == std::string::npos)
      die(usage);
    run_case(name.substr(0, colon),
             name.substr(colon + 1) == "f32" ? kernels::dtype::f32 : kernels::dtype::bf16, options);
    return 0;
  }
  if (options.rest.empty())
    options.rest = {"S:bf16", "S:f32", "M:bf16", "M:f32"};
  std::printf("%s, %d threads; training steps of %d x %d tokens, tied head; medians\n",
              processor_name().c_str(), options.threads, static_cast<int>(sequences),
              static_cast<int>(positions));
  std::printf("%-2s %-5s %9s %9s %9s %9s %9s %9s %9s %9s %9s %6s\n", "", "type", "tokens/s", "GFLOP/s",
              "peak", "share", "step ms", "apply ms", "slice ms", "plan MB", "peak MB", "ratio");
  std::string cases;
  for (const std::string& name : options.rest)
    cases += (cases.empty() ? "\n  " : ",\n  ") + run_child(argv[0], name, options);
  json_object out;
  out.add("bench", "train_bench").add("processor", processor_name()).add("threads", options.threads);
  out.add_raw("cases", "[" + cases + "\n]");
  if (!options.json.empty())
    write_file(options.json, out.text() + "\n");
  return 0;
}

} // namespace neuroshard::bench

int main(int argc, char** argv) {
  return neuroshard::bench::run_train_bench(argc, argv);
}
