#include "kernels/core/check.hpp"
#include "kernels/core/sampling.hpp"
#include "kernels/cpu/cpu_device.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace neuroshard::kernels::cpu {

namespace {

/// Elements of one tensor that a task of the optimizer takes: seven streams of 64 KiB.
constexpr int64_t optimizer_tile = 16 * 1024;
/// Rows whose gain gradient is summed in one piece.
constexpr int64_t norm_rows = 32;

int64_t act_bytes(const tensor& t) {
  return t.shape[1] * static_cast<int64_t>(size_of(t.type));
}

/// Calls fn(item, first, last, tile) in parallel for pieces of all items; size(i) is the number of elements
/// of item i.
template <class Size, class Function>
void for_pieces(cpu_device& device, size_t items, const Size& size, const Function& fn) {
  int64_t tiles = 0;
  for (size_t i = 0; i < items; ++i)
    tiles += divide_up(size(i), optimizer_tile);
  device.pool.parallel_for(tiles, [&](int64_t tile, int) {
    int64_t within = tile;
    size_t item = 0;
    while (within >= divide_up(size(item), optimizer_tile))
      within -= divide_up(size(item++), optimizer_tile);
    const int64_t first = within * optimizer_tile;
    fn(item, first, std::min(size(item), first + optimizer_tile), tile);
  });
}

} // namespace

uint64_t embedding_backward_workspace(void*, const embedding_backward_args&) {
  return 0;
}

/// The partial sums of dgain.
uint64_t rms_norm_backward_workspace(void*, const rms_norm_backward_args& a) {
  return static_cast<uint64_t>(divide_up(a.x.shape[0], norm_rows) * a.x.shape[1]) * sizeof(float);
}

/// One loss per row.
uint64_t cross_entropy_workspace(void*, const cross_entropy_args& a) {
  return static_cast<uint64_t>(a.logits.shape[0]) * sizeof(double);
}

/// Candidates of every row, as rows are drawn in parallel.
uint64_t sample_workspace(void*, const sample_args& a) {
  return static_cast<uint64_t>(a.logits.shape[0]) * static_cast<uint64_t>(a.logits.shape[1]) *
         sizeof(candidate);
}

/// One sum per piece.
uint64_t grad_norm_workspace(void*, const grad_norm_args& a) {
  int64_t pieces = 0;
  for (const tensor& g : a.gradients)
    pieces += divide_up(g.elements(), optimizer_tile);
  return static_cast<uint64_t>(pieces) * sizeof(double);
}

status embedding(void* queue, const embedding_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.ids.shape[0], a.table.shape[1] * 6,
                  [&](int64_t first, int64_t last) { d.rows.embedding(a, first, last); });
    return status{};
  });
}

// Cut by ids, as several rows may have the same: each row of the table is one task's, which adds to it in
// ascending order of rows. Four tasks per thread, as some ids are frequent.
status embedding_backward(void* queue, const embedding_backward_args& a) {
  NEUROSHARD_TRY(check(a, {}));
  auto& d = device_of(queue);
  const int64_t rows = a.ids.shape[0];
  return run_locked(d, [&] {
    const auto threads = static_cast<uint32_t>(d.pool.threads());
    const uint32_t parts = threads == 1 ? 1 : std::bit_ceil(4 * threads);
    NEUROSHARD_TRY(d.pool.reserve_scratch(static_cast<size_t>(rows) * sizeof(int32_t)));
    d.pool.parallel_for(parts, [&](int64_t part, int worker) {
      auto* mine = reinterpret_cast<int32_t*>(d.pool.scratch(worker));
      int64_t count = 0;
      for (int64_t t = 0; t < rows; ++t) {
        const int64_t id = a.ids.as<int32_t>()[t * a.ids.stride[0]];
        const auto row = static_cast<uint32_t>(id >= 0 && id < a.dtable.shape[0] ? id : 0);
        mine[count] = static_cast<int32_t>(t); // without a branch that nothing could predict
        count += (row & (parts - 1)) == static_cast<uint32_t>(part) ? 1 : 0;
      }
      d.rows.embedding_backward(a, mine, count);
    });
    return status{};
  });
}

status rms_norm(void* queue, const rms_norm_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.x.shape[0], act_bytes(a.x) * 2,
                  [&](int64_t first, int64_t last) { d.rows.rms_norm(a, first, last); });
    return status{};
  });
}

status rms_norm_backward(void* queue, const rms_norm_backward_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = rms_norm_backward_workspace(nullptr, a)}));
  auto& d = device_of(queue);
  const int64_t rows = a.x.shape[0];
  const int64_t width = a.x.shape[1];
  const int64_t tiles = divide_up(rows, norm_rows);
  auto* partial = a.workspace.as<float>();
  return run_locked(d, [&] {
    d.pool.parallel_for(tiles, [&](int64_t tile, int) {
      d.rows.rms_norm_backward(a, tile * norm_rows, std::min(rows, (tile + 1) * norm_rows),
                               partial + tile * width);
    });
    for (int64_t tile = 0; tile < tiles; ++tile)
      d.rows.add_to(a.dgain.as<float>(), partial + tile * width, width);
    return status{};
  });
}

status rope(void* queue, const rope_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.x.shape[0], a.x.shape[1] * a.x.shape[2] * static_cast<int64_t>(size_of(a.x.type)),
                  [&](int64_t first, int64_t last) { d.rows.rope(a, first, last); });
    return status{};
  });
}

status swiglu(void* queue, const swiglu_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.gate.shape[0], act_bytes(a.gate) * 3,
                  [&](int64_t first, int64_t last) { d.exponentials.swiglu(a, first, last); });
    return status{};
  });
}

status swiglu_backward(void* queue, const swiglu_backward_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.gate.shape[0], act_bytes(a.gate) * 5,
                  [&](int64_t first, int64_t last) { d.exponentials.swiglu_backward(a, first, last); });
    return status{};
  });
}

status add(void* queue, const add_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(d, a.a.shape[0], act_bytes(a.a) * 3,
                  [&](int64_t first, int64_t last) { d.rows.add(a, first, last); });
    return status{};
  });
}

// The innermost dimensions that are contiguous on both sides are one run; the others are counted through.
status convert(void* queue, const convert_args& a) {
  NEUROSHARD_TRY(check(a));
  if (a.x.elements() == 0)
    return {};
  auto& d = device_of(queue);
  int64_t run = 1;
  int outer = a.x.rank;
  while (outer > 0) {
    const auto i = static_cast<size_t>(outer - 1);
    if (a.x.shape[i] != 1 && (a.x.stride[i] != run || a.out.stride[i] != run))
      break;
    run *= a.x.shape[i];
    --outer;
  }
  const int64_t runs = a.x.elements() / run;
  const auto from_bytes = static_cast<int64_t>(size_of(a.x.type));
  const auto to_bytes = static_cast<int64_t>(size_of(a.out.type));
  const int64_t piece = std::min<int64_t>(run, 16 * 1024);
  const int64_t pieces = divide_up(run, piece);
  return run_locked(d, [&] {
    for_row_tiles(d, runs * pieces, piece * (from_bytes + to_bytes), [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        int64_t rest = at / pieces;
        const int64_t begin = at % pieces * piece;
        int64_t from = begin;
        int64_t to = begin;
        for (int dim = outer - 1; dim >= 0; --dim) {
          const auto i = static_cast<size_t>(dim);
          from += rest % a.x.shape[i] * a.x.stride[i];
          to += rest % a.x.shape[i] * a.out.stride[i];
          rest /= a.x.shape[i];
        }
        d.rows.convert(a.x.as<std::byte>() + from * from_bytes, a.x.type,
                       a.out.as<std::byte>() + to * to_bytes, a.out.type, std::min(piece, run - begin));
      }
    });
    return status{};
  });
}

status cross_entropy(void* queue, const cross_entropy_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = cross_entropy_workspace(nullptr, a)}));
  auto& d = device_of(queue);
  const int64_t rows = a.logits.shape[0];
  auto* losses = a.workspace.as<double>();
  return run_locked(d, [&] {
    NEUROSHARD_TRY(d.pool.reserve_scratch(static_cast<size_t>(a.valid_vocab) * sizeof(float)));
    const int64_t together = std::max<int64_t>(1, 32 * 1024 / std::max<int64_t>(1, a.logits.shape[1]));
    d.pool.parallel_for(divide_up(rows, together), [&](int64_t tile, int worker) {
      auto* scratch = reinterpret_cast<float*>(d.pool.scratch(worker));
      for (int64_t row = tile * together; row < std::min(rows, (tile + 1) * together); ++row)
        losses[row] = d.exponentials.cross_entropy(a, row, scratch);
    });
    for (int64_t row = 0; row < rows; ++row)
      *a.loss_sum.as<double>() += losses[row];
    return status{};
  });
}

status sample(void* queue, const sample_args& a) {
  NEUROSHARD_TRY(check(a, {.workspace = sample_workspace(nullptr, a)}));
  auto& d = device_of(queue);
  const int64_t columns = a.logits.shape[1];
  return run_locked(d, [&] {
    d.pool.parallel_for(a.logits.shape[0], [&](int64_t row, int) {
      const sampled drawn =
          sample_row({a.logits.as<float>() + row * a.logits.stride[0], static_cast<size_t>(columns)},
                     a.params[static_cast<size_t>(row)],
                     {a.workspace.as<candidate>() + row * columns, static_cast<size_t>(columns)},
                     static_cast<bool>(a.logprobs));
      a.ids.as<int32_t>()[row * a.ids.stride[0]] = drawn.id;
      if (a.logprobs)
        a.logprobs.as<float>()[row * a.logprobs.stride[0]] = drawn.logprob;
    });
    return status{};
  });
}

// A clip factor that is not finite marks gradients that are not: the step is dropped, the gradients are
// cleared all the same.
status adamw(void* queue, const adamw_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  const auto correction = [&](float beta) {
    return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(a.t))));
  };
  const adamw_constants constants{.beta1 = a.beta1,
                                  .beta2 = a.beta2,
                                  .one_minus_beta1 = 1.0F - a.beta1,
                                  .one_minus_beta2 = 1.0F - a.beta2,
                                  .correction1 = correction(a.beta1),
                                  .correction2 = correction(a.beta2),
                                  .eps = a.eps,
                                  .learning_rate = a.learning_rate};
  return run_locked(d, [&] {
    const float clip = *a.clip.as<float>();
    for_pieces(
        d, a.items.size(), [&](size_t i) { return a.items[i].weight.elements(); },
        [&](size_t i, int64_t first, int64_t last, int64_t) {
          if (std::isfinite(clip))
            d.rows.adamw(a.items[i], constants, clip, a.zero_gradient, first, last);
          else if (a.zero_gradient)
            std::fill(a.items[i].gradient.as<float>() + first, a.items[i].gradient.as<float>() + last, 0.0F);
        });
    return status{};
  });
}

status grad_norm(void* queue, const grad_norm_args& a) {
  const uint64_t needed = grad_norm_workspace(nullptr, a);
  NEUROSHARD_TRY(check(a, {.workspace = needed}));
  auto& d = device_of(queue);
  auto* sums = a.workspace.as<double>();
  return run_locked(d, [&] {
    for_pieces(
        d, a.gradients.size(), [&](size_t i) { return a.gradients[i].elements(); },
        [&](size_t i, int64_t first, int64_t last, int64_t tile) {
          sums[tile] = d.rows.sum_of_squares(a.gradients[i].as<float>() + first, last - first);
        });
    double total = 0;
    for (uint64_t i = 0; i < needed / sizeof(double); ++i)
      total += sums[i];
    *a.sum_sq.as<double>() += total;
    return status{};
  });
}

status clip_factor(void* queue, const clip_factor_args& a) {
  NEUROSHARD_TRY(check(a));
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    const double sum = *a.sum_sq.as<double>();
    float factor = std::numeric_limits<float>::quiet_NaN();
    if (std::isfinite(sum))
      factor = sum == 0 ? 1.0F
                        : static_cast<float>(std::min(1.0, static_cast<double>(a.norm_max) / std::sqrt(sum)));
    *a.factor.as<float>() = factor;
    return status{};
  });
}

} // namespace neuroshard::kernels::cpu
