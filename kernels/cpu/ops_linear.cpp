#include "kernels/core/check.hpp"
#include "kernels/cpu/cpu_device.hpp"

#include <algorithm>

namespace neuroshard::kernels::cpu {

namespace {

/// Bytes of the panels for n output columns and contraction length k.
uint64_t panels_bytes(dtype act, int64_t n, int64_t k) {
  return static_cast<uint64_t>(divide_up(n, panel_width) * panel_words(act, k)) * word_bytes;
}

/// A piece of the master weight that is packed at a time: 64 rows, this many columns; 64 KiB of f32.
constexpr int64_t pack_columns = 4 * panel_width;

/// Packs rows [64 p, 64 p + 64) and columns [256 q, 256 q + 256) of the weight for both products, so that it
/// is read once.
void prepare_piece(const tile_kernels& kernels, const prepare_weight_args& a, int64_t p, int64_t q) {
  const int64_t n = a.weight.shape[0];
  const int64_t k = a.weight.shape[1];
  const int64_t pair = step_elements(a.act);
  const auto element = static_cast<int64_t>(size_of(a.weight.type));
  const auto* weight = static_cast<const std::byte*>(a.weight.data);
  auto* forward = a.prepared.as<uint32_t>();
  const int64_t first_row = p * panel_width;
  const int64_t rows = std::min(panel_width, n - first_row);
  const int64_t first_column = q * pack_columns;
  const int64_t last_column = std::min(k, first_column + pack_columns);
  const bool last_piece = last_column == k;
  kernels.pack_transposed(
      {.source = weight + first_row * a.weight.stride[0] * element,
       .source_type = a.weight.type,
       .ld = a.weight.stride[0],
       .columns = rows,
       .k = k,
       .panel = forward + p * panel_words(a.act, k),
       .first_step = first_column / pair,
       .last_step = last_piece ? round_up(steps_of(a.act, k), step_group) : last_column / pair});
  if (a.use == weight_use::serve)
    return;
  auto* backward = forward + panels_bytes(a.act, n, k) / word_bytes;
  const bool last_rows = first_row + rows == n;
  for (int64_t column = first_column; column < last_column; column += panel_width)
    kernels.pack_rows(
        {.source = weight + column * element,
         .source_type = a.weight.type,
         .ld = a.weight.stride[0],
         .columns = std::min(panel_width, k - column),
         .k = n,
         .panel = backward + column / panel_width * panel_words(a.act, n),
         .first_step = first_row / pair,
         .last_step = last_rows ? round_up(steps_of(a.act, n), step_group) : (first_row + rows) / pair});
}

/// Words between the rows of dy transposed. One cache line more than needed: with a power of two of rows they
/// would all lie in the same few sets of the cache. oneDNN, which multiplies bf16 with AMX, wants them dense.
int64_t transposed_pitch(const cpu_device& device, dtype act, int64_t rows) {
  const int64_t steps = round_up(steps_of(act, rows), step_group);
  return device.amx && act == dtype::bf16 ? steps : steps + step_group;
}

/// Whether dy is read as it lies. In f32 a column of it needs no more than that; where rows are long, each
/// step of a column would lie in a page of its own.
bool in_place(dtype act, int64_t n) noexcept {
  return act == dtype::f32 && n <= 1024;
}

} // namespace

uint64_t prepared_bytes(void*, int64_t n, int64_t k, dtype act, weight_use use) {
  const uint64_t forward = panels_bytes(act, n, k);
  return use == weight_use::serve ? forward : forward + panels_bytes(act, k, n);
}

uint64_t linear_workspace(void*, const linear_args&) {
  return 0;
}
uint64_t linear_backward_input_workspace(void*, const linear_backward_input_args&) {
  return 0;
}

/// x as panels, and dy transposed where that is needed.
uint64_t linear_backward_weight_workspace(void* device, const linear_backward_weight_args& a) {
  const int64_t rows = a.dy.shape[0];
  const uint64_t panels = panels_bytes(a.dy.type, a.x.shape[1], rows);
  if (in_place(a.dy.type, a.dy.shape[1]))
    return panels;
  const auto& d = *static_cast<const cpu_device*>(device);
  return panels + static_cast<uint64_t>(a.dy.shape[1] * transposed_pitch(d, a.dy.type, rows)) * word_bytes;
}

status prepare_weight(void* queue, const prepare_weight_args& a) {
  auto& device = device_of(queue);
  NEUROSHARD_TRY(
      check(a, {.prepared = prepared_bytes(&device, a.weight.shape[0], a.weight.shape[1], a.act, a.use)}));
  const auto& kernels = device.tiles(a.act);
  const int64_t down = divide_up(a.weight.shape[0], panel_width);
  const int64_t across = divide_up(a.weight.shape[1], pack_columns);
  return run_locked(device, [&] {
    device.pool.parallel_for(
        down * across, [&](int64_t tile, int) { prepare_piece(kernels, a, tile / across, tile % across); });
    return status{};
  });
}

status linear(void* queue, const linear_args& a) {
  auto& device = device_of(queue);
  NEUROSHARD_TRY(
      check(a, {.prepared = prepared_bytes(&device, a.out_features, a.x.shape[1], a.x.type, a.use)}));
  return run_locked(device, [&] {
    return run_product(device, {.act = a.x.type,
                                .a = a.x.data,
                                .lda = a.x.stride[0],
                                .b = a.weight.data,
                                .m = a.x.shape[0],
                                .n = a.out_features,
                                .k = a.x.shape[1],
                                .out = a.out.data,
                                .out_type = a.out.type,
                                .ldo = a.out.stride[0],
                                .accumulate = a.accumulate});
  });
}

status linear_backward_input(void* queue, const linear_backward_input_args& a) {
  auto& device = device_of(queue);
  const int64_t n = a.dy.shape[1];
  const dtype act = a.dy.type;
  NEUROSHARD_TRY(check(a, {.prepared = prepared_bytes(&device, n, a.in_features, act, weight_use::train)}));
  return run_locked(device, [&] {
    return run_product(device, {.act = act,
                                .a = a.dy.data,
                                .lda = a.dy.stride[0],
                                .b = a.weight.as<std::byte>() + panels_bytes(act, n, a.in_features),
                                .m = a.dy.shape[0],
                                .n = a.in_features,
                                .k = n,
                                .out = a.dx.data,
                                .out_type = a.dx.type,
                                .ldo = a.dx.stride[0],
                                .accumulate = a.accumulate});
  });
}

// The contraction runs over the rows, so both operands are laid out anew first: x as panels, dy transposed,
// unless it can be read as it lies. That costs O(T (N + K)) beside the O(T N K) of the product.
status linear_backward_weight(void* queue, const linear_backward_weight_args& a) {
  auto& device = device_of(queue);
  NEUROSHARD_TRY(check(a, {.workspace = linear_backward_weight_workspace(&device, a)}));
  const dtype act = a.dy.type;
  const int64_t rows = a.dy.shape[0];
  const int64_t n = a.dy.shape[1];
  const int64_t k = a.x.shape[1];
  if (rows == 0 || n == 0 || k == 0)
    return {};
  const auto& kernels = device.tiles(act);
  const auto element = static_cast<int64_t>(size_of(act));
  const int64_t steps = round_up(steps_of(act, rows), step_group);
  const int64_t pitch = transposed_pitch(device, act, rows);
  auto* panels = a.workspace.as<uint32_t>();
  auto* transposed = panels + panels_bytes(act, k, rows) / word_bytes;
  const int64_t panel_tiles = divide_up(k, panel_width);
  const bool as_it_lies = in_place(act, n);
  const int64_t transpose_tiles = as_it_lies ? 0 : divide_up(n, panel_width);
  return run_locked(device, [&] {
    device.pool.parallel_for(panel_tiles + transpose_tiles, [&](int64_t tile, int) {
      if (tile < panel_tiles) {
        const int64_t column = tile * panel_width;
        kernels.pack_rows({.source = a.x.as<std::byte>() + column * element,
                           .source_type = act,
                           .ld = a.x.stride[0],
                           .columns = std::min(panel_width, k - column),
                           .k = rows,
                           .panel = panels + tile * panel_words(act, rows),
                           .first_step = 0,
                           .last_step = steps});
      } else {
        const int64_t column = (tile - panel_tiles) * panel_width;
        kernels.transpose({.x = a.dy.as<std::byte>() + column * element,
                           .ld = a.dy.stride[0],
                           .k = rows,
                           .n = std::min(panel_width, n - column),
                           .out = transposed + column * pitch,
                           .ldo = pitch,
                           .steps = steps});
      }
    });
    product_args p{.act = act,
                   .a = transposed,
                   .lda = pitch * step_elements(act),
                   .b = panels,
                   .m = n,
                   .n = k,
                   .k = steps * step_elements(act),
                   .out = a.dw.data,
                   .out_type = dtype::f32,
                   .ldo = a.dw.stride[0],
                   .accumulate = true};
    if (as_it_lies) {
      p.a = a.dy.data;
      p.lda = a.dy.stride[0];
      p.k = rows;
      p.transposed = true;
    }
    return run_product(device, p);
  });
}

} // namespace neuroshard::kernels::cpu
