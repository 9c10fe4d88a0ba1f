// What does training by outer steps cost in loss, and save in bytes, beside per-step all-reduce; and what is
// left of it when one replica of four lies?
//
//   diloco_bench [--corpus PATH] [--json FILE] [--threads 2] [--quick] [NAME=VALUE ...] [GROUP ...]
//
// GROUP: bytes, attacks (both are the default). Every variant is a process of its own, of one thread; as many
// run at once as there are threads. A variant depends on nothing but its settings (NAME=VALUE, see
// `settings`).

#include "bench/diloco/replica_group.hpp"
#include "bench/model/bench_corpus.hpp"
#include "bench/rpc/child_process.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace neuroshard::bench {

namespace {

constexpr const char* usage =
    "diloco_bench [--corpus PATH] [--json FILE] [--threads N] [--quick] [NAME=VALUE ...] [GROUP ...]";
constexpr size_t replicas = 4;

/// What can be set by NAME=VALUE.
std::map<std::string, double> settings_of(bool quick) {
  return {{"layers", 2},
          {"width", 96},
          {"vocab", 1024},
          {"rows", 4},
          {"seq", 64},
          {"lr", 2e-3},
          {"warmup", 100},
          {"outer_lr", 0.7},
          {"momentum", 0.9},
          {"seed", 1},
          {"steps", quick ? 200 : 1'000}, ///< of a replica; a multiple of every H
          {"attack_steps", quick ? 100 : 300},
          {"bf16", 0}};
}

training_plan plan_of(const std::map<std::string, double>& set, uint64_t steps) {
  const auto whole = [&](const char* name) { return static_cast<int64_t>(set.at(name)); };
  training_plan plan;
  auto& shape = plan.shape;
  shape.num_layers = whole("layers");
  shape.hidden_dim = whole("width");
  shape.num_heads = 4;
  shape.num_kv_heads = 2;
  shape.ffn_dim = whole("width") * 8 / 3 / 8 * 8;
  shape.vocab_capacity = whole("vocab");
  plan.compute = set.at("bf16") > 0 ? kernels::dtype::bf16 : kernels::dtype::f32;
  plan.seed = static_cast<uint64_t>(whole("seed"));
  plan.rows = static_cast<uint32_t>(whole("rows"));
  plan.seq = static_cast<uint32_t>(whole("seq"));
  plan.optimizer = {set.at("lr"), static_cast<uint64_t>(whole("warmup")), steps};
  plan.steps = steps;
  return plan;
}

enum class way : uint8_t { all_reduce, one_after_another, outer_steps };

struct variant {
  std::string group, name;
  way how = way::outer_steps;
  uint64_t steps = 0; ///< of a replica
  outer_plan outer;
};

std::vector<variant> all_variants(const std::map<std::string, double>& set, bool quick) {
  const auto steps = static_cast<uint64_t>(set.at("steps"));
  const auto attack_steps = static_cast<uint64_t>(set.at("attack_steps"));
  const outer_parameters outer{set.at("outer_lr"), set.at("momentum")};
  std::vector<variant> all;
  all.push_back({"bytes", "all-reduce", way::all_reduce, steps, {}});
  all.push_back({"bytes", "one batch after the other", way::one_after_another, replicas * steps, {}});
  const std::vector<std::pair<std::string, delta_encoding>> sent{{"f32", delta_encoding::f32},
                                                                 {"int8", delta_encoding::dense_i8},
                                                                 {"int4", delta_encoding::dense_i4},
                                                                 {"top-k", delta_encoding::topk_i8}};
  for (const uint32_t h : quick ? std::vector<uint32_t>{50} : std::vector<uint32_t>{50, 100, 500})
    for (const auto& [name, encoding] : sent) {
      outer_plan how{h, encoding, 0.1, aggregation_strategy::trimmed_mean, outer, {}};
      if (encoding == delta_encoding::f32 && h != 50)
        continue;
      how.strategy = aggregation_strategy::mean; // nobody lies here, and top-k goes with no other
      all.push_back({"bytes", name + "/" + std::to_string(h), way::outer_steps, steps, how});
    }
  all.push_back({"bytes",
                 "int8/50, trimmed mean",
                 way::outer_steps,
                 steps,
                 {50, delta_encoding::dense_i8, 0.1, aggregation_strategy::trimmed_mean, outer, {}}});
  for (const auto strategy : {aggregation_strategy::trimmed_mean, aggregation_strategy::krum,
                              aggregation_strategy::geometric_median}) {
    std::vector<std::string> attacks{""};
    for (const auto& attack : test::attack_names())
      attacks.push_back(attack);
    for (const auto& attack : attacks)
      all.push_back({"attacks",
                     std::string(to_string(strategy)) + ", " + (attack.empty() ? "clean" : attack),
                     way::outer_steps,
                     attack_steps,
                     {50, delta_encoding::dense_i8, 0.1, strategy, outer, attack}});
  }
  return all;
}

std::vector<std::string> tokens() {
  std::vector<std::string> made;
  for (size_t i = 1; i <= replicas; ++i)
    made.push_back(std::string(60, 'b') + std::to_string(1'000 + i));
  return made;
}

int lines_with(const std::string& file, const std::string& words) {
  std::ifstream in(file);
  int count = 0;
  for (std::string line; std::getline(in, line);)
    count += line.find(words) != std::string::npos;
  return count;
}

/// Runs one variant in this process; its row.
json_object run(const variant& what, const training_plan& plan, const text::dataset& data,
                const std::string& folder) {
  std::string log = what.name;
  std::replace(log.begin(), log.end(), '/', '_');
  log = folder + "/" + log + ".log";
  log_to_file(log);
  training_bed bed(plan, data);
  json_object row;
  row.add("group", what.group).add("name", what.name).add("steps", static_cast<double>(what.steps));
  const auto begin = std::chrono::steady_clock::now();
  double last = 0;
  if (what.how == way::outer_steps) {
    replica_group group(bed, what.outer, tokens());
    row.add("loss_before", bed.validate(group.first()));
    while (group.steps_done() < what.steps)
      group.round();
    last = bed.validate(group.first());
    row.add("bytes_per_token", group.bytes_sent() / static_cast<double>(what.steps * bed.tokens_per_step()));
    row.add("least_contributions", group.least_contributions());
    row.add("refused_liar", static_cast<double>(group.liar_refused()));
    row.add("refused_honest", static_cast<double>(group.honest_refused()));
    row.add("log_names_liar", lines_with(log, "contribution-refused node=" + group.last_id()));
  } else {
    const auto ids = replica_group::node_ids(tokens());
    const bool together = what.how == way::all_reduce;
    auto learner = bed.make_learner(together ? ids : std::vector<std::string>{ids.front()});
    row.add("loss_before", bed.validate(learner));
    bed.bind(learner, 0);
    for (uint64_t at = 1; at <= plan.steps; ++at)
      bed.step(learner, at);
    last = bed.validate(learner);
    // A ring all-reduce of f32 gradients sends twice their bytes, whatever the number of nodes.
    if (together)
      row.add("bytes_per_token", 8.0 * static_cast<double>(plan.shape.parameters()) /
                                     static_cast<double>(bed.tokens_per_step()));
  }
  row.add("loss", last);
  row.add("seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return row;
}

double number_in(const std::string& json, const std::string& key) {
  const auto at = json.find("\"" + key + "\": ");
  return at == std::string::npos ? NAN : std::strtod(json.c_str() + at + key.size() + 4, nullptr);
}

/// Rows of all variants, in their order.
std::vector<std::string> run_all(const std::vector<variant>& all, const std::vector<std::string>& words,
                                 const std::string& folder, const bench_options& options) {
  std::vector<std::string> rows(all.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t at = next++; at < all.size(); at = next++) {
      std::vector<std::string> arguments{"--threads", "1", "case", all[at].name, folder};
      arguments.insert(arguments.end(), words.begin(), words.end());
      if (options.quick)
        arguments.emplace_back("--quick");
      if (!options.corpus.empty())
        arguments.insert(arguments.end(), {"--corpus", options.corpus});
      child_process child(arguments);
      const auto line = child.read_line();
      if (!child.end() || !line)
        die("the variant " + all[at].name + " failed");
      rows[at] = *line;
      std::fprintf(stderr, "%-40s loss %.4f, %.0f s\n", all[at].name.c_str(), number_in(*line, "loss"),
                   number_in(*line, "seconds"));
    }
  };
  std::vector<std::thread> others;
  for (int i = 1; i < options.threads; ++i)
    others.emplace_back(work);
  work();
  for (auto& one : others)
    one.join();
  return rows;
}

void print(const std::vector<variant>& all, const std::vector<std::string>& rows) {
  double reduced = NAN, reduced_bytes = NAN;
  std::map<aggregation_strategy, double> clean;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].how == way::all_reduce) {
      reduced = number_in(rows[i], "loss");
      reduced_bytes = number_in(rows[i], "bytes_per_token");
    }
    if (all[i].group == "attacks" && all[i].outer.attack.empty())
      clean[all[i].outer.strategy] = number_in(rows[i], "loss");
  }
  std::printf("%-40s %8s %9s %12s %9s %8s %8s\n", "", "loss", "over base", "bytes/token", "fewer", "refused",
              "honest");
  for (size_t i = 0; i < all.size(); ++i) {
    const double loss = number_in(rows[i], "loss"), bytes = number_in(rows[i], "bytes_per_token");
    const double base = all[i].group == "bytes" ? reduced : clean[all[i].outer.strategy];
    std::printf("%-40s %8.4f %+8.2f%% %12.1f %8.0fx %8.0f %8.0f\n", all[i].name.c_str(), loss,
                100 * (loss / base - 1), bytes, reduced_bytes / bytes, number_in(rows[i], "refused_liar"),
                number_in(rows[i], "refused_honest"));
  }
}

} // namespace

int run_diloco_bench(int argc, char** argv) {
  bench_options options = parse_options(argc, argv, usage);
  auto& rest = options.rest;
  const bool is_case = rest.size() >= 3 && rest[0] == "case";
  const std::string name = is_case ? rest[1] : "";
  std::string folder = is_case ? rest[2] : "";
  if (is_case)
    rest.erase(rest.begin(), rest.begin() + 3);
  auto set = settings_of(options.quick);
  std::vector<std::string> words, groups;
  for (const auto& word : rest) {
    const auto equal = word.find('=');
    if (equal == std::string::npos) {
      groups.push_back(word);
      continue;
    }
    const auto at = set.find(word.substr(0, equal));
    if (at == set.end())
      die("no setting is called " + word.substr(0, equal) + "\n" + usage);
    at->second = std::strtod(word.c_str() + equal + 1, nullptr);
    words.push_back(word);
  }
  auto all = all_variants(set, options.quick);
  const auto vocab = static_cast<uint32_t>(set["vocab"]);
  if (is_case) {
    const auto data = open_corpus(options.corpus, folder, vocab);
    for (const auto& one : all)
      if (one.name == name) {
        std::printf("%s\n", run(one, plan_of(set, one.steps), data, folder).text().c_str());
        return 0;
      }
    die("no variant is called " + name);
  }
  if (!groups.empty())
    std::erase_if(all, [&](const variant& one) {
      return std::find(groups.begin(), groups.end(), one.group) == groups.end() &&
             std::find(groups.begin(), groups.end(), one.name) == groups.end();
    });
  const auto scratch =
      std::filesystem::temp_directory_path() / ("diloco_bench." + std::to_string(::getpid()));
  std::filesystem::create_directories(scratch);
  folder = scratch;
  (void)open_corpus(options.corpus, folder, vocab);
  const auto plan = plan_of(set, static_cast<uint64_t>(set["steps"]));
  std::printf("%zu replicas of %lld parameters, %u x %u tokens a step; %llu steps, attacks %g\n", replicas,
              static_cast<long long>(plan.shape.parameters()), plan.rows, plan.seq,
              static_cast<unsigned long long>(plan.steps), set["attack_steps"]);
  const auto rows = run_all(all, words, folder, options);
  std::filesystem::remove_all(scratch);
  print(all, rows);
  std::string cases;
  for (const auto& row : rows)
    cases += (cases.empty() ? "\n  " : ",\n  ") + row;
  json_object out, settings;
  for (const auto& [key, value] : set)
    settings.add(key, value);
  out.add("bench", "diloco_bench")
      .add("processor", processor_name())
      .add("replicas", static_cast<double>(replicas))
      .add("parameters", static_cast<double>(plan.shape.parameters()))
      .add_raw("settings", settings.text())
      .add_raw("cases", "[" + cases + "\n]");
  if (!options.json.empty())
    write_file(options.json, out.text() + "\n");
  return 0;
}

} // namespace neuroshard::bench

int main(int argc, char** argv) {
  return neuroshard::bench::run_diloco_bench(argc, argv);
}
