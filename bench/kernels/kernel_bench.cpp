// How fast is every operation of the CPU backend, beside what the machine can do and what oneDNN alone gives?
// See bench/README.md.
#include "bench/kernels/ceiling.hpp"
#include "bench/kernels/report.hpp"
#include "kernels/cpu/cpu_backend.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace neuroshard::bench {

using namespace kernels;

// ---------------------------------------------------------------------------------------------- workbench

tensor workbench::make(dtype type, std::initializer_list<int64_t> shape) {
  tensor t = make_tensor(nullptr, type, shape);
  auto memory = on_->alloc(std::max<uint64_t>(t.bytes(), 1));
  if (!memory) {
    std::fprintf(stderr, "kernel_bench: %s\n", memory.status().message().c_str());
    std::exit(1);
  }
  t.data = (*memory)->address;
  kept_.push_back(*memory);
  return t;
}

uint32_t workbench::next() noexcept {
  state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
  return static_cast<uint32_t>(state_ >> 32);
}

tensor workbench::numbers(dtype type, std::initializer_list<int64_t> shape, float scale) {
  const tensor t = make(type, shape);
  for (int64_t i = 0; i < t.elements(); ++i) {
    const float x = scale * (static_cast<float>(next() >> 8) * 0x1p-23F - 1.0F);
    if (type == dtype::bf16)
      t.as<bf16>()[i] = to_bf16(x);
    else
      t.as<float>()[i] = x;
  }
  return t;
}

tensor workbench::constant(dtype type, std::initializer_list<int64_t> shape, float value) {
  const tensor t = make(type, shape);
  for (int64_t i = 0; i < t.elements(); ++i)
    switch (type) {
    case dtype::bf16:
      t.as<bf16>()[i] = to_bf16(value);
      break;
    case dtype::i32:
      t.as<int32_t>()[i] = static_cast<int32_t>(value);
      break;
    case dtype::f64:
      t.as<double>()[i] = static_cast<double>(value);
      break;
    default:
      t.as<float>()[i] = value;
    }
  return t;
}

tensor workbench::indices(int64_t count, int64_t n) {
  const tensor t = make(dtype::i32, {count});
  for (int64_t i = 0; i < count; ++i)
    t.as<int32_t>()[i] = static_cast<int32_t>((uint64_t{next()} * static_cast<uint64_t>(n)) >> 32);
  return t;
}

tensor workbench::counting(int64_t count, int64_t period, int64_t first) {
  const tensor t = make(dtype::i32, {count});
  for (int64_t i = 0; i < count; ++i)
    t.as<int32_t>()[i] = static_cast<int32_t>(first + i % period);
  return t;
}

tensor workbench::bytes(uint64_t count) {
  if (count == 0)
    return {};
  const tensor t = make(dtype::i8, {static_cast<int64_t>(count)});
  std::memset(t.data, 0, count);
  return t;
}

namespace {

struct options {
  std::string only;
  std::string json;
  std::string shape;
  int threads = 0;
  int rounds = 7;
};

constexpr double cache_beyond = 160e6; ///< sets of operands together, so that no cache holds them
constexpr double round_seconds = 0.03;

/// Whether a name contains one of the words between the commas, or there are none.
bool chosen(const std::string& name, const std::string& words) {
  if (words.empty())
    return true;
  for (size_t at = 0; at <= words.size();) {
    const size_t end = std::min(words.find(',', at), words.size());
    if (end > at && name.find(words.substr(at, end - at)) != std::string::npos)
      return true;
    at = end + 1;
  }
  return false;
}

double number(const tensor& t, int64_t i) {
  switch (t.type) {
  case dtype::bf16:
    return static_cast<double>(to_f32(t.as<bf16>()[i]));
  case dtype::f64:
    return t.as<double>()[i];
  default:
    return static_cast<double>(t.as<float>()[i]);
  }
}

/// max |a - b| / max |b| over what both calls wrote; rows may have gaps.
double distance(const std::vector<tensor>& ours, const std::vector<tensor>& theirs) {
  double worst = 0;
  for (size_t o = 0; o < ours.size(); ++o) {
    const tensor& t = ours[o];
    const int64_t rows = t.rank > 1 ? t.shape[0] : 1;
    const int64_t width = t.elements() / std::max<int64_t>(rows, 1);
    const int64_t stride = t.rank > 1 ? t.stride[0] : width;
    double apart = 0;
    double largest = 0;
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < width; ++j) {
        const double a = number(t, i * stride + j);
        const double b = number(theirs[o], i * theirs[o].stride[0] * (t.rank > 1 ? 1 : 0) + j);
        apart = std::max(apart, std::isfinite(a) ? std::abs(a - b) : INFINITY);
        largest = std::max(largest, std::abs(b));
      }
    worst = std::max(worst, largest > 0 ? apart / largest : apart);
  }
  return worst;
}

double error_against_reference(const bench_case& one, const device_ptr& cpu, const device_ptr& reference) {
  if (one.error_rows == 0)
    return -1;
  workbench ours(cpu, 11);
  workbench theirs(reference, 11);
  const prepared_call a = one.make(ours, one.error_rows);
  const prepared_call b = one.make(theirs, one.error_rows);
  if (a.outputs.empty())
    return -1;
  auto qa = queue::open(cpu);
  auto qb = queue::open(reference);
  if (!a.run(**qa).ok() || !b.run(**qb).ok())
    return INFINITY;
  return distance(a.outputs, b.outputs);
}

template <class Work>
double seconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak_of(const bench_case& one, const machine_peaks& peaks) {
  switch (one.limit) {
  case bound::matrix:
    return one.type == dtype::bf16 ? peaks.bf16 : peaks.f32;
  case bound::copy:
    return peaks.copy;
  case bound::read:
    break;
  }
  return peaks.read;
}

/// A ceiling in every round: half of it before the operation and half after it.
struct beside {
  beside(ceiling* c, double bytes) : what(c), half_bytes(bytes / 2) {}

  void measure_half() {
    if (what != nullptr)
      inverse += 0.5 / what->rate(half_bytes);
  }
  void end_round(double ours) {
    if (what == nullptr)
      return;
    rates.push_back(1 / inverse);
    shares.push_back(ours * inverse);
    inverse = 0;
  }

  ceiling* what;
  double half_bytes;
  double inverse = 0; ///< seconds a gigabyte
  std::vector<double> rates;
  std::vector<double> shares;
};

measured measure(const bench_case& one, const options& o, const machine_peaks& peaks, const device_ptr& cpu,
                 const device_ptr& reference) {
  measured m;
  m.what = &one;
  m.peak = peak_of(one, peaks);
  m.error = error_against_reference(one, cpu, reference);
  const bool rotates = one.limit != bound::matrix;
  const int sets = rotates ? static_cast<int>(std::clamp(cache_beyond / one.footprint, 2.0, 256.0)) : 1;
  std::vector<std::unique_ptr<workbench>> benches;
  std::vector<prepared_call> calls;
  for (int i = 0; i < sets; ++i) {
    benches.push_back(std::make_unique<workbench>(cpu, static_cast<uint64_t>(i) + 1));
    calls.push_back(one.make(*benches.back(), one.rows));
  }
  auto with = queue::open(cpu);
  size_t turn = 0;
  const auto call = [&] {
    const status done = calls[turn++ % calls.size()].run(**with);
    if (!done.ok()) {
      std::fprintf(stderr, "kernel_bench: %s: %s\n", one.op.c_str(), done.message().c_str());
      std::exit(1);
    }
  };
  const auto library = one.library ? one.library(cpu_threads(*cpu)) : std::function<void()>{};
  const auto times = [](const auto& work) {
    return std::max(1, static_cast<int>(round_seconds / std::max(seconds(work), 1e-7)));
  };
  call();
  if (library)
    library();
  const int repeats = std::max(times(call), std::min(sets, 64));
  const int library_repeats = library ? times(library) : 0;
  if (library)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::vector<double> rates;
  std::vector<double> library_rates;
  std::vector<double> shares;
  // No smaller than what the sets of operands have together.
  const auto stream =
      stream_ceiling(one.limit, std::max(cache_beyond, one.footprint * sets), cpu_threads(*cpu));
  const auto places = places_ceiling(calls, cpu_threads(*cpu));
  beside by_stream(stream.get(), one.work * repeats);
  beside by_places(places.get(), one.work * repeats);
  for (int round = 0; round < o.rounds; ++round) {
    by_stream.measure_half();
    by_places.measure_half();
    rates.push_back(one.work * repeats * 1e-9 / seconds([&] {
                      for (int i = 0; i < repeats; ++i)
                        call();
                    }));
    by_places.measure_half();
    by_stream.measure_half();
    by_places.end_round(rates.back());
    by_stream.end_round(rates.back());
    if (library) {
      library_rates.push_back(one.work * library_repeats * 1e-9 / seconds([&] {
                                for (int i = 0; i < library_repeats; ++i)
                                  library();
                              }));
      shares.push_back(rates.back() / library_rates.back());
      // OpenMP's threads go on spinning for some milliseconds; they must not take the processors from the
      // next round.
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      call();
    }
  }
  m.rate = spread_of(rates);
  m.ceiling = spread_of(by_stream.rates);
  m.ceiling_share = spread_of(by_stream.shares).median;
  m.places_ceiling = spread_of(by_places.rates);
  m.places_share = spread_of(by_places.shares).median;
  m.microseconds = one.work * 1e-3 / m.rate.median;
  m.library = spread_of(library_rates).median;
  m.library_share = spread_of(shares).median;
  return m;
}

int usage(int code) {
  std::fprintf(
      code == 0 ? stdout : stderr,
      "usage: kernel_bench [--only OP] [--shape TEXT] [--threads N] [--rounds N] [--json FILE]\n"
      "Beside each memory-bound operation, in every round, a plain copy (or read, where nothing is "
      "written)\nmoves as many bytes; `share` is the median over the rounds of operation / copy of "
      "the same round.\n`same places` is one memcpy for each of the same random rows, or a plain read of "
      "the same cache blocks, and\nthe operation's share of it.\n"
      "  --only OP     operations whose name contains OP, or one of several with commas between\n"
      "  --shape TEXT  shapes whose name contains TEXT (\"M gate\", \"pico\")\n"
      "  --threads N   threads of the compute pool and of oneDNN (default: all)\n"
      "  --rounds N    measured rounds, at least 5 (default 7)\n"
      "  --json FILE   also writes the results there\n");
  return code;
}

bool parse(int argc, char** argv, options& o) {
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (i + 1 >= argc)
      return false;
    const std::string value = argv[++i];
    if (flag == "--only")
      o.only = value;
    else if (flag == "--shape")
      o.shape = value;
    else if (flag == "--json")
      o.json = value;
    else if (flag == "--threads")
      o.threads = std::atoi(value.c_str());
    else if (flag == "--rounds")
      o.rounds = std::max(5, std::atoi(value.c_str()));
    else
      return false;
  }
  return o.threads >= 0;
}

int run(const options& o) {
  device_options how;
  how.threads = o.threads;
  auto cpu = device::open(*cpu_backend(), how);
  auto reference = device::open(*reference_backend(), {});
  if (!cpu || !reference) {
    std::fprintf(stderr, "kernel_bench: %s\n", (!cpu ? cpu.status() : reference.status()).message().c_str());
    return 1;
  }
  const int threads = cpu_threads(**cpu);
  std::vector<bench_case> cases;
  add_product_cases(cases);
  add_memory_cases(cases);
  machine_peaks peaks = measure_peaks(threads);
  const std::string processor = (*cpu)->info().name;
  print_heading(peaks, processor, threads);
  std::vector<measured> rows;
  for (const bench_case& one : cases) {
    if (!chosen(one.op, o.only) || one.shape.find(o.shape) == std::string::npos)
      continue;
    rows.push_back(measure(one, o, peaks, *cpu, *reference));
    print_row(rows.back());
  }
  // Other work may have disturbed the first measurement: the better of two counts.
  const machine_peaks again = measure_peaks(threads);
  peaks = {std::max(peaks.bf16, again.bf16), std::max(peaks.f32, again.f32), std::max(peaks.copy, again.copy),
           std::max(peaks.read, again.read)};
  std::printf(
      "\nPeaks, the better of before and after: bf16 %.1f, f32 %.1f GFLOP/s, copy %.1f, read %.1f GB/s\n",
      peaks.bf16, peaks.f32, peaks.copy, peaks.read);
  for (measured& m : rows)
    m.peak = peak_of(*m.what, peaks);
  if (!o.json.empty() && !write_json(o.json, peaks, processor, threads, rows)) {
    std::fprintf(stderr, "kernel_bench: cannot write %s\n", o.json.c_str());
    return 1;
  }
  return 0;
}

} // namespace

} // namespace neuroshard::bench

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--help") == 0)
    return neuroshard::bench::usage(0);
  neuroshard::bench::options o;
  if (!neuroshard::bench::parse(argc, argv, o))
    return neuroshard::bench::usage(2);
  return neuroshard::bench::run(o);
}
