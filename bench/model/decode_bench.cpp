#include "bench/model/bench_support.hpp"

#include <chrono>
#include <cstdio>
#include <random>

/// How fast is inference: prefill beside the product peak, decode (128 tokens from an empty cache, and again
/// after the prompt) beside the bandwidth at which memory can be read, batches beside single sessions, and
/// how long a decode waits while the same stage trains. Shape M, untied, unless told otherwise.
namespace neuroshard::bench {

namespace {

constexpr const char* usage =
    "decode_bench [--json FILE] [--threads N] [--quick] [SHAPE[:TYPE]]   (default M:bf16)";
constexpr int64_t prompt_tokens = 512;
constexpr int64_t decode_tokens = 128;

using clock = std::chrono::steady_clock;

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

/// A stage that holds the whole model, and the numbers of it that the rates are counted with.
struct subject {
  model::architecture shape;
  kernels::dtype type = kernels::dtype::bf16;
  int threads = 1;
  std::unique_ptr<model::stage> stage;
  double size = 2; ///< bytes of a weight

  double layer_weights() const {
    return static_cast<double>(shape.num_layers * (shape.layer_parameters() - 2 * shape.hidden_dim));
  }
  double head_weights() const { return static_cast<double>(shape.vocab_capacity * shape.hidden_dim); }
  /// Bytes that a decode step of one session at `position` must read.
  double read_bytes(double position) const {
    return (layer_weights() + head_weights()) * size +
           position * static_cast<double>(model::kv_bytes_per_token(shape, type)) *
               static_cast<double>(shape.num_layers);
  }
  /// Products of a prefill: layers for all positions, attention over what precedes each, the head for the
  /// last.
  double prefill_operations() const {
    const auto t = static_cast<double>(prompt_tokens);
    return t * 2 * layer_weights() + 2 * head_weights() +
           2 * t * t * static_cast<double>(shape.num_layers * shape.q_width());
  }
};

std::vector<int32_t> random_ids(const subject& s, int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids)
    id = static_cast<int32_t>(4 + random() % static_cast<uint64_t>(s.shape.vocab_capacity - 4));
  return ids;
}

model::infer_row row_of(const std::string& session, int64_t position, int64_t count) {
  model::infer_row row;
  row.session = session;
  row.cache_position = static_cast<uint32_t>(position);
  row.count = count;
  row.sample.emplace();
  row.sample->temperature = 0.8F;
  row.sample->top_k = 50;
  row.sample->seed = 1;
  row.sample->step = static_cast<uint64_t>(position);
  row.want_logprob = false; // as a request without them
  return row;
}

model::infer_output run(const subject& s, model::infer_input input, bool prefill) {
  input.want = model::infer_result::token;
  input.now = clock::now();
  auto out = must(s.stage->infer(std::move(input), prefill).run());
  for (const auto& row : out.rows)
    if (row.status != model::infer_status::ok)
      die("a row failed");
  return out;
}

int32_t prefill(const subject& s, const std::string& session, uint64_t seed) {
  model::infer_input in;
  in.rows = {row_of(session, 0, prompt_tokens)};
  in.token_ids = random_ids(s, prompt_tokens, seed);
  return run(s, std::move(in), true).rows[0].token;
}

/// Begins sessions s0 ... with one token each.
std::vector<int32_t> begin(const subject& s, size_t sessions) {
  model::infer_input in;
  for (size_t i = 0; i < sessions; ++i)
    in.rows.push_back(row_of("s" + std::to_string(i), 0, 1));
  in.token_ids.assign(sessions, 1);
  std::vector<int32_t> first;
  for (const auto& row : run(s, std::move(in), true).rows)
    first.push_back(row.token);
  return first;
}

/// One token for each of `last.size()` sessions named s0, s1, ...
void decode(const subject& s, std::vector<int32_t>& last, int64_t position) {
  model::infer_input in;
  for (size_t i = 0; i < last.size(); ++i)
    in.rows.push_back(row_of("s" + std::to_string(i), position, 1));
  in.token_ids = last;
  const auto out = run(s, std::move(in), false);
  for (size_t i = 0; i < last.size(); ++i)
    last[i] = out.rows[i].token;
}

/// Tokens a second of all sessions together, over `tokens` steps from `position` on.
double decode_rate(const subject& s, std::vector<int32_t> last, int64_t position, int64_t tokens) {
  return static_cast<double>(static_cast<int64_t>(last.size()) * tokens) / seconds_of([&] {
           for (int64_t t = 0; t < tokens; ++t)
             decode(s, last, position + t);
         });
}

subject make_subject(const bench_options& options) {
  subject s;
  std::string name = options.rest.empty() ? "M" : options.rest[0];
  const size_t colon = name.find(':');
  if (colon != std::string::npos && name.substr(colon + 1) == "f32")
    s.type = kernels::dtype::f32;
  name = name.substr(0, colon);
  s.shape = shape_named(name, false);
  s.size = static_cast<double>(kernels::size_of(s.type));
  s.threads = options.threads;
  model::stage_options o;
  o.layer_end = s.shape.num_layers;
  o.embed = o.head = true;
  o.compute = s.type;
  o.train_tokens_max = 4 * 256;
  o.kv_pool_bytes =
      model::kv_bytes_per_token(s.shape, s.type) * static_cast<uint64_t>(s.shape.num_layers) * 1024 * 16;
  s.stage = must(model::stage::make(open_cpu(options.threads), s.shape, o));
  must(s.stage->initialize(1).run());
  must(s.stage->make_serving_copy(1, false).run());
  return s;
}

struct latency {
  double median = 0, p99 = 0, longest = 0;
};

latency latency_of(const std::vector<double>& seconds) {
  return {percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3, percentile(seconds, 1) * 1e3};
}

/// Time from token to token of one session, when nothing else happens.
latency idle_latency(const subject& s, std::vector<int32_t> last, int64_t tokens) {
  std::vector<double> gaps;
  for (int64_t t = 0; t < tokens; ++t)
    gaps.push_back(seconds_of([&] { decode(s, last, prompt_tokens + t); }));
  return latency_of(gaps);
}

/// The same while the stage trains: after every slice of training the waiting decode runs, as the layer
/// worker does it. One slice lies between two tokens, since the next decode is asked for while it runs.
latency training_latency(const subject& s, std::vector<int32_t> last, int64_t tokens, double& train_share) {
  std::vector<double> gaps;
  double training_seconds = 0;
  uint64_t step = 0;
  model::sliced<kernels::result<model::train_output>> forward;
  model::sliced<kernels::result<model::apply_output>> apply;
  const auto train_slice = [&] {
    if (forward && forward.resume()) {
      (void)must(forward.take());
      forward.reset();
      model::optimizer_step optimizer;
      optimizer.learning_rate = 1e-4F;
      apply = s.stage->apply(optimizer);
    } else if (apply && apply.resume()) {
      (void)must(apply.take());
      apply.reset();
    } else if (!forward && !apply) {
      model::train_input in;
      in.key = {"bench", ++step, 0};
      in.sequences = 4;
      in.positions_per_sequence = 256;
      in.token_ids = random_ids(s, 1024, step);
      in.labels = random_ids(s, 1024, step + 1);
      forward = s.stage->forward_train(std::move(in));
    }
  };
  const auto start = clock::now();
  auto previous = start;
  for (int64_t t = 0; t < tokens; ++t) {
    training_seconds += seconds_of(train_slice);
    decode(s, last, prompt_tokens + t % decode_tokens);
    const auto now = clock::now();
    gaps.push_back(std::chrono::duration<double>(now - previous).count());
    previous = now;
  }
  train_share = training_seconds / std::chrono::duration<double>(previous - start).count();
  forward.reset();
  apply.reset();
  return latency_of(gaps);
}

} // namespace

int run_decode_bench(int argc, char** argv) {
  const bench_options options = parse_options(argc, argv, usage);
  const subject s = make_subject(options);
  const int rounds = options.quick ? 2 : 7;
  const int64_t tokens = options.quick ? 32 : decode_tokens;
  std::vector<double> prefill_rates, prefill_shares, one_rates, one_shares, eight_rates, scalings, bandwidths,
      peaks;
  std::vector<double> one_after_rates, one_after_shares, scalings_after;
  std::vector<double> idle_p99, training_p99, ratios, idle_median, training_median, shares_of_training;
  for (int round = -1; round < rounds; ++round) {
    std::vector<int32_t> last;
    for (int i = 0; i < 8; ++i)
      last.push_back(prefill(s, "s" + std::to_string(i), static_cast<uint64_t>(i)));
    const double peak = product_peak(s.type, s.threads);
    const double prefill_seconds = seconds_of([&] { (void)prefill(s, "p", 9); });
    const double bandwidth = read_bandwidth(s.threads);
    const double one_after = decode_rate(s, {last[0]}, prompt_tokens, tokens);
    const double eight_after = decode_rate(s, last, prompt_tokens, tokens);
    const latency idle = idle_latency(s, {last[0]}, decode_tokens);
    double train_share = 0;
    const latency busy = training_latency(s, {last[0]}, options.quick ? 128 : 384, train_share);
    (void)s.stage->discard().run();
    const double one = decode_rate(s, begin(s, 1), 1, tokens);
    const double eight = decode_rate(s, begin(s, 8), 1, tokens);
    if (round < 0) {
      must(s.stage->initialize(1).run()); // an optimizer step may have ended half way
      continue;
    }
    must(s.stage->initialize(1).run());
    peaks.push_back(peak);
    bandwidths.push_back(bandwidth);
    prefill_rates.push_back(static_cast<double>(prompt_tokens) / prefill_seconds);
    prefill_shares.push_back(s.prefill_operations() / prefill_seconds * 1e-9 / peak);
    one_rates.push_back(one);
    const double half = static_cast<double>(tokens) / 2;
    one_shares.push_back(one * s.read_bytes(half) * 1e-9 / bandwidth);
    one_after_rates.push_back(one_after);
    one_after_shares.push_back(one_after * s.read_bytes(static_cast<double>(prompt_tokens) + half) * 1e-9 /
                               bandwidth);
    scalings_after.push_back(eight_after / one_after);
    eight_rates.push_back(eight);
    scalings.push_back(eight / one);
    idle_p99.push_back(idle.p99);
    idle_median.push_back(idle.median);
    training_p99.push_back(busy.p99);
    training_median.push_back(busy.median);
    ratios.push_back(busy.p99 / idle.p99);
    shares_of_training.push_back(train_share);
  }
  const auto median = [](const std::vector<double>& v) { return percentile(v, 0.5); };
  const char* type = s.type == kernels::dtype::bf16 ? "bf16" : "f32";
  std::printf("%s, %d threads; %lld layers x %lld wide, %s; medians of %d rounds\n", processor_name().c_str(),
              options.threads, static_cast<long long>(s.shape.num_layers),
              static_cast<long long>(s.shape.hidden_dim), type, rounds);
  std::printf("prefill %lld tokens   %8.0f tokens/s   %5.1f %% of the product peak (%.0f GFLOP/s)\n",
              static_cast<long long>(prompt_tokens), median(prefill_rates), 100 * median(prefill_shares),
              median(peaks));
  std::printf("decode, 1 session    %8.1f tokens/s   %5.1f %% of the read bandwidth (%.1f GB/s)\n",
              median(one_rates), 100 * median(one_shares), median(bandwidths));
  std::printf("decode, 8 sessions   %8.1f tokens/s   %5.2f times one session\n", median(eight_rates),
              median(scalings));
  std::printf(
      "the same after the prompt %6.1f tokens/s  %5.1f %% of the read bandwidth; 8 sessions %.2f times one\n",
      median(one_after_rates), 100 * median(one_after_shares), median(scalings_after));
  std::printf("token to token, idle      median %6.2f ms   p99 %6.2f ms\n", median(idle_median),
              median(idle_p99));
  std::printf("token to token, training  median %6.2f ms   p99 %6.2f ms   %.2f times idle; training had %.0f "
              "%% of the time\n",
              median(training_median), median(training_p99), median(ratios),
              100 * median(shares_of_training));
  json_object out;
  out.add("bench", "decode_bench")
      .add("processor", processor_name())
      .add("threads", options.threads)
      .add("type", type)
      .add("layers", static_cast<double>(s.shape.num_layers))
      .add("hidden_dim", static_cast<double>(s.shape.hidden_dim))
      .add("rounds", rounds)
      .add("product_peak_gflops", median(peaks))
      .add("read_gb_per_second", median(bandwidths))
      .add("prefill_tokens_per_second", median(prefill_rates))
      .add("prefill_share_of_peak", median(prefill_shares))
      .add("decode_1_tokens_per_second", median(one_rates))
      .add("decode_1_deviation", spread_of(one_rates).deviation)
      .add("decode_1_share_of_read_bandwidth", median(one_shares))
      .add("decode_8_tokens_per_second", median(eight_rates))
      .add("decode_8_over_1", median(scalings))
      .add("after_prompt_1_tokens_per_second", median(one_after_rates))
      .add("after_prompt_1_share_of_read_bandwidth", median(one_after_shares))
      .add("after_prompt_8_over_1", median(scalings_after))
      .add("idle_median_ms", median(idle_median))
      .add("idle_p99_ms", median(idle_p99))
      .add("training_median_ms", median(training_median))
      .add("training_p99_ms", median(training_p99))
      .add("training_over_idle_p99", median(ratios))
      .add("training_share_of_time", median(shares_of_training));
  if (!options.json.empty())
    write_file(options.json, out.text() + "\n");
  return 0;
}

} // namespace neuroshard::bench

int main(int argc, char** argv) {
  return neuroshard::bench::run_decode_bench(argc, argv);
}
