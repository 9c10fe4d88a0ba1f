#include "kernels/core/check.hpp"
#include "kernels/cpu/attention_tile.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace neuroshard::kernels::cpu {

namespace {

/// Positions that one decode task reads: 64 KiB of keys and as much of values for 64 bf16 elements.
constexpr int64_t chunk_positions = 512;
/// From this many consecutive rows of one cache on, the blocked kernel is faster than row by row.
constexpr int64_t blocked_rows_min = 4;

int64_t index_at(const tensor& t, int64_t i) {
  return t.as<int32_t>()[i * t.stride[0]];
}

/// The first slot of a cache block, in elements; block 0 where the table has no legal entry. -1 where the
/// cache itself or the position does not exist.
int64_t block_offset(const tensor& tables, const tensor& cache, int64_t which, int64_t block) {
  const int64_t id = tables.as<int32_t>()[which * tables.stride[0] + block * tables.stride[1]];
  return (id >= 0 && id < cache.shape[0] ? id : 0) * cache.stride[0];
}

/// Rows of one tile or task.
struct span_of_rows {
  int64_t first;
  int64_t rows;
  int64_t cache;
  int64_t position; ///< of the first row
};

class paged_problem {
public:
  paged_problem(cpu_device& device, const paged_attention_args& a)
      : device_(device), a_(a), kv_heads_(a.key_cache.shape[2]),
        at_(a.q.type, a.q.shape[2], kv_heads_ > 0 ? a.q.shape[1] / kv_heads_ : 0),
        alone_(a.q.type, a.q.shape[2], 1), kernels_(attention_kernels_for(a.q.type, device.level)),
        element_(static_cast<int64_t>(size_of(a.q.type))), context_max_(a.tables.shape[1] * kv_block),
        chunks_(divide_up(context_max_, chunk_positions)) {}

  status run() {
    NEUROSHARD_TRY(device_.pool.reserve_scratch(std::max(at_.bytes, alone_.bytes)));
    const int64_t rows = a_.q.shape[0];
    for (int64_t t = 0; t < rows;) {
      const int64_t together = rows_together(t);
      if (together >= blocked_rows_min)
        blocked(t, together);
      t += together >= blocked_rows_min ? together : 1;
    }
    decode_rows();
    return {};
  }

  /// Results of one decode task: per head the largest score, the total and the sums.
  static int64_t partial_floats(int64_t group, int64_t size) { return group * (size + 2); }

private:
  bool legal(int64_t t) const {
    const int64_t cache = index_at(a_.row_cache, t);
    const int64_t position = index_at(a_.positions, t);
    return cache >= 0 && cache < a_.tables.shape[0] && position >= 0 && position < context_max_;
  }

  /// How many rows from t on are of one cache, at consecutive positions.
  int64_t rows_together(int64_t t) const {
    if (!legal(t))
      return 1;
    int64_t n = 1;
    while (t + n < a_.q.shape[0] && index_at(a_.row_cache, t + n) == index_at(a_.row_cache, t) &&
           index_at(a_.positions, t + n) == index_at(a_.positions, t) + n && legal(t + n))
      ++n;
    return n;
  }

  bool is_blocked(int64_t t) const {
    // Looks backwards no further than needed: a row belongs to a run when the run around it is long enough.
    int64_t before = 0;
    while (before < blocked_rows_min && t - before > 0 && legal(t - before - 1) && legal(t - before) &&
           index_at(a_.row_cache, t - before - 1) == index_at(a_.row_cache, t) &&
           index_at(a_.positions, t - before - 1) == index_at(a_.positions, t - before) - 1)
      ++before;
    int64_t after = 1;
    while (before + after < blocked_rows_min && t + after < a_.q.shape[0] && legal(t + after) && legal(t) &&
           index_at(a_.row_cache, t + after) == index_at(a_.row_cache, t) &&
           index_at(a_.positions, t + after) == index_at(a_.positions, t) + after)
      ++after;
    return before + after >= blocked_rows_min;
  }

  const std::byte* query(int64_t t, int64_t head) const {
    return a_.q.as<std::byte>() + (t * a_.q.stride[0] + head * a_.q.stride[1]) * element_;
  }
  std::byte* output(int64_t t, int64_t head) const {
    return a_.out.as<std::byte>() + (t * a_.out.stride[0] + head * a_.out.stride[1]) * element_;
  }

  // --------------------------------------------------------------------------------------------- many rows

  void blocked(int64_t first, int64_t rows) {
    const int64_t blocks = divide_up(rows, attention_block);
    device_.pool.parallel_for(blocks * kv_heads_, [&](int64_t tile, int worker) {
      // The last rows see the most keys: they go first.
      const int64_t block = blocks - 1 - tile / kv_heads_;
      const int64_t from = first + block * attention_block;
      blocked_tile({.first = from,
                    .rows = std::min(attention_block, first + rows - from),
                    .cache = index_at(a_.row_cache, from),
                    .position = index_at(a_.positions, from)},
                   tile % kv_heads_, device_.pool.scratch(worker));
    });
  }

  void blocked_tile(const span_of_rows& span, int64_t g, std::byte* scratch) const {
    const int64_t head = g * at_.group;
    const attention_rows queries{.q = query(span.first, head),
                                 .q_row = a_.q.stride[0],
                                 .q_head = a_.q.stride[1],
                                 .out = output(span.first, head),
                                 .out_row = a_.out.stride[0],
                                 .out_head = a_.out.stride[1],
                                 .rows = span.rows,
                                 .position = span.position};
    begin_tile(at_, queries, scratch);
    take_positions(at_, queries, span.cache, g, 0, span.position + span.rows, scratch);
    end_tile(device_, at_, queries, scratch);
  }

  /// Takes in positions [first, last) of a cache.
  void take_positions(const attention_layout& at, const attention_rows& queries, int64_t cache, int64_t g,
                      int64_t first, int64_t last, std::byte* scratch) const {
    auto* keys = reinterpret_cast<uint32_t*>(scratch + at.keys);
    auto* values = reinterpret_cast<uint32_t*>(scratch + at.values);
    for (int64_t position = first; position < last; position += attention_block) {
      const int64_t count = std::min(attention_block, last - position);
      // The slots of a head are scattered: what comes next is asked for before this block is worked on.
      for (int64_t i = attention_block; i < 2 * attention_block && position + i < last; i += kv_block) {
        fetch(slots_of(a_.key_cache, cache, g, position + i), a_.key_cache.stride[1]);
        fetch(slots_of(a_.value_cache, cache, g, position + i), a_.value_cache.stride[1]);
      }
      for (int64_t i = 0; i < count; i += kv_block) // positions of a tile begin at a cache block
        pack_kv_part(device_, at, slots_of(a_.key_cache, cache, g, position + i), a_.key_cache.stride[1],
                     slots_of(a_.value_cache, cache, g, position + i), a_.value_cache.stride[1], i,
                     std::min(kv_block, count - i), kv_block, keys, values);
      take_kv_block(device_, at, queries, position, count, keys, values, scratch);
    }
  }

  /// The first slot of the cache block that holds a position, for one kv head.
  const std::byte* slots_of(const tensor& cache, int64_t which, int64_t g, int64_t position) const {
    return cache.as<std::byte>() +
           (block_offset(a_.tables, cache, which, position / kv_block) + g * cache.stride[2]) * element_;
  }

  void fetch(const std::byte* slots, int64_t stride) const {
    for (int64_t i = 0; i < kv_block; ++i)
      for (int64_t at = 0; at < at_.size * element_; at += 64)
        __builtin_prefetch(slots + i * stride * element_ + at);
  }

  // ---------------------------------------------------------------------------------------------- few rows

  float* partial(int64_t t, int64_t g, int64_t chunk) const {
    return a_.workspace.as<float>() +
           ((t * kv_heads_ + g) * chunks_ + chunk) * partial_floats(at_.group, at_.size);
  }

  void decode_rows() {
    const int64_t rows = a_.q.shape[0];
    int64_t seen_max = 0; // no row needs more chunks than the longest
    for (int64_t t = 0; t < rows; ++t)
      if (!is_blocked(t))
        seen_max = std::max(seen_max, legal(t) ? index_at(a_.positions, t) + 1 : 1);
    if (seen_max == 0)
      return;
    const int64_t chunks = divide_up(seen_max, chunk_positions);
    device_.pool.parallel_for(rows * kv_heads_ * chunks, [&](int64_t tile, int worker) {
      const int64_t chunk = tile % chunks;
      const int64_t g = tile / chunks % kv_heads_;
      const int64_t t = tile / chunks / kv_heads_;
      if (!is_blocked(t))
        decode_chunk(t, g, chunk, device_.pool.scratch(worker));
    });
    device_.pool.parallel_for(divide_up(rows, 8), [&](int64_t tile, int worker) {
      for (int64_t t = tile * 8; t < std::min(rows, tile * 8 + 8); ++t)
        if (!is_blocked(t))
          combine(t, reinterpret_cast<float*>(device_.pool.scratch(worker)));
    });
  }

  /// The heads of a group read the same keys, so here they are the rows of a tile.
  void decode_chunk(int64_t t, int64_t g, int64_t chunk, std::byte* scratch) const {
    const int64_t seen = legal(t) ? index_at(a_.positions, t) + 1 : 0;
    const int64_t first = chunk * chunk_positions;
    const int64_t last = std::min(seen, first + chunk_positions);
    if (first >= last)
      return;
    float* result = partial(t, g, chunk);
    for (int64_t h = 0; h < at_.group; h += attention_block) {
      const attention_rows heads{.q = query(t, g * at_.group + h),
                                 .q_row = a_.q.stride[1],
                                 .rows = std::min(attention_block, at_.group - h),
                                 .position = seen - 1,
                                 .first_key = first};
      begin_tile(alone_, heads, scratch);
      take_positions(alone_, heads, index_at(a_.row_cache, t), g, first, last, scratch);
      const auto* sums = reinterpret_cast<const float*>(scratch + alone_.sums);
      for (int64_t i = 0; i < heads.rows; ++i) {
        result[2 * (h + i)] = reinterpret_cast<const float*>(scratch + alone_.largest)[i] * at_.scale;
        result[2 * (h + i) + 1] = total_of(alone_, i, scratch);
        std::copy_n(sums + i * alone_.width, at_.size, result + 2 * at_.group + (h + i) * at_.size);
      }
    }
  }

  /// Adds the chunks of one row up, in their order.
  void combine(int64_t t, float* sums) const {
    const int64_t seen = legal(t) ? index_at(a_.positions, t) + 1 : 0;
    const int64_t chunks = divide_up(seen, chunk_positions);
    for (int64_t g = 0; g < kv_heads_; ++g)
      for (int64_t h = 0; h < at_.group; ++h) {
        std::byte* out = output(t, g * at_.group + h);
        if (chunks == 0) {
          std::memset(out, 0, static_cast<size_t>(at_.size * element_));
          continue;
        }
        float largest = -std::numeric_limits<float>::infinity();
        for (int64_t c = 0; c < chunks; ++c)
          largest = std::max(largest, partial(t, g, c)[2 * h]);
        float total = 0;
        std::fill_n(sums, at_.size, 0.0F);
        for (int64_t c = 0; c < chunks; ++c) {
          const float* part = partial(t, g, c);
          const float weight = std::exp(part[2 * h] - largest);
          total += part[2 * h + 1] * weight;
          const float* from = part + 2 * at_.group + h * at_.size;
          for (int64_t d = 0; d < at_.size; ++d)
            sums[d] += from[d] * weight;
        }
        kernels_.scale_row(sums, 1.0F / total, out, at_.size);
      }
  }

  cpu_device& device_;
  const paged_attention_args& a_;
  int64_t kv_heads_;
  attention_layout at_;    ///< of a tile of rows
  attention_layout alone_; ///< of a single row, whose heads take the places of rows
  const attention_kernels& kernels_;
  int64_t element_;
  int64_t context_max_;
  int64_t chunks_;
};

} // namespace

status kv_append(void* queue, const kv_append_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& device = device_of(queue);
  const auto element = static_cast<int64_t>(size_of(a.k.type));
  const int64_t heads = a.k.shape[1];
  const auto head_bytes = static_cast<size_t>(a.k.shape[2] * element);
  const auto append = [&](int64_t t) {
    const int64_t which = index_at(a.row_cache, t);
    const int64_t position = index_at(a.positions, t);
    if (which < 0 || which >= a.tables.shape[0] || position < 0 || position / kv_block >= a.tables.shape[1])
      return;
    const int64_t block =
        a.tables.as<int32_t>()[which * a.tables.stride[0] + position / kv_block * a.tables.stride[1]];
    if (block < 0 || block >= a.key_cache.shape[0])
      return;
    const int64_t slot = block * a.key_cache.stride[0] + position % kv_block * a.key_cache.stride[1];
    for (int64_t g = 0; g < heads; ++g) {
      const int64_t to = (slot + g * a.key_cache.stride[2]) * element;
      std::memcpy(a.key_cache.as<std::byte>() + to,
                  a.k.as<std::byte>() + (t * a.k.stride[0] + g * a.k.stride[1]) * element, head_bytes);
      std::memcpy(a.value_cache.as<std::byte>() + to,
                  a.v.as<std::byte>() + (t * a.v.stride[0] + g * a.v.stride[1]) * element, head_bytes);
    }
  };
  // Two rows may name the same slot; the later one wins, so that rows are never cut between threads within a
  // cache: the amount is small, and one thread moves it at the bandwidth of a core.
  return run_locked(device, [&] {
    for (int64_t t = 0; t < a.k.shape[0]; ++t)
      append(t);
    return status{};
  });
}

/// The results of the decode tasks of every row.
uint64_t paged_attention_workspace(void*, const paged_attention_args& a) {
  const int64_t kv_heads = a.key_cache.shape[2];
  if (kv_heads <= 0)
    return 0;
  const int64_t chunks = divide_up(a.tables.shape[1] * kv_block, chunk_positions);
  return static_cast<uint64_t>(a.q.shape[0] * kv_heads * chunks) *
         static_cast<uint64_t>(paged_problem::partial_floats(a.q.shape[1] / kv_heads, a.q.shape[2])) *
         sizeof(float);
}

status paged_attention(void* queue, const paged_attention_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = paged_attention_workspace(nullptr, a)}));
  auto& device = device_of(queue);
  if (a.q.shape[0] == 0)
    return {};
  return run_locked(device, [&] { return paged_problem(device, a).run(); });
}

} // namespace neuroshard::kernels::cpu
