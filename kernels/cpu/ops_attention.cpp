#include "kernels/core/check.hpp"
#include "kernels/cpu/attention_tile.hpp"

#include <algorithm>
#include <cstring>

namespace neuroshard::kernels::cpu {

namespace {

struct problem {
  explicit problem(const attention_args& a)
      : sequences(a.sequences), positions(sequences > 0 ? a.q.shape[0] / sequences : 0),
        kv_heads(a.k.shape[1]), blocks(divide_up(positions, attention_block)) {}

  int64_t sequences, positions, kv_heads;
  int64_t blocks; ///< of keys, and of queries, in a sequence
};

int64_t length_of(const attention_args& a, const problem& p, int64_t b) {
  return a.lengths ? std::clamp<int64_t>(a.lengths.as<int32_t>()[b * a.lengths.stride[0]], 0, p.positions)
                   : p.positions;
}

attention_layout layout_of(const attention_args& a) {
  return {a.q.type, a.q.shape[2], a.k.shape[1] > 0 ? a.q.shape[1] / a.k.shape[1] : 0};
}

void clear_row(const attention_args& a, const problem& p, int64_t b, int64_t i, int64_t head) {
  const auto element = static_cast<int64_t>(size_of(a.out.type));
  std::memset(a.out.as<std::byte>() +
                  ((b * p.positions + i) * a.out.stride[0] + head * a.out.stride[1]) * element,
              0, static_cast<size_t>(a.q.shape[2] * element));
  if (a.lse)
    a.lse.as<float>()[(b * a.q.shape[1] + head) * p.positions + i] = 0;
}

} // namespace

/// All keys and values, packed once for all the heads and query blocks that read them.
uint64_t attention_workspace(void*, const attention_args& a) {
  const problem p(a);
  return static_cast<uint64_t>(p.sequences * p.kv_heads * p.blocks) * layout_of(a).packed_words() *
         word_bytes;
}

status attention(void* queue, const attention_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = attention_workspace(nullptr, a)}));
  auto& device = device_of(queue);
  const problem p(a);
  if (a.q.shape[0] == 0)
    return {};
  const attention_layout at = layout_of(a);
  const auto element = static_cast<int64_t>(size_of(at.act));
  auto* packed = a.workspace.as<uint32_t>();
  const auto packed_block = [&](int64_t b, int64_t g, int64_t block) {
    return packed + static_cast<uint64_t>((b * p.kv_heads + g) * p.blocks + block) * at.packed_words();
  };
  return run_locked(device, [&] {
    NEUROSHARD_TRY(device.pool.reserve_scratch(at.bytes));
    device.pool.parallel_for(p.sequences * p.kv_heads * p.blocks, [&](int64_t tile, int) {
      const int64_t block = tile % p.blocks;
      const int64_t g = tile / p.blocks % p.kv_heads;
      const int64_t b = tile / p.blocks / p.kv_heads;
      const int64_t first = block * attention_block;
      const int64_t count = std::min(attention_block, length_of(a, p, b) - first);
      if (count <= 0)
        return;
      const int64_t row = b * p.positions + first;
      uint32_t* keys = packed_block(b, g, block);
      pack_kv_part(device, at, a.k.as<std::byte>() + (row * a.k.stride[0] + g * a.k.stride[1]) * element,
                   a.k.stride[0], a.v.as<std::byte>() + (row * a.v.stride[0] + g * a.v.stride[1]) * element,
                   a.v.stride[0], 0, count, attention_block, keys, keys + at.key_words);
    });
    // The last blocks of a sequence see the most keys, so they come first: the short ones fill the gaps at
    // the end.
    const int64_t pairs = p.sequences * p.kv_heads;
    device.pool.parallel_for(pairs * p.blocks, [&](int64_t tile, int worker) {
      const int64_t block = p.blocks - 1 - tile / pairs;
      const int64_t g = tile % pairs % p.kv_heads;
      const int64_t b = tile % pairs / p.kv_heads;
      const int64_t length = length_of(a, p, b);
      const int64_t first = block * attention_block;
      const int64_t rows = std::clamp<int64_t>(length - first, 0, attention_block);
      for (int64_t i = first + rows; i < std::min(p.positions, first + attention_block); ++i)
        for (int64_t h = 0; h < at.group; ++h)
          clear_row(a, p, b, i, g * at.group + h);
      if (rows == 0)
        return;
      const int64_t row = b * p.positions + first;
      const int64_t head = g * at.group;
      const attention_rows queries{
          .q = a.q.as<std::byte>() + (row * a.q.stride[0] + head * a.q.stride[1]) * element,
          .q_row = a.q.stride[0],
          .q_head = a.q.stride[1],
          .out = a.out.as<std::byte>() + (row * a.out.stride[0] + head * a.out.stride[1]) * element,
          .out_row = a.out.stride[0],
          .out_head = a.out.stride[1],
          .rows = rows,
          .position = first,
          .lse = a.lse ? a.lse.as<float>() + (b * a.q.shape[1] + head) * p.positions + first : nullptr,
          .lse_head = p.positions};
      std::byte* scratch = device.pool.scratch(worker);
      begin_tile(at, queries, scratch);
      for (int64_t j = 0; j <= block; ++j) {
        const uint32_t* keys = packed_block(b, g, j);
        take_kv_block(device, at, queries, j * attention_block,
                      std::min(attention_block, length - j * attention_block), keys, keys + at.key_words,
                      scratch);
      }
      end_tile(device, at, queries, scratch);
    });
    return status{};
  });
}

} // namespace neuroshard::kernels::cpu
