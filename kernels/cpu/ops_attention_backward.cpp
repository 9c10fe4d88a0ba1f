#include "kernels/core/check.hpp"
#include "kernels/cpu/attention_kernels.hpp"
#include "kernels/cpu/cpu_device.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace neuroshard::kernels::cpu {

namespace {

/// Sizes of one call and the layout of a worker's scratch memory: one query head of one sequence is a tile.
struct layout {
  explicit layout(const attention_backward_args& a)
      : act(a.q.type), size(a.q.shape[2]), heads(a.q.shape[1]), kv_heads(a.k.shape[1]),
        group(kv_heads > 0 ? heads / kv_heads : 0), sequences(a.sequences),
        positions(sequences > 0 ? a.q.shape[0] / sequences : 0),
        blocks(divide_up(positions, attention_block)), width(round_up(size, 16)),
        panels(divide_up(size, panel_width)), row_words(steps_of(act, size)),
        wide_words(panel_words(act, size)), tall_words(panel_words(act, attention_block)),
        scale(1.0F / std::sqrt(static_cast<float>(size))) {
    const auto place = [this](int64_t count, int64_t element) {
      const size_t at = bytes;
      bytes += (static_cast<size_t>(count * element) + 63) / 64 * 64;
      return at;
    };
    queries_wide = place(blocks * wide_words, 4);
    douts_wide = place(blocks * wide_words, 4);
    queries_tall = place(blocks * panels * tall_words, 4);
    douts_tall = place(blocks * panels * tall_words, 4);
    keys_tall = place(panels * tall_words, 4);
    key_rows = place(attention_block * row_words, 4);
    value_rows = place(attention_block * row_words, 4);
    scores = place(attention_block * attention_block, 4);
    gradients = place(attention_block * attention_block, 4);
    weights = place(attention_block * attention_block, static_cast<int64_t>(size_of(act)));
    dscores = place(attention_block * attention_block, static_cast<int64_t>(size_of(act)));
    dscores_words = place(attention_block * attention_block, 4);
    dq = place(blocks * attention_block * width, 4);
    lse = place(blocks * attention_block, 4);
    delta = place(blocks * attention_block, 4);
  }

  /// Floats of dk, or of dv, of one head of one sequence in the workspace.
  int64_t partial() const noexcept { return positions * width; }

  dtype act;
  int64_t size, heads, kv_heads, group, sequences, positions, blocks;
  int64_t width;      ///< D padded to whole vectors
  int64_t panels;     ///< of D columns
  int64_t row_words;  ///< of one row of D
  int64_t wide_words; ///< of 64 rows packed as columns, contraction over D
  int64_t tall_words; ///< of one panel of 64 rows, contraction over the rows
  float scale;
  size_t bytes = 0;
  size_t queries_wide, douts_wide, queries_tall, douts_tall, keys_tall, key_rows, value_rows, scores,
      gradients, weights, dscores, dscores_words, dq, lse, delta;
};

/// The gradients of one query head.
class head_backward {
public:
  head_backward(const cpu_device& device, const attention_backward_args& a, const layout& at,
                int64_t sequence, int64_t head, std::byte* scratch)
      : a_(a), at_(at), tiles_(device.tiles(at.act)), kernels_(attention_kernels_for(at.act, device.level)),
        rows_(device.rows), scratch_(scratch), sequence_(sequence), head_(head), kv_head_(head / at.group),
        length_(a.lengths ? std::clamp<int64_t>(a.lengths.as<int32_t>()[sequence * a.lengths.stride[0]], 0,
                                                at.positions)
                          : at.positions) {
    auto* partials = a.workspace.as<float>() + (sequence * at.heads + head) * 2 * at.partial();
    dk_ = partials;
    dv_ = partials + at.partial();
  }

  void run() {
    pack_queries();
    const int64_t used = divide_up(length_, attention_block);
    for (int64_t j = 0; j < used; ++j)
      key_block(j, used);
    std::fill(dk_ + length_ * at_.width, dk_ + at_.partial(), 0.0F);
    std::fill(dv_ + length_ * at_.width, dv_ + at_.partial(), 0.0F);
    store_dq();
  }

private:
  template <class T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(scratch_ + offset);
  }
  const std::byte* row(const tensor& t, int64_t i, int64_t head) const {
    return t.as<std::byte>() + ((sequence_ * at_.positions + i) * t.stride[0] + head * t.stride[1]) *
                                   static_cast<int64_t>(size_of(at_.act));
  }
  int64_t count(int64_t block) const { return std::min(attention_block, length_ - block * attention_block); }

  void pack_wide(const tensor& t, int64_t block, uint32_t* to) const {
    tiles_.pack_transposed({.source = row(t, block * attention_block, head_),
                            .source_type = at_.act,
                            .ld = t.stride[0],
                            .columns = count(block),
                            .k = at_.size,
                            .panel = to,
                            .first_step = 0,
                            .last_step = at_.row_words});
  }
  void pack_tall(const tensor& t, int64_t head, int64_t block, uint32_t* to) const {
    const auto element = static_cast<int64_t>(size_of(at_.act));
    for (int64_t p = 0; p < at_.panels; ++p)
      tiles_.pack_rows({.source = row(t, block * attention_block, head) + p * panel_width * element,
                        .source_type = at_.act,
                        .ld = t.stride[0],
                        .columns = std::min(panel_width, at_.size - p * panel_width),
                        .k = count(block),
                        .panel = to + p * at_.tall_words,
                        .first_step = 0,
                        .last_step = steps_of(at_.act, count(block))});
  }

  void pack_queries() const {
    const float* lse = a_.lse.as<float>() + (sequence_ * at_.heads + head_) * at_.positions;
    std::fill_n(at<float>(at_.lse), at_.blocks * attention_block, 0.0F);
    std::fill_n(at<float>(at_.delta), at_.blocks * attention_block, 0.0F);
    for (int64_t i = 0; i < divide_up(length_, attention_block); ++i) {
      pack_wide(a_.q, i, at<uint32_t>(at_.queries_wide) + i * at_.wide_words);
      pack_wide(a_.dout, i, at<uint32_t>(at_.douts_wide) + i * at_.wide_words);
      pack_tall(a_.q, head_, i, at<uint32_t>(at_.queries_tall) + i * at_.panels * at_.tall_words);
      pack_tall(a_.dout, head_, i, at<uint32_t>(at_.douts_tall) + i * at_.panels * at_.tall_words);
    }
    for (int64_t i = 0; i < length_; ++i) {
      at<float>(at_.lse)[i] = lse[i];
      at<float>(at_.delta)[i] = kernels_.dot(row(a_.dout, i, head_), row(a_.out, i, head_), at_.size);
    }
  }

  /// Rows of the left operand, padded to whole words.
  void copy_rows(const tensor& t, int64_t block, std::byte* to) const {
    const auto row_bytes = static_cast<size_t>(at_.size) * size_of(at_.act);
    const auto padded = static_cast<size_t>(at_.row_words) * word_bytes;
    for (int64_t j = 0; j < count(block); ++j) {
      std::byte* out = to + static_cast<size_t>(j) * padded;
      std::memcpy(out, row(t, block * attention_block + j, kv_head_), row_bytes);
      std::memset(out + row_bytes, 0, padded - row_bytes);
    }
  }

  void key_block(int64_t j, int64_t used) const {
    copy_rows(a_.k, j, scratch_ + at_.key_rows);
    copy_rows(a_.v, j, scratch_ + at_.value_rows);
    pack_tall(a_.k, kv_head_, j, at<uint32_t>(at_.keys_tall));
    for (int64_t i = j; i < used; ++i)
      pair_of_blocks(j, i);
  }

  /// c[m, D] (+)= a[m, rows] * panels[rows, D]
  void multiply_tall(void (*product)(const block_args&), const void* left, int64_t lda,
                     const uint32_t* panels, float* c, int64_t m, int64_t contracted, bool accumulate) const {
    for (int64_t p = 0; p < at_.panels; ++p)
      product({.a = left,
               .lda = lda,
               .b = panels + p * at_.tall_words,
               .c = c + p * panel_width,
               .ldc = at_.width,
               .m = m,
               .n = std::min(panel_width, at_.width - p * panel_width),
               .steps = steps_of(at_.act, contracted),
               .accumulate = accumulate});
  }

  /// Keys j, queries i: s = k q^T, dp = v dout^T, then dv += p dout, dk += ds q, dq += ds^T k.
  void pair_of_blocks(int64_t j, int64_t i) const {
    const int64_t keys = count(j);
    const int64_t queries = count(i);
    block_args product{.a = scratch_ + at_.key_rows,
                       .lda = at_.row_words,
                       .b = at<uint32_t>(at_.queries_wide) + i * at_.wide_words,
                       .c = at<float>(at_.scores),
                       .ldc = attention_block,
                       .m = keys,
                       .n = attention_block,
                       .steps = at_.row_words,
                       .accumulate = false};
    tiles_.block(product);
    product.a = scratch_ + at_.value_rows;
    product.b = at<uint32_t>(at_.douts_wide) + i * at_.wide_words;
    product.c = at<float>(at_.gradients);
    tiles_.block(product);
    kernels_.backward_block({.scores = at<float>(at_.scores),
                             .gradients = at<float>(at_.gradients),
                             .keys = keys,
                             .queries = queries,
                             .visible = (i - j) * attention_block,
                             .scale = at_.scale,
                             .lse = at<float>(at_.lse) + i * attention_block,
                             .delta = at<float>(at_.delta) + i * attention_block,
                             .weights = scratch_ + at_.weights,
                             .dscores = scratch_ + at_.dscores,
                             .dscores_words = scratch_ + at_.dscores_words});
    const int64_t lda = attention_block / step_elements(at_.act);
    const int64_t key_row = j * attention_block * at_.width;
    multiply_tall(tiles_.block, scratch_ + at_.weights, lda,
                  at<uint32_t>(at_.douts_tall) + i * at_.panels * at_.tall_words, dv_ + key_row, keys,
                  queries, i > j);
    multiply_tall(tiles_.block, scratch_ + at_.dscores, lda,
                  at<uint32_t>(at_.queries_tall) + i * at_.panels * at_.tall_words, dk_ + key_row, keys,
                  queries, i > j);
    multiply_tall(tiles_.block_transposed, scratch_ + at_.dscores_words, attention_block,
                  at<uint32_t>(at_.keys_tall), at<float>(at_.dq) + i * attention_block * at_.width, queries,
                  keys, j > 0);
  }

  void store_dq() const {
    auto* to = const_cast<std::byte*>(row(a_.dq, 0, head_));
    rows_.store_block({.c = at<float>(at_.dq),
                       .ldc = at_.width,
                       .m = length_,
                       .n = at_.size,
                       .out = to,
                       .type = at_.act,
                       .ldo = a_.dq.stride[0],
                       .accumulate = false});
    for (int64_t i = length_; i < at_.positions; ++i)
      std::memset(const_cast<std::byte*>(row(a_.dq, i, head_)), 0,
                  static_cast<size_t>(at_.size) * size_of(at_.act));
  }

  const attention_backward_args& a_;
  const layout& at_;
  const tile_kernels& tiles_;
  const attention_kernels& kernels_;
  const row_kernels& rows_;
  std::byte* scratch_;
  int64_t sequence_, head_, kv_head_, length_;
  float* dk_;
  float* dv_;
};

} // namespace

/// dk and dv of every query head in f32; the heads of a group are added up at the end, in their order.
uint64_t attention_backward_workspace(void*, const attention_backward_args& a) {
  const layout at(a);
  return static_cast<uint64_t>(at.sequences * at.heads * 2 * at.partial()) * sizeof(float);
}

status attention_backward(void* queue, const attention_backward_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = attention_backward_workspace(nullptr, a)}));
  auto& device = device_of(queue);
  if (a.q.shape[0] == 0)
    return {};
  const layout at(a);
  const auto element = static_cast<int64_t>(size_of(at.act));
  return run_locked(device, [&] {
    NEUROSHARD_TRY(device.pool.reserve_scratch(at.bytes));
    device.pool.parallel_for(at.sequences * at.heads, [&](int64_t tile, int worker) {
      head_backward(device, a, at, tile / at.heads, tile % at.heads, device.pool.scratch(worker)).run();
    });
    const int64_t pieces = at.blocks;
    device.pool.parallel_for(at.sequences * at.kv_heads * pieces, [&](int64_t tile, int) {
      const int64_t first = tile % pieces * attention_block;
      const int64_t g = tile / pieces % at.kv_heads;
      const int64_t b = tile / pieces / at.kv_heads;
      const int64_t rows = std::min(attention_block, at.positions - first);
      float* partial =
          a.workspace.as<float>() + (b * at.heads + g * at.group) * 2 * at.partial() + first * at.width;
      for (int64_t h = 1; h < at.group; ++h) {
        device.rows.add_to(partial, partial + h * 2 * at.partial(), rows * at.width);
        device.rows.add_to(partial + at.partial(), partial + (2 * h + 1) * at.partial(), rows * at.width);
      }
      int64_t which = 0;
      for (const tensor* t : {&a.dk, &a.dv})
        device.rows.store_block(
            {.c = partial + which++ * at.partial(),
             .ldc = at.width,
             .m = rows,
             .n = at.size,
             .out = t->as<std::byte>() +
                    ((b * at.positions + first) * t->stride[0] + g * t->stride[1]) * element,
             .type = at.act,
             .ldo = t->stride[0],
             .accumulate = false});
    });
    return status{};
  });
}

} // namespace neuroshard::kernels::cpu
