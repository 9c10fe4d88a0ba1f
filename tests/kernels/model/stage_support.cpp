#include "tests/kernels/model/stage_support.hpp"

#ifdef NEUROSHARD_HAS_CPU_BACKEND
#include "kernels/cpu/cpu_backend.hpp"
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace neuroshard::test {

std::vector<std::string> backends() {
#ifdef NEUROSHARD_HAS_CPU_BACKEND
  static const bool registered = (kernels::register_cpu_backend(), true);
  (void)registered;
#endif
  std::vector<std::string> names{"reference"};
  if (kernels::find_backend("cpu").ok())
    names.emplace_back("cpu");
  return names;
}

kernels::device_ptr open_device(const std::string& backend, int threads) {
  (void)backends();
  const auto table = kernels::find_backend(backend);
  REQUIRE(table.ok());
  kernels::device_options options;
  options.threads = threads;
  auto device = kernels::device::open(**table, options);
  REQUIRE(device.ok());
  return *device;
}

architecture tiny_shape() {
  architecture a;
  a.num_layers = 2;
  a.hidden_dim = 32;
  a.num_heads = 4;
  a.num_kv_heads = 2;
  a.ffn_dim = 48;
  a.vocab_capacity = 64;
  a.max_seq_len = 64;
  return a;
}

stage_options whole_options(const architecture& a, dtype compute) {
  stage_options o;
  o.layer_end = a.num_layers;
  o.embed = true;
  o.head = true;
  o.compute = compute;
  o.train_tokens_max = 64;
  o.sessions_max = 8;
  o.decode_rows_max = 8;
  o.prefill_rows_max = 32;
  o.idle_after = {};
  o.head_tile_rows = 16;
  o.kv_pool_bytes =
      kv_bytes_per_token(a, compute) * static_cast<uint64_t>(kernels::kv_block * a.num_layers) * 40;
  return o;
}

std::unique_ptr<stage> make_stage(const kernels::device_ptr& on, const architecture& a,
                                  const stage_options& o, uint64_t seed) {
  auto made = stage::make(on, a, o);
  INFO(made.status().message());
  REQUIRE(made.ok());
  auto s = std::move(*made);
  REQUIRE(s->initialize(seed).run().ok());
  return s;
}

uint64_t test_seed() {
  const char* text = std::getenv("NEUROSHARD_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 10) : 20260101;
}

std::vector<int32_t> random_ids(std::mt19937_64& random, size_t count, int32_t below) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids)
    id = static_cast<int32_t>(random() % static_cast<uint64_t>(below));
  return ids;
}

train_input whole_batch(const architecture& a, int64_t sequences, int64_t positions, uint64_t seed) {
  std::mt19937_64 random(seed);
  train_input in;
  in.key = {"session", 1, 0};
  in.sequences = sequences;
  in.positions_per_sequence = positions;
  const auto count = static_cast<size_t>(sequences * positions);
  in.token_ids = random_ids(random, count, static_cast<int32_t>(a.vocab_capacity));
  in.labels = random_ids(random, count, static_cast<int32_t>(a.vocab_capacity));
  return in;
}

std::vector<float> read_all(stage& s, const std::string& name, parameter_part part) {
  for (const unit& u : s.units())
    for (const parameter& p : u.parameters)
      if (p.name == name) {
        std::vector<float> values(static_cast<size_t>(p.count));
        REQUIRE(s.read(name, part, 0, values).ok());
        return values;
      }
  FAIL("no parameter " << name);
  return {};
}

std::map<std::string, std::vector<float>> read_parts(stage& s, parameter_part part) {
  std::map<std::string, std::vector<float>> all;
  for (const unit& u : s.units())
    for (const parameter& p : u.parameters)
      all[p.name] = read_all(s, p.name, part);
  return all;
}

namespace {
template <class T>
double relative(const std::vector<float>& a, const std::vector<T>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    difference += x * x;
    size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}
} // namespace

double relative_l2(const std::vector<float>& a, const std::vector<float>& b) {
  return relative(a, b);
}
double relative_l2(const std::vector<float>& a, const std::vector<double>& b) {
  return relative(a, b);
}

double logit_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double difference = 0;
  double largest = 1;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return difference / largest;
}

std::vector<float> logits_without_cache(stage& s, const std::vector<int32_t>& ids) {
  score_input in;
  in.positions_per_sequence = static_cast<int64_t>(ids.size());
  in.token_ids = ids;
  in.weights = s.newest();
  auto out = s.score(std::move(in)).run();
  INFO(out.status().message());
  REQUIRE(out.ok());
  const auto* values = out->logits.view.as<const float>();
  return {values, values + s.shape().vocab_capacity};
}

infer_row row_of(std::string session, uint32_t position, int64_t count) {
  infer_row row;
  row.session = std::move(session);
  row.cache_position = position;
  row.count = count;
  return row;
}

} // namespace neuroshard::test
