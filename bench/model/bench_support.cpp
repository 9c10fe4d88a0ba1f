#include "bench/model/bench_support.hpp"

#include "bench/kernels/kernel_cases.hpp"
#include "kernels/cpu/cpu_backend.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <thread>

namespace neuroshard::bench {

model::architecture shape_named(std::string_view name, bool tied) {
  model::architecture a;
  a.vocab_capacity = 32000;
  a.tie_embeddings = tied;
  if (name == "S") {
    a.num_layers = 6;
    a.hidden_dim = 256;
    a.num_heads = 8;
    a.num_kv_heads = 4;
    a.ffn_dim = 688;
  } else if (name == "M") {
    a.num_layers = 12;
    a.hidden_dim = 768;
    a.num_heads = 12;
    a.num_kv_heads = 4;
    a.ffn_dim = 2048;
  } else if (const model::preset* p = model::find_preset(name)) {
    a = p->shape;
  } else {
    die("no shape is called " + std::string(name));
  }
  return a;
}

spread spread_of(std::vector<double> values) {
  spread s;
  s.median = percentile(values, 0.5);
  s.low = percentile(values, 0);
  s.high = percentile(values, 1);
  for (double& v : values)
    v = std::abs(v - s.median);
  s.deviation = percentile(values, 0.5);
  return s;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty())
    return 0;
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (values[above] - values[below]) * (at - static_cast<double>(below));
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double product_peak(kernels::dtype type, int threads) {
  constexpr int64_t side = 2048;
  static std::map<kernels::dtype, std::function<void()>> products;
  auto& product = products[type];
  if (!product) {
    product = library_product(type, type, side, side, side, false, threads);
    product();
  }
  double best = 0;
  for (int i = 0; i < 3; ++i)
    best = std::max(best, 2e-9 * side * side * side / seconds_of(product));
  return best;
}

namespace {
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) uint64_t
read_words(const uint64_t* p, size_t count) {
  uint64_t a = 0;
  for (size_t i = 0; i < count; ++i)
    a ^= p[i];
  return a;
}
} // namespace

double read_bandwidth(int threads) {
  constexpr size_t bytes = size_t{256} << 20U;
  static std::vector<uint64_t> memory(bytes / 8, 1);
  const size_t share = memory.size() / static_cast<size_t>(threads);
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const double seconds = seconds_of([&] {
      std::vector<std::thread> others;
      const auto part = [&](size_t i) { sums[i * 8] += read_words(memory.data() + i * share, share); };
      for (int i = 1; i < threads; ++i)
        others.emplace_back(part, static_cast<size_t>(i));
      part(0);
      for (auto& other : others)
        other.join();
    });
    best = std::max(best, static_cast<double>(share * static_cast<size_t>(threads) * 8) / seconds * 1e-9);
  }
  return best;
}

uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0)
      return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
  return 0;
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0)
      return line.substr(line.find(':') + 2);
  return "unknown";
}

void die(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

kernels::device_ptr open_cpu(int threads) {
  kernels::device_options options;
  options.threads = threads;
  auto device = kernels::device::open(*kernels::cpu_backend(), options);
  if (!device.ok())
    die(device.status().message());
  return *device;
}

json_object& json_object::add_raw(std::string_view key, std::string_view json) {
  if (!body_.empty())
    body_ += ", ";
  body_.append("\"").append(key).append("\": ").append(json);
  return *this;
}

json_object& json_object::add(std::string_view key, double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return add_raw(key, text);
}

json_object& json_object::add(std::string_view key, std::string_view value) {
  std::string quoted = "\"";
  for (char c : value)
    quoted += c == '"' || c == '\\' || c < ' ' ? ' ' : c;
  return add_raw(key, quoted + "\"");
}

bench_options parse_options(int argc, char** argv, std::string_view usage) {
  bench_options o;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--help") {
      std::printf("%.*s\n", static_cast<int>(usage.size()), usage.data());
      std::exit(0);
    }
    if (word == "--quick")
      o.quick = true;
    else if (word == "--json" && i + 1 < argc)
      o.json = argv[++i];
    else if (word == "--corpus" && i + 1 < argc)
      o.corpus = argv[++i];
    else if (word == "--threads" && i + 1 < argc)
      o.threads = std::atoi(argv[++i]);
    else if (word.rfind("--", 0) == 0)
      die("unknown option " + std::string(word) + "\n" + std::string(usage));
    else
      o.rest.emplace_back(word);
  }
  if (o.threads <= 0)
    o.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return o;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  out.flush();
  if (!out)
    die("cannot write " + path);
}

} // namespace neuroshard::bench
