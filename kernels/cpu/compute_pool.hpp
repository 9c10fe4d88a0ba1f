#pragma once

#include "kernels/core/status.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace neuroshard::kernels::cpu {

/// The threads that compute, one pool per opened device: `threads` workers, of which worker 0 is whoever
/// calls parallel_for.
///
/// A call of the backend locks the pool (`use`), may ask for scratch memory, and runs one or more parallel
/// loops. Which worker runs a tile is left to chance, so a tile must not depend on it; then results do not
/// depend on the number of threads. Workers spin for some 30 microseconds after a loop, as the next one
/// usually follows at once, and then sleep.
class compute_pool {
public:
  static constexpr int threads_max = 256;

  /// Threads are clamped to [1, threads_max]; 0 means one per hardware thread.
  explicit compute_pool(int threads);
  ~compute_pool();
  compute_pool(const compute_pool&) = delete;
  compute_pool& operator=(const compute_pool&) = delete;

  /// Locks the pool for one call of the backend. While it is held the math library runs single-threaded on
  /// this thread.
  class lock {
  public:
    explicit lock(compute_pool& pool);
    ~lock();
    lock(const lock&) = delete;
    lock& operator=(const lock&) = delete;

  private:
    std::lock_guard<std::mutex> held_;
    int library_threads_;
  };

  /// Changes the number of workers between two calls of the backend. Any thread, not under `lock`.
  void set_threads(int threads);
  int threads() const noexcept { return threads_.load(std::memory_order_relaxed); }

  /// Gives every worker at least `bytes` of scratch memory, 64-byte aligned. Under `lock`, before
  /// parallel_for.
  status reserve_scratch(size_t bytes);
  /// The scratch memory of a worker; its content is undefined between tiles.
  std::byte* scratch(int worker) noexcept { return scratch_[static_cast<size_t>(worker)].bytes.get(); }

  /// Calls fn(tile, worker) for each tile in [0, tiles) and returns when all are done. fn must not throw.
  /// Under `lock`.
  template <class Function>
  void parallel_for(int64_t tiles, const Function& fn) {
    static_assert(std::is_invocable_v<const Function&, int64_t, int>);
    run(
        tiles,
        [](const void* f, int64_t tile, int worker) { (*static_cast<const Function*>(f))(tile, worker); },
        &fn);
  }

private:
  using tile_function = void (*)(const void* context, int64_t tile, int worker);
  struct free_bytes {
    void operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{64}); }
  };
  struct scratch_memory {
    std::unique_ptr<std::byte[], free_bytes> bytes;
    size_t size = 0;
  };

  void run(int64_t tiles, tile_function fn, const void* context);
  void take_tiles(int worker);
  /// Takes the tiles of one share until it is empty.
  void take_share(int share, int worker);
  void work(int worker, uint32_t start);
  void start_workers(int threads);
  void stop_workers();

  std::mutex use_;
  std::atomic<int> threads_{1};
  std::vector<std::thread> workers_;
  std::vector<scratch_memory> scratch_;

  // The loop under way. Plain members are written while `gate_` is closed and nobody is inside.
  tile_function function_ = nullptr;
  const void* context_ = nullptr;
  int shares_ = 0;
  /// A contiguous part of the tiles for each worker, as neighbours share memory: weights that are streamed,
  /// rows in a cache. Who has done his own helps the others.
  struct alignas(64) share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::unique_ptr<share[]> share_of_;
  /// Bit 31: open. Bits 0-15: workers inside. A worker enters only while the gate is open, so the caller,
  /// when it has closed the gate, waits for those inside alone: a worker that is still waking up holds
  /// nobody.
  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0}; ///< counts loops; workers sleep on it
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
};

} // namespace neuroshard::kernels::cpu
