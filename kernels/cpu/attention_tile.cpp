#include "kernels/cpu/attention_tile.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace neuroshard::kernels::cpu {

namespace {

constexpr int64_t diagonal_strip = 32;

} // namespace

attention_layout::attention_layout(dtype type, int64_t head_size, int64_t heads_in_group)
    : act(type), size(head_size), group(heads_in_group), width(round_up(head_size, 16)),
      panels(divide_up(head_size, panel_width)), query_words(steps_of(type, head_size)),
      key_words(panel_words(type, head_size)), value_words(panel_words(type, attention_block)),
      scale(1.0F / std::sqrt(static_cast<float>(head_size))) {
  const int64_t rows = attention_block;
  size_t end = 0;
  const auto place = [&end](int64_t count, int64_t element) {
    const size_t at = end;
    end += (static_cast<size_t>(count * element) + 63) / 64 * 64;
    return at;
  };
  queries = place(group * rows * query_words, 4);
  scores = place(rows * attention_block, 4);
  weights = place(rows * attention_block, static_cast<int64_t>(size_of(act)));
  sums = place(group * rows * width, 4);
  largest = place(group * rows, 4);
  total = place(group * rows * 16, 4);
  keys = place(key_words, 4);
  values = place(panels * value_words, 4);
  bytes = end;
}

void pack_kv_part(const cpu_device& device, const attention_layout& at, const void* k, int64_t k_stride,
                  const void* v, int64_t v_stride, int64_t slot, int64_t count, int64_t width, uint32_t* keys,
                  uint32_t* values) {
  const auto& tiles = device.tiles(at.act);
  tiles.pack_transposed({.source = k,
                         .source_type = at.act,
                         .ld = k_stride,
                         .columns = count,
                         .k = at.size,
                         .panel = keys + slot,
                         .width = width,
                         .first_step = 0,
                         .last_step = at.query_words});
  const auto element = static_cast<int64_t>(size_of(at.act));
  const int64_t step = slot / step_elements(at.act);
  for (int64_t p = 0; p < at.panels; ++p)
    tiles.pack_rows({.source = static_cast<const std::byte*>(v) + p * panel_width * element,
                     .source_type = at.act,
                     .ld = v_stride,
                     .columns = std::min(panel_width, at.size - p * panel_width),
                     .k = count,
                     .panel = values + p * at.value_words + step * panel_width,
                     .first_step = 0,
                     .last_step = steps_of(at.act, count)});
}

void begin_tile(const attention_layout& at, const attention_rows& rows, std::byte* scratch) {
  const auto element = static_cast<int64_t>(size_of(at.act));
  const auto row_bytes = static_cast<size_t>(at.size * element);
  const auto padded_bytes = static_cast<size_t>(at.query_words) * word_bytes;
  for (int64_t h = 0; h < at.group; ++h)
    for (int64_t i = 0; i < rows.rows; ++i) {
      std::byte* to = scratch + at.queries + static_cast<size_t>(h * attention_block + i) * padded_bytes;
      std::memcpy(to, static_cast<const std::byte*>(rows.q) + (i * rows.q_row + h * rows.q_head) * element,
                  row_bytes);
      std::memset(to + row_bytes, 0, padded_bytes - row_bytes);
    }
  std::fill_n(reinterpret_cast<float*>(scratch + at.largest), at.group * attention_block,
              -std::numeric_limits<float>::infinity());
  std::fill_n(reinterpret_cast<float*>(scratch + at.total), at.group * attention_block * 16, 0.0F);
}

void take_kv_block(const cpu_device& device, const attention_layout& at, const attention_rows& rows,
                   int64_t first, int64_t count, const uint32_t* keys, const uint32_t* values,
                   std::byte* scratch) {
  const auto& tiles = device.tiles(at.act);
  const auto& kernels = attention_kernels_for(at.act, device.level);
  auto* scores = reinterpret_cast<float*>(scratch + at.scores);
  const int64_t visible = rows.position - first + 1; // to the first row
  // Where the diagonal passes, rows are taken in strips, each with no more keys than its last row sees.
  const int64_t strip = visible < count ? diagonal_strip : attention_block;
  for (int64_t h = 0; h < at.group; ++h)
    for (int64_t i = 0; i < rows.rows; i += strip) {
      const int64_t row = h * attention_block + i;
      const int64_t strip_rows = std::min(strip, rows.rows - i);
      const int64_t seen = std::min(count, visible + i + strip_rows - 1);
      if (seen <= 0)
        continue; // only beyond the first block, where the sums stand already
      auto* sums = reinterpret_cast<float*>(scratch + at.sums) + row * at.width;
      tiles.block({.a = scratch + at.queries + static_cast<size_t>(row * at.query_words) * word_bytes,
                   .lda = at.query_words,
                   .b = keys,
                   .c = scores,
                   .ldc = attention_block,
                   .m = strip_rows,
                   .n = round_up(seen, 16),
                   .steps = at.query_words,
                   .accumulate = false});
      kernels.softmax_block({.scores = scores,
                             .rows = strip_rows,
                             .visible = visible + i,
                             .keys = seen,
                             .scale = at.scale,
                             .largest = reinterpret_cast<float*>(scratch + at.largest) + row,
                             .total = reinterpret_cast<float*>(scratch + at.total) + row * 16,
                             .weights = scratch + at.weights,
                             .sums = sums,
                             .width = at.width,
                             .first = first == rows.first_key});
      for (int64_t p = 0; p < at.panels; ++p)
        tiles.block({.a = scratch + at.weights,
                     .lda = attention_block / step_elements(at.act),
                     .b = values + p * at.value_words,
                     .c = sums + p * panel_width,
                     .ldc = at.width,
                     .m = strip_rows,
                     .n = std::min(panel_width, at.width - p * panel_width),
                     .steps = steps_of(at.act, seen),
                     .accumulate = first != rows.first_key});
    }
}

float total_of(const attention_layout& at, int64_t row, const std::byte* scratch) {
  const auto* parts = reinterpret_cast<const float*>(scratch + at.total) + row * 16;
  float sum = 0;
  for (int i = 0; i < 16; ++i)
    sum += parts[i];
  return sum;
}

void end_tile(const cpu_device& device, const attention_layout& at, const attention_rows& rows,
              std::byte* scratch) {
  const auto& kernels = attention_kernels_for(at.act, device.level);
  const auto element = static_cast<int64_t>(size_of(at.act));
  const auto* largest = reinterpret_cast<const float*>(scratch + at.largest);
  const auto* sums = reinterpret_cast<const float*>(scratch + at.sums);
  for (int64_t h = 0; h < at.group; ++h)
    for (int64_t i = 0; i < rows.rows; ++i) {
      const int64_t row = h * attention_block + i;
      const float total = total_of(at, row, scratch);
      kernels.scale_row(sums + row * at.width, 1.0F / total,
                        static_cast<std::byte*>(rows.out) + (i * rows.out_row + h * rows.out_head) * element,
                        at.size);
      if (rows.lse != nullptr)
        rows.lse[h * rows.lse_head + i] = largest[row] * at.scale + std::log(total);
    }
}

} // namespace neuroshard::kernels::cpu
