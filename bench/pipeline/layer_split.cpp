#include "bench/pipeline/layer_split.hpp"

#include <algorithm>
#include <random>

namespace neuroshard::bench {

namespace {

constexpr int rounds = 5;

template <class T>
T must(kernels::result<T> made) {
  if (!made.ok())
    die(made.status().message());
  return std::move(*made);
}

model::activations normal_rows(int64_t rows, int64_t width, float deviation) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, deviation);
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(rows * width));
  for (auto& value : *values)
    value = normal(random);
  return {kernels::make_tensor(values->data(), kernels::dtype::f32, {rows, width}), values};
}

/// Medians of several rounds of one stage.
part_time time_of(const model::architecture& shape, const model::stage_options& held, int64_t rows,
                  int64_t seq) {
  const auto device = open_cpu(1);
  auto stage = must(model::stage::make(device, shape, held));
  if (const auto set = stage->initialize(1).run(); !set)
    die(set.message());
  const int64_t tokens = rows * seq;
  std::vector<int32_t> integers(static_cast<size_t>(tokens));
  for (size_t i = 0; i < integers.size(); ++i)
    integers[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(shape.vocab_capacity));
  const auto hidden = normal_rows(tokens, shape.hidden_dim, 1);
  const auto gradient = normal_rows(tokens, shape.hidden_dim, 1e-3F);
  std::vector<double> microbatch, apply;
  for (uint64_t round = 0; round <= rounds; ++round) {
    model::train_input in;
    in.key = {"split", round, 0};
    in.sequences = rows;
    in.positions_per_sequence = seq;
    if (held.embed)
      in.token_ids = integers;
    else
      in.hidden = hidden;
    if (held.head)
      in.labels = integers;
    const double took = seconds_of([&] {
      (void)must(stage->forward_train(in).run());
      (void)must(
          stage->backward(in.key, held.head ? model::activations{} : gradient, kernels::dtype::unspecified)
              .run());
    });
    const double applied = seconds_of([&] {
      model::optimizer_step step;
      step.learning_rate = 1e-4F;
      (void)must(stage->apply(step).run());
    });
    if (round > 0) { // the first is to warm up
      microbatch.push_back(took);
      apply.push_back(applied);
    }
  }
  return {spread_of(microbatch).median, spread_of(apply).median};
}

} // namespace

model_times measure_parts(const model::architecture& shape, kernels::dtype compute, int64_t rows,
                          int64_t seq) {
  model::stage_options held;
  held.compute = compute;
  held.train_tokens_max = rows * seq;
  model_times times;
  held.layer_end = shape.num_layers;
  times.layer = time_of(shape, held, rows, seq);
  times.layer.microbatch /= static_cast<double>(shape.num_layers);
  times.layer.apply /= static_cast<double>(shape.num_layers);
  held.layer_end = 0;
  held.embed = true;
  times.embed = time_of(shape, held, rows, seq);
  held.layer_begin = held.layer_end = shape.num_layers;
  held.embed = false;
  held.head = true;
  times.head = time_of(shape, held, rows, seq);
  return times;
}

double stage_seconds(const model_times& times, const std::vector<int64_t>& cuts, size_t index,
                     int microbatches) {
  const auto layers = static_cast<double>(cuts[index + 1] - cuts[index]);
  const auto sum = [&](double part_time::*of) {
    return layers * times.layer.*of + (index == 0 ? times.embed.*of : 0) +
           (index + 2 == cuts.size() ? times.head.*of : 0);
  };
  return microbatches * sum(&part_time::microbatch) + sum(&part_time::apply);
}

std::vector<int64_t> best_cuts(const model_times& times, int64_t layers, size_t stages, int microbatches) {
  std::vector<int64_t> cuts(stages + 1, layers), best;
  cuts.front() = 0;
  double best_seconds = 0;
  const auto look = [&](const auto& self, size_t at) -> void {
    if (at < stages) {
      for (cuts[at] = cuts[at - 1] + 1; cuts[at] <= layers; ++cuts[at])
        self(self, at + 1);
      cuts[at] = layers;
      return;
    }
    double slowest = 0;
    for (size_t i = 0; i < stages; ++i)
      slowest = std::max(slowest, stage_seconds(times, cuts, i, microbatches));
    if (best.empty() || slowest < best_seconds) {
      best = cuts;
      best_seconds = slowest;
    }
  };
  look(look, 1);
  return best;
}

} // namespace neuroshard::bench
