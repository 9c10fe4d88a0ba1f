#include "bench/kernels/kernel_cases.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <oneapi/dnnl/dnnl.hpp>

#include <omp.h>
#include <sys/mman.h>

namespace neuroshard::bench {

namespace {

constexpr int rounds = 7;

double seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_rate(double amount, const std::function<void()>& work) {
  work();
  double best = 0;
  for (int i = 0; i < rounds; ++i)
    best = std::max(best, amount / seconds(work) * 1e-9);
  return best;
}

/// Runs fn(thread) on so many threads.
void on_threads(int threads, const std::function<void(int)>& fn) {
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i)
    others.emplace_back(fn, i);
  fn(0);
  for (auto& other : others)
    other.join();
}

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) uint64_t
read_all(const uint64_t* p, size_t count) {
  uint64_t a = 0;
  for (size_t i = 0; i < count; ++i)
    a ^= p[i];
  return a;
}

// As the operations do it: plain loads and stores. The C library copies past the caches, which is slower on
// some machines.
__attribute__((target_clones("avx512f", "avx2", "default"),
               optimize("O3", "no-tree-loop-distribute-patterns"))) void
copy_all(uint64_t* __restrict to, const uint64_t* __restrict from, size_t count) {
  for (size_t i = 0; i < count; ++i)
    to[i] = from[i];
}

dnnl::memory::data_type type_of(dtype type) {
  return type == dtype::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

} // namespace

std::function<void()> library_product(dtype type, dtype out, int64_t m, int64_t n, int64_t k,
                                      bool transposed_a, int threads) {
  using dnnl::memory;
  omp_set_num_threads(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const memory::desc a({m, k}, type_of(type), transposed_a ? memory::format_tag::ba : memory::format_tag::ab);
  const memory::desc b({k, n}, type_of(type),
                       transposed_a ? memory::format_tag::ab : memory::format_tag::any);
  const memory::desc c({m, n}, type_of(out), memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  if (transposed_a) {
    dnnl::post_ops sum;
    sum.append_sum(1);
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc description({a, b, c}, attributes, engine);
  struct state {
    dnnl::matmul product;
    dnnl::stream stream;
    memory a, b, c;
    int threads;
  };
  auto s =
      std::make_shared<state>(state{dnnl::matmul(description), dnnl::stream(engine), memory(a, engine),
                                    memory(description.weights_desc(), engine), memory(c, engine), threads});
  for (const memory* each : {&s->a, &s->b, &s->c})
    std::memset(each->get_data_handle(), 0, each->get_desc().get_size());
  return [s] {
    omp_set_num_threads(s->threads);
    s->product.execute(s->stream, {{DNNL_ARG_SRC, s->a}, {DNNL_ARG_WEIGHTS, s->b}, {DNNL_ARG_DST, s->c}});
    s->stream.wait();
  };
}

machine_peaks measure_peaks(int threads) {
  machine_peaks peaks;
  constexpr int64_t side = 2048;
  for (const dtype type : {dtype::bf16, dtype::f32}) {
    const auto product = library_product(type, type, side, side, side, false, threads);
    const double flops = 2.0 * side * side * side;
    (type == dtype::bf16 ? peaks.bf16 : peaks.f32) = best_rate(3 * flops, [&] {
      for (int i = 0; i < 3; ++i)
        product();
    });
  }
  constexpr size_t bytes = size_t{256} << 20;
  std::unique_ptr<std::byte[], void (*)(void*)> from(
      static_cast<std::byte*>(std::aligned_alloc(2 << 20, bytes)), std::free);
  std::unique_ptr<std::byte[], void (*)(void*)> to(
      static_cast<std::byte*>(std::aligned_alloc(2 << 20, bytes)), std::free);
  if (from == nullptr || to == nullptr)
    return peaks;
  // As the device's memory is: in small pages reading gave half as much.
  madvise(from.get(), bytes, MADV_HUGEPAGE);
  madvise(to.get(), bytes, MADV_HUGEPAGE);
  std::memset(from.get(), 1, bytes);
  std::memset(to.get(), 1, bytes);
  const size_t share = bytes / static_cast<size_t>(threads) / 64 * 64;
  const auto copy_rate = [&](const std::function<void(std::byte*, const std::byte*, size_t)>& copy) {
    return best_rate(2.0 * static_cast<double>(share) * threads, [&] {
      on_threads(threads, [&](int i) {
        const size_t at = static_cast<size_t>(i) * share;
        copy(to.get() + at, from.get() + at, share);
      });
    });
  };
  peaks.copy =
      std::max(copy_rate([](std::byte* out, const std::byte* in, size_t n) { std::memcpy(out, in, n); }),
               copy_rate([](std::byte* out, const std::byte* in, size_t n) {
                 copy_all(reinterpret_cast<uint64_t*>(out), reinterpret_cast<const uint64_t*>(in), n / 8);
               }));
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  peaks.read = best_rate(static_cast<double>(share) * threads, [&] {
    on_threads(threads, [&](int i) {
      const auto at = static_cast<size_t>(i);
      sums[at * 8] += read_all(reinterpret_cast<const uint64_t*>(from.get() + at * share), share / 8);
    });
  });
  return peaks;
}

} // namespace neuroshard::bench
