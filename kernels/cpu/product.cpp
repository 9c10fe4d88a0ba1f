#include "kernels/cpu/cpu_device.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace neuroshard::kernels::cpu {

namespace {

/// Up to here a product is bound by reading the weight, and our own kernels stream it.
constexpr int64_t few_rows = 16;
constexpr int64_t few_rows_tile_bytes = 128 * 1024;
/// Steps of a panel that such a product takes at a time: 24 KiB.
constexpr int64_t few_rows_steps = 96;
/// Steps that a larger product in f32 takes at a time: a long column of the left operand would lie in too
/// few sets of the caches. In bf16 there are half as many steps, and sums that are rounded as they are
/// stored should be stored once.
constexpr int64_t many_rows_steps = 256;
/// Tile of a larger product: its right operand stays in the L2 cache while its rows pass by.
constexpr int64_t tile_rows_max = 128;
constexpr int64_t tile_panels_max = 4;
/// Below this a tile is not worth a call into the library.
constexpr double tile_flops_min = 16e6;
/// The library's rows come in these steps, so that the number of shapes is bounded; the rest of a tile is
/// ours.
constexpr int64_t library_rows = 16;

/// How a product is cut. Depends on the shape alone.
struct tile_grid {
  int64_t rows;
  int64_t panels;
  int64_t down;
  int64_t across;

  explicit tile_grid(const product_args& p) {
    const int64_t all = divide_up(p.n, panel_width);
    if (p.m <= few_rows) {
      rows = p.m;
      panels = std::clamp<int64_t>(few_rows_tile_bytes / (panel_words(p.act, p.k) * 4), 1, all);
    } else {
      rows = std::min(p.m, tile_rows_max);
      panels = std::min(all, tile_panels_max);
      const auto flops = [&] {
        return 2.0 * static_cast<double>(rows * panels * panel_width) * static_cast<double>(p.k);
      };
      while (flops() >= 2 * tile_flops_min && panels > 1)
        panels = (panels + 1) / 2;
    }
    down = divide_up(p.m, rows);
    across = divide_up(all, panels);
  }
};

/// What the tiles of one product share.
class product {
public:
  product(cpu_device& device, const product_args& p) : device_(device), p_(p), grid_(p) {
    // Words of 4 bytes are read from the left operand: rows of an odd number of bf16 elements are copied out
    // and padded, as are rows that have gaps when oneDNN is to read them.
    const int64_t pair = step_elements(p.act);
    const bool words = p.lda % pair == 0 && p.k % pair == 0;
    // Our own kernels store sums where they belong, rounded from their registers where the result is bf16.
    // oneDNN writes dense blocks of f32, and the second pass that brings them there costs more than its
    // product gains, unless it multiplies with AMX.
    const bool in_place = p.out_type == dtype::f32 || device.tiles(p.act).rounds;
    uses_library_ = device.library && p.m > few_rows && (!in_place || (device.amx && p.act == dtype::bf16));
    copies_ = !words || (uses_library_ && p.lda != p.k);
    k_ = copies_ ? round_up(p.k, pair * step_group) : p.k;
  }

  status prepare() {
    size_t library_scratch = 0;
    if (uses_library_) {
      device_.products.trim();
      const int64_t last_rows = p_.m - (grid_.down - 1) * grid_.rows;
      const int64_t last_panels = divide_up(p_.n, panel_width) - (grid_.across - 1) * grid_.panels;
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
          const int64_t m = (i == 0 ? grid_.rows : last_rows) / library_rows * library_rows;
          auto*& made = primitives_[i][j];
          made = m == 0 ? nullptr
                        : device_.products.find(p_.act, m,
                                                (j == 0 ? grid_.panels : last_panels) * panel_width, k_);
          if (made != nullptr)
            library_scratch = std::max(library_scratch, onednn_matmul::scratch_bytes(*made));
        }
    }
    sums_bytes_ = static_cast<size_t>(grid_.rows * grid_.panels * panel_width) * sizeof(float);
    copy_bytes_ = copies_ ? static_cast<size_t>(grid_.rows * k_) * size_of(p_.act) : 0;
    copy_bytes_ = (copy_bytes_ + 63) / 64 * 64;
    return device_.pool.reserve_scratch(sums_bytes_ + copy_bytes_ + library_scratch);
  }

  status run() {
    device_.pool.parallel_for(grid_.down * grid_.across,
                              [this](int64_t tile, int worker) { run_tile(tile, worker); });
    if (failed_.load(std::memory_order_relaxed))
      return {code::internal, "oneDNN refused to run a matrix product"};
    return {};
  }

private:
  void run_tile(int64_t tile, int worker) {
    // Rows run fastest, so that a panel is reused while it is in the cache.
    const int64_t down = tile % grid_.down;
    const int64_t across = tile / grid_.down;
    const int64_t first_row = down * grid_.rows;
    const int64_t rows = std::min(grid_.rows, p_.m - first_row);
    const int64_t first_panel = across * grid_.panels;
    const int64_t panels = std::min(grid_.panels, divide_up(p_.n, panel_width) - first_panel);
    const int64_t columns = std::min(panels * panel_width, p_.n - first_panel * panel_width);

    std::byte* scratch = device_.pool.scratch(worker);
    auto* sums = reinterpret_cast<float*>(scratch);
    const auto element = static_cast<int64_t>(size_of(p_.act));
    const auto* a = static_cast<const std::byte*>(p_.a) + first_row * (p_.transposed ? 1 : p_.lda) * element;
    int64_t lda = p_.lda;
    if (copies_) {
      std::byte* copy = scratch + sums_bytes_;
      for (int64_t i = 0; i < rows; ++i) {
        std::memcpy(copy + i * k_ * element, a + i * p_.lda * element, static_cast<size_t>(p_.k * element));
        std::memset(copy + (i * k_ + p_.k) * element, 0, static_cast<size_t>((k_ - p_.k) * element));
      }
      a = copy;
      lda = k_;
    }
    const int64_t words_of_panel = panel_words(p_.act, p_.k);
    const auto* b = static_cast<const uint32_t*>(p_.b) + first_panel * words_of_panel;
    auto* out = static_cast<std::byte*>(p_.out) +
                (first_row * p_.ldo + first_panel * panel_width) * static_cast<int64_t>(size_of(p_.out_type));

    int64_t done = 0;
    auto* primitive = primitives_[down + 1 == grid_.down ? 1 : 0][across + 1 == grid_.across ? 1 : 0];
    if (primitive != nullptr) {
      done = rows / library_rows * library_rows;
      if (!onednn_matmul::execute(*primitive, worker, a, b, sums, scratch + sums_bytes_ + copy_bytes_))
        failed_.store(true, std::memory_order_relaxed);
    }
    const int64_t pair = step_elements(p_.act);
    // Sums that can be written where they belong are not taken round by the scratch memory.
    const bool direct = done == 0 && p_.out_type == dtype::f32 && columns % 16 == 0;
    // Few rows take a panel in pieces that stay in the L1 cache while the rows pass by in groups, so that it
    // streams from memory once. The order of the sums is the same in pieces of any length.
    const int64_t steps = divide_up(k_, pair);
    const int64_t piece = p_.m <= few_rows ? few_rows_steps : p_.act == dtype::f32 ? many_rows_steps : steps;
    const auto& tiles = device_.tiles(p_.act);
    const bool rounds =
        done == 0 && p_.out_type == dtype::bf16 && tiles.rounds && !p_.accumulate && columns % 16 == 0;
    const auto block = p_.transposed ? tiles.block_transposed : tiles.block;
    const int64_t step_bytes = p_.transposed ? lda * element : static_cast<int64_t>(word_bytes);
    for (int64_t j = 0; j < panels && done < rows; ++j) {
      const int64_t width = std::min(panel_width, columns - j * panel_width);
      for (int64_t s = 0; s < steps; s += piece)
        block({.a = a + done * lda * element + s * step_bytes,
               .lda = lda / pair,
               .b = b + j * words_of_panel + s * panel_width,
               .c = direct ? reinterpret_cast<float*>(out) + j * panel_width
                           : sums + (done * panels + j) * panel_width,
               .ldc = direct ? p_.ldo : panels * panel_width,
               .m = rows - done,
               .n = round_up(width, 16),
               .steps = std::min(piece, steps - s),
               .accumulate = s > 0 || (direct && p_.accumulate),
               .rounded =
                   rounds && s + piece >= steps ? reinterpret_cast<bf16*>(out) + j * panel_width : nullptr,
               .ld_rounded = p_.ldo});
    }
    if (!direct && !rounds)
      device_.rows.store_block({.c = sums,
                                .ldc = panels * panel_width,
                                .m = rows,
                                .n = columns,
                                .out = out,
                                .type = p_.out_type,
                                .ldo = p_.ldo,
                                .accumulate = p_.accumulate});
  }

  cpu_device& device_;
  const product_args& p_;
  tile_grid grid_;
  bool uses_library_ = false;
  bool copies_ = false;
  int64_t k_ = 0; ///< contraction length, padded where the left operand is copied
  onednn_matmul::primitive* primitives_[2][2] = {};
  size_t sums_bytes_ = 0;
  size_t copy_bytes_ = 0;
  std::atomic<bool> failed_{false};
};

} // namespace

status run_product(cpu_device& device, const product_args& p) {
  if (p.m == 0 || p.n == 0)
    return {};
  product work(device, p);
  NEUROSHARD_TRY(work.prepare());
  return work.run();
}

} // namespace neuroshard::kernels::cpu
