// What is left of two cores when each is a node of its own, with a part of the layers?
//
//   pipeline_bench [--corpus PATH] [--json FILE] [--quick] [SHAPE:TYPE ...]   (default deep:bf16 S:bf16)
//
// Every stage is a process of this program with the real worker, relay and gRPC gateway (TLS 1.3, loopback),
// one compute thread, pinned to one core; the first one has the trainer. Beside it one process with all cores
// and the same micro-batches. They take turns in each round; ratios are medians over the rounds. Where the
// layers are cut is found by measuring each part on one core. Four stages share the cores there are.

#include "bench/pipeline/layer_split.hpp"
#include "bench/pipeline/stage_process.hpp"

#include "bench/model/bench_corpus.hpp"
#include "bench/rpc/child_process.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include <unistd.h>

namespace neuroshard::bench {

namespace {

constexpr const char* usage =
    "pipeline_bench [--corpus PATH] [--json FILE] [--quick] [SHAPE:TYPE ...]   (default deep:bf16 S:bf16)";
constexpr int steps_of_round = 2;

/// The processes of one pipeline.
class pipeline {
public:
  struct busy {
    double compute = 0, processor = 0; ///< seconds
  };
  explicit pipeline(stage_plan plan) : plan_(std::move(plan)) {
    for (plan_.index = 0; plan_.index < plan_.stages(); ++plan_.index) {
      auto words = plan_.words();
      words.insert(words.begin(), "stage");
      stages_.push_back(std::make_unique<child_process>(words));
    }
    std::string ports;
    for (auto& stage : stages_)
      ports += answer(*stage) + " ";
    for (auto& stage : stages_)
      stage->write_line(ports);
  }

  /// Tokens a second of so many steps.
  double run(int steps) {
    double seconds = 0, tokens = 0;
    stages_.front()->write_line("run " + std::to_string(steps));
    if (std::sscanf(answer(*stages_.front()).c_str(), "%lf %lf", &seconds, &tokens) != 2)
      die("a pipeline ran and told nothing; see its log in " + plan_.folder);
    seconds_ = seconds;
    return tokens / seconds;
  }
  double seconds() const noexcept { return seconds_; } ///< of the last run
  std::vector<busy> seen() {
    std::vector<busy> all;
    for (auto& stage : stages_) {
      stage->write_line("seen");
      auto& one = all.emplace_back();
      if (std::sscanf(answer(*stage).c_str(), "%lf %lf", &one.compute, &one.processor) != 2)
        die("a stage tells nothing");
    }
    return all;
  }
  /// Bytes of the wire for each token of a step.
  double bytes_per_token() {
    count();
    const double rate = run(1);
    const double bytes = count();
    return bytes / (rate * seconds_);
  }

private:
  static std::string answer(child_process& stage) {
    auto line = stage.read_line();
    if (!line)
      die("a stage has ended");
    return std::move(*line);
  }
  double count() {
    double sum = 0;
    for (auto& stage : stages_) {
      stage->write_line("count");
      sum += std::atof(answer(*stage).c_str());
    }
    return sum;
  }

  stage_plan plan_;
  std::vector<std::unique_ptr<child_process>> stages_;
  double seconds_ = 0;
};

/// What is idle of each stage, and of all cores: medians over rounds.
struct idle_shares {
  std::vector<std::vector<double>> stages; ///< not computing, by stage
  std::vector<double> cores;               ///< not used by any process of the pipeline
  explicit idle_shares(size_t count) : stages(count) {}
  void add(const std::vector<pipeline::busy>& before, const std::vector<pipeline::busy>& after,
           double seconds) {
    double used = 0;
    for (size_t i = 0; i < stages.size(); ++i) {
      stages[i].push_back(1 - (after[i].compute - before[i].compute) / seconds);
      used += after[i].processor - before[i].processor;
    }
    const auto cores_used =
        std::min<size_t>(stages.size(), std::max(1U, std::thread::hardware_concurrency()));
    cores.push_back(1 - used / seconds / static_cast<double>(cores_used));
  }
};

std::string text_of(const std::vector<int64_t>& cuts) {
  std::string all;
  for (size_t i = 0; i + 1 < cuts.size(); ++i)
    all += (i > 0 ? "+" : "") + std::to_string(cuts[i + 1] - cuts[i]);
  return all;
}

std::string numbers(const std::vector<double>& all) {
  std::string text;
  for (const double one : all) {
    char number[32];
    std::snprintf(number, sizeof number, "%s%.4g", text.empty() ? "" : ", ", one);
    text += number;
  }
  return "[" + text + "]";
}

std::string run_case(const std::string& name, const std::string& folder, const bench_options& options) {
  const auto colon = name.find(':');
  stage_plan plan;
  plan.shape = name.substr(0, colon);
  plan.bf16 = colon == std::string::npos || name.substr(colon + 1) == "bf16";
  plan.folder = folder + "/" + plan.shape;
  plan.corpus = options.corpus;
  const auto shape = pipeline_shape(plan.shape);
  std::filesystem::create_directories(plan.folder);
  make_certificates(plan.folder, 4);
  (void)open_corpus(plan.corpus, plan.folder, static_cast<uint32_t>(shape.vocab_capacity));
  const int microbatches = static_cast<int>(plan.microbatches);
  const auto times =
      measure_parts(shape, plan.bf16 ? kernels::dtype::bf16 : kernels::dtype::f32, plan.rows, plan.seq);
  std::printf(
      "\n%s: %d micro-batches of %u x %u; on one core a micro-batch takes %.1f ms in the embedding, %.1f "
      "in each of %lld layers, %.1f in the head\n",
      name.c_str(), microbatches, plan.rows, plan.seq, times.embed.microbatch * 1e3,
      times.layer.microbatch * 1e3, static_cast<long long>(shape.num_layers), times.head.microbatch * 1e3);

  plan.cuts = {0, shape.num_layers};
  pipeline alone(plan);
  alone.run(1);
  json_object out;
  out.add("case", name)
      .add("parameters", static_cast<double>(shape.parameters()))
      .add("microbatches", microbatches)
      .add("tokens_of_microbatch", plan.rows * plan.seq)
      .add("embed_ms", times.embed.microbatch * 1e3)
      .add("layer_ms", times.layer.microbatch * 1e3)
      .add("head_ms", times.head.microbatch * 1e3);
  std::string rows;
  for (const size_t stages : {size_t{2}, size_t{4}}) {
    plan.cuts = best_cuts(times, shape.num_layers, stages, microbatches);
    double slowest = 0, all = 0;
    for (size_t i = 0; i < stages; ++i) {
      const double one = stage_seconds(times, plan.cuts, i, microbatches);
      slowest = std::max(slowest, one);
      all += one;
    }
    const double balance = all / slowest / static_cast<double>(stages);
    const double schedule = microbatches / (microbatches + static_cast<double>(stages) - 1);
    pipeline split(plan);
    split.run(1);
    const double bytes = split.bytes_per_token();
    std::vector<double> of_split, of_alone, ratios;
    idle_shares idle(stages);
    for (int round = 0; round < (options.quick ? 2 : stages == 2 ? 7 : 3); ++round) {
      const auto before = split.seen();
      of_split.push_back(split.run(steps_of_round));
      idle.add(before, split.seen(), split.seconds());
      of_alone.push_back(alone.run(steps_of_round));
      ratios.push_back(of_split.back() / of_alone.back());
    }
    std::vector<double> bubbles;
    for (const auto& one : idle.stages)
      bubbles.push_back(spread_of(one).median);
    const auto ratio = spread_of(ratios);
    std::printf("%zu stages of %s layers: %.0f tokens/s, %.3f of one process (%.3f to %.3f; %.0f tokens/s); "
                "balance %.3f x 1F1B %.3f; idle: cores %.3f, not computing %s; %.0f bytes a token\n",
                stages, text_of(plan.cuts).c_str(), spread_of(of_split).median, ratio.median, ratio.low,
                ratio.high, spread_of(of_alone).median, balance, schedule, spread_of(idle.cores).median,
                numbers(bubbles).c_str(), bytes);
    json_object row;
    row.add("stages", static_cast<double>(stages))
        .add("layers", text_of(plan.cuts))
        .add("tokens_per_second", spread_of(of_split).median)
        .add("tokens_per_second_alone", spread_of(of_alone).median)
        .add("ratio", ratio.median)
        .add("ratio_low", ratio.low)
        .add("ratio_high", ratio.high)
        .add("balance_bound", balance)
        .add("schedule_bound", schedule)
        .add("cores_idle", spread_of(idle.cores).median)
        .add_raw("bubble", numbers(bubbles))
        .add("bytes_per_token", bytes);
    rows += (rows.empty() ? "" : ", ") + row.text();
  }
  out.add_raw("stages", "[" + rows + "]");
  return out.text();
}

} // namespace

int run_pipeline_bench(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (argc > 1 && std::string(argv[1]) == "stage")
    return run_stage(stage_plan_of({argv + 2, argv + argc}));
  auto options = parse_options(argc, argv, usage);
  if (options.rest.empty())
    options.rest = {"deep:bf16", "S:bf16"};
  const auto scratch =
      std::filesystem::temp_directory_path() / ("pipeline_bench." + std::to_string(::getpid()));
  std::printf("%s, %u cores\n", processor_name().c_str(), std::thread::hardware_concurrency());
  std::string cases;
  for (const auto& name : options.rest)
    cases += (cases.empty() ? "\n  " : ",\n  ") + run_case(name, scratch, options);
  std::filesystem::remove_all(scratch);
  json_object out;
  out.add("bench", "pipeline_bench").add("processor", processor_name());
  out.add_raw("cases", "[" + cases + "\n]");
  if (!options.json.empty())
    write_file(options.json, out.text() + "\n");
  return 0;
}

} // namespace neuroshard::bench

int main(int argc, char** argv) {
  return neuroshard::bench::run_pipeline_bench(argc, argv);
}
