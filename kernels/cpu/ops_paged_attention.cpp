#include "kernels/core/check.hpp"
#include "kernels/cpu/attention_tile.hpp"
#include "kernels/cpu/decode_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace neuroshard::kernels::cpu {

namespace {

/// Positions that one decode task reads, of all kv heads: whatever the number of threads, as the chunks of a
/// row are added up in their order.
constexpr int64_t chunk_positions = 256;
constexpr float log2e = 1.44269504088896341F;
static_assert(decode_run == decode_blocks * kv_block && chunk_positions % decode_run == 0);
/// From this many consecutive rows of one cache on, the blocked kernel is faster than row by row.
constexpr int64_t blocked_rows_min = 4;

/// Fewer bytes of keys are not worth waking a thread for.
constexpr int64_t append_parallel_from = 64 * 1024;

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
        take_run_(decode_run_for(a.q.type, device.level)),
        kernels_(attention_kernels_for(a.q.type, device.level)),
        element_(static_cast<int64_t>(size_of(a.q.type))), context_max_(a.tables.shape[1] * kv_block),
        chunks_(divide_up(context_max_, chunk_positions)) {}

  status run() {
    NEUROSHARD_TRY(device_.pool.reserve_scratch(std::max(at_.bytes, decode_bytes())));
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
  static int64_t partial_floats(int64_t heads, int64_t size) { return heads * (size + 2); }

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

  float* partial(int64_t t, int64_t chunk) const {
    return a_.workspace.as<float>() + (t * chunks_ + chunk) * partial_floats(a_.q.shape[1], at_.size);
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
    device_.pool.parallel_for(rows * chunks, [&](int64_t tile, int worker) {
      if (!is_blocked(tile / chunks))
        decode_chunk(tile / chunks, tile % chunks, device_.pool.scratch(worker));
    });
    device_.pool.parallel_for(rows * kv_heads_, [&](int64_t tile, int worker) {
      if (!is_blocked(tile / kv_heads_))
        combine(tile / kv_heads_, tile % kv_heads_ * at_.group,
                reinterpret_cast<float*>(device_.pool.scratch(worker)));
    });
  }

  /// Scratch memory of a decode task: sums of all heads, their largest scores and totals, the kernel's
  /// weights.
  size_t decode_bytes() const {
    return static_cast<size_t>(a_.q.shape[1] * (at_.width + 2 + decode_run + 1)) * sizeof(float);
  }

  /// All heads of one row over one chunk, a run of slots after the other.
  void decode_chunk(int64_t t, int64_t chunk, std::byte* scratch) const {
    const int64_t seen = legal(t) ? index_at(a_.positions, t) + 1 : 0;
    const int64_t first = chunk * chunk_positions;
    const int64_t last = std::min(seen, first + chunk_positions);
    if (first >= last)
      return;
    const int64_t heads = a_.q.shape[1];
    auto* sums = reinterpret_cast<float*>(scratch);
    float* largest = sums + heads * at_.width;
    float* total = largest + heads;
    std::fill_n(sums, heads * at_.width, 0.0F);
    std::fill_n(largest, heads, -std::numeric_limits<float>::infinity());
    std::fill_n(total, heads, 0.0F);
    const int64_t cache = index_at(a_.row_cache, t);
    decode_run_args run{.q = query(t, 0),
                        .q_width = a_.q.stride[1],
                        .scale = at_.scale * log2e,
                        .kv_heads = kv_heads_,
                        .group = at_.group,
                        .size = at_.size,
                        .width = at_.width,
                        .stride = a_.key_cache.stride[1],
                        .head_stride = a_.key_cache.stride[2],
                        .weights = total + heads,
                        .largest = largest,
                        .total = total,
                        .sums = sums};
    for (int64_t position = first; position < last; position += decode_run) {
      const int64_t end = std::min(last, position + decode_run);
      run.count = end - position;
      for (int64_t i = 0; position + i * kv_block < end; ++i) {
        run.keys[i] = slots_of(a_.key_cache, cache, 0, position + i * kv_block);
        run.values[i] = slots_of(a_.value_cache, cache, 0, position + i * kv_block);
      }
      for (int64_t i = 0; i < decode_ahead; ++i)
        run.next[i] =
            end + i * kv_block < seen ? slots_of(a_.key_cache, cache, 0, end + i * kv_block) : nullptr;
      take_run_(run);
    }
    float* result = partial(t, chunk);
    std::copy_n(largest, heads, result);
    std::copy_n(total, heads, result + heads);
    for (int64_t h = 0; h < heads; ++h)
      std::copy_n(sums + h * at_.width, at_.size, result + 2 * heads + h * at_.size);
  }

  /// Adds the chunks of one row up, in their order, for the heads of a group.
  void combine(int64_t t, int64_t first_head, float* sums) const {
    const int64_t seen = legal(t) ? index_at(a_.positions, t) + 1 : 0;
    const int64_t chunks = divide_up(seen, chunk_positions);
    const int64_t heads = a_.q.shape[1];
    for (int64_t h = first_head; h < first_head + at_.group; ++h) {
      std::byte* out = output(t, h);
      if (chunks == 0) {
        std::memset(out, 0, static_cast<size_t>(at_.size * element_));
        continue;
      }
      float largest = -std::numeric_limits<float>::infinity();
      for (int64_t c = 0; c < chunks; ++c)
        largest = std::max(largest, partial(t, c)[h]);
      float total = 0;
      std::fill_n(sums, at_.size, 0.0F);
      for (int64_t c = 0; c < chunks; ++c) {
        const float* part = partial(t, c);
        const float weight = std::exp2(part[h] - largest);
        total += part[heads + h] * weight;
        const float* from = part + 2 * heads + h * at_.size;
        for (int64_t d = 0; d < at_.size; ++d)
          sums[d] += from[d] * weight;
      }
      kernels_.scale_row(sums, 1.0F / total, out, at_.size);
    }
  }

  cpu_device& device_;
  const paged_attention_args& a_;
  int64_t kv_heads_;
  attention_layout at_; ///< of a tile of rows
  decode_run_function take_run_;
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
  const int64_t rows = a.k.shape[0];
  const int64_t row_elements = a.k.shape[1] * a.k.shape[2];
  // Where row t goes, in slots from the start of the cache; -1 where it goes nowhere.
  const auto slot_of = [&](int64_t t) -> int64_t {
    const int64_t which = index_at(a.row_cache, t);
    const int64_t position = index_at(a.positions, t);
    if (which < 0 || which >= a.tables.shape[0] || position < 0 || position / kv_block >= a.tables.shape[1])
      return -1;
    const int64_t block =
        a.tables.as<int32_t>()[which * a.tables.stride[0] + position / kv_block * a.tables.stride[1]];
    return block < 0 || block >= a.key_cache.shape[0] ? -1 : block * kv_block + position % kv_block;
  };
  const auto dense = [&](const tensor& t) {
    return t.stride[t.rank - 1U] == 1 && t.stride[t.rank - 2U] == a.k.shape[2] &&
           t.stride[t.rank - 3U] == row_elements;
  };
  // Rows that follow each other on both sides, within a block, are copied together.
  const auto append = [&](const tensor& source, const tensor& cache) {
    const bool together = dense(source) && dense(cache);
    for (int64_t t = 0; t < rows;) {
      const int64_t slot = slot_of(t);
      int64_t n = 1;
      if (slot < 0) {
        t += n;
        continue;
      }
      while (together && t + n < rows && slot % kv_block + n < kv_block && slot_of(t + n) == slot + n)
        ++n;
      auto* out = cache.as<std::byte>() +
                  (slot / kv_block * cache.stride[0] + slot % kv_block * cache.stride[1]) * element;
      const auto* in = source.as<std::byte>() + t * source.stride[0] * element;
      if (together)
        std::memcpy(out, in, static_cast<size_t>(n * row_elements * element));
      else
        for (int64_t g = 0; g < a.k.shape[1]; ++g)
          std::memcpy(out + g * cache.stride[2] * element, in + g * source.stride[1] * element,
                      static_cast<size_t>(a.k.shape[2] * element));
      t += n;
    }
  };
  // Two rows may name the same slot, and the later one wins: so the rows are not cut between threads, but one
  // takes the keys and one the values.
  return run_locked(device, [&] {
    if (rows * row_elements * element >= append_parallel_from) {
      device.pool.parallel_for(2, [&](int64_t which, int) {
        append(which == 0 ? a.k : a.v, which == 0 ? a.key_cache : a.value_cache);
      });
    } else {
      append(a.k, a.key_cache);
      append(a.v, a.value_cache);
    }
    return status{};
  });
}

/// The results of the decode tasks of every row.
uint64_t paged_attention_workspace(void*, const paged_attention_args& a) {
  const int64_t chunks = divide_up(a.tables.shape[1] * kv_block, chunk_positions);
  return static_cast<uint64_t>(a.q.shape[0] * chunks) *
         static_cast<uint64_t>(paged_problem::partial_floats(a.q.shape[1], a.q.shape[2])) * sizeof(float);
}

status paged_attention(void* queue, const paged_attention_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = paged_attention_workspace(nullptr, a)}));
  auto& device = device_of(queue);
  if (a.q.shape[0] == 0)
    return {};
  return run_locked(device, [&] { return paged_problem(device, a).run(); });
}

} // namespace neuroshard::kernels::cpu
