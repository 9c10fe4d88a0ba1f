#include "bench/kernels/ceiling.hpp"

#include "kernels/cpu/compute_pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

namespace neuroshard::bench {

namespace {

constexpr size_t piece = 256 << 10;
constexpr size_t huge_page = 2 << 20;

// As the operations do it: plain loads and stores of whole vectors.
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) uint64_t
read_piece(const uint64_t* p, size_t count) {
  uint64_t a = 0;
  for (size_t i = 0; i < count; ++i)
    a ^= p[i];
  return a;
}

__attribute__((target_clones("avx512f", "avx2", "default"),
               optimize("O3", "no-tree-loop-distribute-patterns"))) void
copy_piece(uint64_t* __restrict to, const uint64_t* __restrict from, size_t count) {
  for (size_t i = 0; i < count; ++i)
    to[i] = from[i];
}

/// Threads like those of the operations, that live as long: a thread made for each round begins beside its
/// maker on one processor.
class timed_pool {
public:
  explicit timed_pool(int threads) : pool_(threads) {}

  /// Seconds until fn(piece) was called for each of so many pieces. Wakes the workers first by a few of them,
  /// unless a loop has just ended.
  template <class Function>
  double seconds(int64_t pieces, const Function& fn, bool wakes = true) {
    const kernels::cpu::compute_pool::lock held(pool_);
    if (wakes)
      pool_.parallel_for(std::min(pieces, int64_t{4} * pool_.threads()), [&](int64_t i, int) { fn(i); });
    const auto start = std::chrono::steady_clock::now();
    pool_.parallel_for(pieces, [&](int64_t i, int) { fn(i); });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

private:
  kernels::cpu::compute_pool pool_;
};

using memory = std::unique_ptr<std::byte[], void (*)(void*)>;

/// As the device gives it to the operations.
memory pages(size_t bytes) {
  memory m(static_cast<std::byte*>(std::aligned_alloc(huge_page, bytes)), std::free);
  if (m != nullptr)
    madvise(m.get(), bytes, MADV_HUGEPAGE);
  if (m != nullptr)
    std::memset(m.get(), 1, bytes);
  return m;
}

class streams final : public ceiling {
public:
  streams(memory from, memory to, size_t bytes, int threads)
      : from_(std::move(from)), to_(std::move(to)), pieces_(static_cast<int64_t>(bytes / piece)),
        pool_(threads) {}

  double rate(double bytes) override {
    const double each = static_cast<double>(piece) * (to_ != nullptr ? 2 : 1);
    const int64_t count = std::max<int64_t>(2, static_cast<int64_t>(bytes / each));
    std::atomic<uint64_t> sum{0};
    const double took = pool_.seconds(count, [&](int64_t i) {
      const size_t at = static_cast<size_t>((turn_ + i) % pieces_) * piece;
      const auto* from = reinterpret_cast<const uint64_t*>(from_.get() + at);
      if (to_ != nullptr)
        copy_piece(reinterpret_cast<uint64_t*>(to_.get() + at), from, piece / sizeof(uint64_t));
      else
        sum.fetch_xor(read_piece(from, piece / sizeof(uint64_t)), std::memory_order_relaxed);
    });
    turn_ = (turn_ + count) % pieces_;
    return static_cast<double>(count) * each * 1e-9 / took;
  }

private:
  memory from_;
  memory to_; ///< null: only read
  int64_t pieces_;
  int64_t turn_ = 0;
  timed_pool pool_;
};

class rows final : public ceiling {
public:
  rows(std::vector<random_rows> sets, int threads) : sets_(std::move(sets)), pool_(threads) {}

  double rate(double bytes) override {
    const random_rows& like = sets_.front();
    const int64_t count = like.ids.elements();
    const auto row_bytes = static_cast<size_t>(like.width) * sizeof(float);
    const double each = static_cast<double>(count) * static_cast<double>(row_bytes) * 2;
    const int64_t calls = std::max<int64_t>(1, static_cast<int64_t>(bytes / each + 0.5));
    constexpr int64_t together = 64;
    const int64_t tiles = (count + together - 1) / together;
    const double took = pool_.seconds(calls * tiles, [&](int64_t i) {
      const random_rows& set = sets_[static_cast<size_t>((turn_ + i / tiles)) % sets_.size()];
      for (int64_t t = i % tiles * together; t < std::min(count, (i % tiles + 1) * together); ++t) {
        auto* row = set.table.as<float>() + set.ids.as<int32_t>()[t] * set.width;
        auto* dense = set.dense.as<float>() + t * set.width;
        if (set.scatter)
          std::memcpy(row, dense, row_bytes);
        else
          std::memcpy(dense, row, row_bytes);
      }
    });
    turn_ += calls;
    return static_cast<double>(calls) * each * 1e-9 / took;
  }

private:
  std::vector<random_rows> sets_;
  int64_t turn_ = 0;
  timed_pool pool_;
};

class blocks final : public ceiling {
public:
  blocks(std::vector<cache_blocks> sets, int threads) : sets_(std::move(sets)), pool_(threads) {}

  double rate(double bytes) override {
    const cache_blocks& like = sets_.front();
    const double each =
        static_cast<double>(like.tables.elements()) * 2 * static_cast<double>(block_bytes(like));
    const int64_t calls = std::max<int64_t>(1, static_cast<int64_t>(bytes / each + 0.5));
    double took = 0;
    for (int64_t i = 0; i < calls; ++i)
      took += read(sets_[static_cast<size_t>(turn_++) % sets_.size()], i == 0);
    return static_cast<double>(calls) * each * 1e-9 / took;
  }

private:
  static size_t block_bytes(const cache_blocks& set) {
    return static_cast<size_t>(set.keys.stride[0]) * size_of(set.keys.type);
  }

  double read(const cache_blocks& set, bool wakes) {
    constexpr int64_t together = 16; // blocks that a task of the operation reads
    const int64_t count = set.tables.elements();
    std::atomic<uint64_t> sum{0};
    const auto task = [&](int64_t tile) {
      uint64_t seen = 0;
      for (int64_t i = tile * together; i < std::min(count, (tile + 1) * together); ++i)
        for (const tensor* cache : {&set.keys, &set.values})
          seen ^= read_piece(reinterpret_cast<const uint64_t*>(
                                 cache->as<std::byte>() +
                                 static_cast<size_t>(set.tables.as<int32_t>()[i]) * block_bytes(set)),
                             block_bytes(set) / sizeof(uint64_t));
      sum.fetch_xor(seen, std::memory_order_relaxed);
    };
    return pool_.seconds((count + together - 1) / together, task, wakes);
  }

  std::vector<cache_blocks> sets_;
  int64_t turn_ = 0;
  timed_pool pool_;
};

} // namespace

std::unique_ptr<ceiling> stream_ceiling(bound limit, double working_set, int threads) {
  if (limit == bound::matrix)
    return nullptr;
  const bool copies = limit == bound::copy;
  const auto wanted = static_cast<size_t>(working_set) / (copies ? 2 : 1);
  const size_t bytes = std::max<size_t>(1, (wanted + huge_page - 1) / huge_page) * huge_page;
  memory from = pages(bytes);
  memory to = copies ? pages(bytes) : memory(nullptr, std::free);
  if (from == nullptr || (copies && to == nullptr))
    return nullptr;
  return std::make_unique<streams>(std::move(from), std::move(to), bytes, threads);
}

std::unique_ptr<ceiling> places_ceiling(const std::vector<prepared_call>& calls, int threads) {
  std::vector<random_rows> named;
  std::vector<cache_blocks> read;
  for (const prepared_call& c : calls) {
    if (c.rows.width > 0)
      named.push_back(c.rows);
    if (c.blocks.tables.data != nullptr)
      read.push_back(c.blocks);
  }
  if (!named.empty())
    return std::make_unique<rows>(std::move(named), threads);
  if (!read.empty())
    return std::make_unique<blocks>(std::move(read), threads);
  return nullptr;
}

} // namespace neuroshard::bench
