#include "kernels/cpu/compute_pool.hpp"

#include <algorithm>
#include <new>

#include <immintrin.h>
#include <linux/futex.h>
#include <omp.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace neuroshard::kernels::cpu {

namespace {

constexpr uint32_t open_bit = 1U << 31;
/// About 30 microseconds: a pause takes 40 to 140 cycles on today's processors.
constexpr int spins_max = 1500;

// The futex is called directly: std::atomic::wait of libstdc++ spins and yields by rules of its own first.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, compute_pool::threads_max, nullptr, nullptr, 0);
}

int clamp_threads(int threads) {
  if (threads <= 0)
    threads = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(threads, 1, compute_pool::threads_max);
}

} // namespace

compute_pool::compute_pool(int threads)
    : scratch_(threads_max), share_of_(std::make_unique<share[]>(threads_max)) {
  start_workers(clamp_threads(threads));
}

compute_pool::~compute_pool() {
  stop_workers();
}

compute_pool::lock::lock(compute_pool& pool) : held_(pool.use_), library_threads_(omp_get_max_threads()) {
  omp_set_num_threads(1);
}

compute_pool::lock::~lock() {
  omp_set_num_threads(library_threads_);
}

void compute_pool::set_threads(int threads) {
  const std::lock_guard<std::mutex> guard(use_);
  threads = clamp_threads(threads);
  if (threads == threads_.load(std::memory_order_relaxed))
    return;
  stop_workers();
  start_workers(threads);
}

void compute_pool::start_workers(int threads) {
  stop_.store(false, std::memory_order_relaxed);
  const uint32_t start = epoch_.load(std::memory_order_relaxed);
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker, start] { work(worker, start); });
  } catch (...) {
    // The system has no room for more threads: go on with those there are. Results are the same.
  }
  threads_.store(static_cast<int>(workers_.size()) + 1, std::memory_order_relaxed);
}

void compute_pool::stop_workers() {
  stop_.store(true, std::memory_order_seq_cst);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  wake_all(epoch_);
  for (auto& worker : workers_)
    worker.join();
  workers_.clear();
}

status compute_pool::reserve_scratch(size_t bytes) {
  const auto count = static_cast<size_t>(threads());
  for (size_t i = 0; i < count; ++i) {
    if (scratch_[i].size >= bytes)
      continue;
    scratch_[i].bytes.reset();
    scratch_[i].size = 0;
    auto* memory = static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64}, std::nothrow));
    if (memory == nullptr)
      return {code::out_of_memory, "no room for " + std::to_string(bytes) + " bytes of scratch memory"};
    scratch_[i].bytes.reset(memory);
    scratch_[i].size = bytes;
  }
  return {};
}

void compute_pool::run(int64_t tiles, tile_function fn, const void* context) {
  if (tiles <= 0)
    return;
  if (tiles == 1 || workers_.empty()) {
    for (int64_t tile = 0; tile < tiles; ++tile)
      fn(context, tile, 0);
    return;
  }
  function_ = fn;
  context_ = context;
  shares_ = static_cast<int>(std::min<int64_t>(tiles, threads()));
  for (int i = 0; i < shares_; ++i) {
    auto& mine = share_of_[static_cast<size_t>(i)];
    mine.next.store(tiles * i / shares_, std::memory_order_relaxed);
    mine.end = tiles * (i + 1) / shares_;
  }
  gate_.store(open_bit, std::memory_order_seq_cst);
  epoch_.fetch_add(1, std::memory_order_seq_cst);
  // A worker counts itself a sleeper before it looks at the epoch for the last time, so either it sees the
  // new epoch or this thread sees the sleeper.
  if (sleepers_.load(std::memory_order_seq_cst) > 0)
    wake_all(epoch_);
  take_tiles(0);
  gate_.fetch_and(~open_bit, std::memory_order_acq_rel);
  for (int spins = 0; gate_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < spins_max)
      _mm_pause();
    else
      std::this_thread::yield(); // a worker was preempted inside its tile
  }
}

void compute_pool::take_tiles(int worker) {
  for (int i = 0; i < shares_; ++i)
    take_share((worker + i) % shares_, worker);
}

void compute_pool::take_share(int which, int worker) {
  auto& from = share_of_[static_cast<size_t>(which)];
  while (from.next.load(std::memory_order_relaxed) < from.end) {
    const int64_t tile = from.next.fetch_add(1, std::memory_order_relaxed);
    if (tile < from.end)
      function_(context_, tile, worker);
  }
}

void compute_pool::work(int worker, uint32_t seen) {
  pthread_setname_np(pthread_self(), "compute");
  omp_set_num_threads(1);
  for (;;) {
    int spins = 0;
    while (epoch_.load(std::memory_order_acquire) == seen && spins < spins_max) {
      _mm_pause();
      ++spins;
    }
    if (epoch_.load(std::memory_order_acquire) == seen) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      while (epoch_.load(std::memory_order_seq_cst) == seen)
        sleep_while(epoch_, seen);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_acquire))
      return;
    uint32_t gate = gate_.load(std::memory_order_acquire);
    bool inside = false;
    while ((gate & open_bit) != 0 && !inside)
      inside =
          gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire);
    if (inside) {
      take_tiles(worker);
      gate_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }
}

} // namespace neuroshard::kernels::cpu
