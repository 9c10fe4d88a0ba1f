#include "kernels/cpu/compute_pool.hpp"
#include "tests/support/test.hpp"

#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

using neuroshard::kernels::cpu::compute_pool;

namespace {

/// Runs a loop and counts how often each tile ran.
std::vector<int> visits(compute_pool& pool, int64_t tiles) {
  std::vector<std::atomic<int>> count(static_cast<size_t>(tiles));
  {
    const compute_pool::lock held(pool);
    pool.parallel_for(tiles, [&](int64_t tile, int) { count[static_cast<size_t>(tile)].fetch_add(1); });
  }
  return {count.begin(), count.end()};
}

} // namespace

TEST_CASE("every tile runs exactly once, however many threads and tiles there are") {
  for (const int threads : {1, 2, 3, 7}) {
    compute_pool pool(threads);
    CHECK(pool.threads() == threads);
    for (const int64_t tiles : {0, 1, 2, 3, 64, 1001})
      CHECK(visits(pool, tiles) == std::vector<int>(static_cast<size_t>(tiles), 1));
  }
}

TEST_CASE("a loop has ended, with all it wrote, when parallel_for returns") {
  compute_pool pool(3);
  std::vector<int64_t> written(500);
  for (int round = 0; round < 400; ++round) {
    const compute_pool::lock held(pool);
    pool.parallel_for(500, [&](int64_t tile, int) { written[static_cast<size_t>(tile)] = tile + round; });
    CHECK(std::accumulate(written.begin(), written.end(), int64_t{0}) == 500 * 499 / 2 + 500 * round);
  }
}

TEST_CASE("a worker number names one thread at a time and has its own scratch memory") {
  compute_pool pool(3);
  const compute_pool::lock held(pool);
  REQUIRE(pool.reserve_scratch(1000).ok());
  std::atomic<int> wrong{0};
  std::vector<std::atomic<int>> inside(3);
  pool.parallel_for(300, [&](int64_t tile, int worker) {
    if (worker < 0 || worker >= 3 || inside[static_cast<size_t>(worker)].fetch_add(1) != 0)
      wrong.fetch_add(1);
    auto* mine = reinterpret_cast<int64_t*>(pool.scratch(worker));
    if (reinterpret_cast<uintptr_t>(mine) % 64 != 0)
      wrong.fetch_add(1);
    for (int i = 0; i < 125; ++i)
      mine[i] = tile;
    for (int i = 0; i < 125; ++i)
      if (mine[i] != tile)
        wrong.fetch_add(1);
    inside[static_cast<size_t>(worker)].fetch_sub(1);
  });
  CHECK(wrong.load() == 0);
}

TEST_CASE("the number of threads can be changed between loops, while others compute") {
  compute_pool pool(2);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::thread other([&] {
    while (!stop.load())
      if (visits(pool, 50) != std::vector<int>(50, 1))
        wrong.fetch_add(1);
  });
  for (const int threads : {1, 3, 2, 4, 1, 2}) {
    pool.set_threads(threads);
    CHECK(pool.threads() == threads);
    CHECK(visits(pool, 50) == std::vector<int>(50, 1));
  }
  stop.store(true);
  other.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("callers on several threads take turns") {
  compute_pool pool(2);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        if (visits(pool, 20) != std::vector<int>(20, 1))
          wrong.fetch_add(1);
    });
  for (auto& caller : callers)
    caller.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("the number of threads is kept within bounds") {
  CHECK(compute_pool(-5).threads() >= 1);
  CHECK(compute_pool(0).threads() >= 1);
  compute_pool pool(1);
  pool.set_threads(0);
  CHECK(pool.threads() >= 1);
}
