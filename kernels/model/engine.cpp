#include "kernels/model/engine.hpp"

#include <algorithm>
#include <cmath>
#include <new>

namespace neuroshard::model {

namespace {

/// Panels are multiples of so many rows, so that the tiles of a product are full.
constexpr int64_t panel_step = 64;

/// cos and sin of m * base^(-2i/D) for every position m and pair i; the angle in f64 (model.md section 2).
std::vector<float> rotation_table(const architecture& a, bool cosine) {
  const int64_t half = a.head_dim() / 2;
  std::vector<float> table(static_cast<size_t>(a.max_seq_len * half));
  const double base = a.rope_base_value();
  for (int64_t i = 0; i < half; ++i) {
    const double frequency =
        std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(a.head_dim()));
    for (int64_t m = 0; m < a.max_seq_len; ++m) {
      const double angle = static_cast<double>(m) * frequency;
      table[static_cast<size_t>(m * half + i)] =
          static_cast<float>(cosine ? std::cos(angle) : std::sin(angle));
    }
  }
  return table;
}

} // namespace

result<kernels::buffer_ptr> allocate(kernels::device& on, uint64_t bytes) {
  if (bytes == 0)
    return kernels::buffer_ptr(std::make_shared<kernels::buffer>());
  return on.alloc(bytes);
}

result<std::unique_ptr<engine>> engine::make(kernels::device_ptr device, const architecture& shape, dtype act,
                                             double slice_flops) {
  auto e = std::unique_ptr<engine>(new engine);
  e->device_ = device;
  e->shape_ = shape;
  e->act_ = act;
  e->eps_ = static_cast<float>(shape.norm_eps_value());
  e->slice_flops_ = slice_flops;
  auto queue = kernels::queue::open(device);
  if (!queue.ok())
    return queue.status();
  e->queue_ = std::move(*queue);

  const int64_t half = shape.head_dim() / 2;
  const uint64_t bytes = static_cast<uint64_t>(shape.max_seq_len * half) * sizeof(float);
  memory_layout layout;
  const uint64_t cosine_at = layout.add(bytes);
  const uint64_t sine_at = layout.add(bytes);
  auto memory = allocate(*device, layout.bytes());
  if (!memory.ok())
    return memory.status();
  e->tables_ = *memory;
  e->cosine_ = make_tensor(at_offset(e->tables_, cosine_at), dtype::f32, {shape.max_seq_len, half});
  e->sine_ = make_tensor(at_offset(e->tables_, sine_at), dtype::f32, {shape.max_seq_len, half});
  const auto cosine = rotation_table(shape, true);
  const auto sine = rotation_table(shape, false);
  NEUROSHARD_TRY(e->upload(e->cosine_, cosine.data()));
  NEUROSHARD_TRY(e->upload(e->sine_, sine.data()));
  NEUROSHARD_TRY(e->queue().wait());
  return e;
}

result<tensor> engine::workspace(uint64_t bytes) {
  if (bytes > workspace_bytes()) {
    NEUROSHARD_TRY(queue_->wait()); // the old one may be in use
    workspace_.reset();
    auto memory = device_->alloc(std::max<uint64_t>((bytes + 4095) / 4096 * 4096, 65536));
    if (!memory.ok())
      return memory.status();
    workspace_ = *memory;
  }
  if (!workspace_)
    return tensor{};
  return make_tensor(workspace_->address, dtype::i8, {static_cast<int64_t>(workspace_->bytes)});
}

int64_t engine::panel_rows(int64_t rows, double flops_per_row) const noexcept {
  const double most = slice_flops_ / std::max(flops_per_row, 1.0);
  if (static_cast<double>(rows) <= most)
    return rows;
  const auto panels = static_cast<int64_t>(std::ceil(static_cast<double>(rows) / most));
  const int64_t even = (rows + panels - 1) / panels;
  return (even + panel_step - 1) / panel_step * panel_step;
}

sliced<status> engine::linear(tensor x, const product_weight& w, tensor out) {
  const double per_row = 2.0 * static_cast<double>(w.out_features) * static_cast<double>(w.in_features);
  const int64_t rows = x.shape[0];
  const int64_t panel = panel_rows(rows, per_row);
  for (int64_t first = 0; first < rows; first += panel) {
    const int64_t count = std::min(panel, rows - first);
    kernels::linear_args args;
    args.x = rows_of(x, first, count);
    args.weight = w.prepared;
    args.use = w.use;
    args.out_features = w.out_features;
    args.out = rows_of(out, first, count);
    auto scratch = workspace(ops().linear_workspace(d(), args));
    if (!scratch.ok())
      co_return scratch.status();
    args.workspace = *scratch;
    NEUROSHARD_CO_TRY(ops().linear(q(), args));
    if (spent_flops(per_row * static_cast<double>(count)))
      co_await end_slice{};
  }
  co_return status{};
}

sliced<status> engine::linear_backward_input(tensor dy, const product_weight& w, tensor dx) {
  const double per_row = 2.0 * static_cast<double>(w.out_features) * static_cast<double>(w.in_features);
  const int64_t rows = dy.shape[0];
  const int64_t panel = panel_rows(rows, per_row);
  for (int64_t first = 0; first < rows; first += panel) {
    const int64_t count = std::min(panel, rows - first);
    kernels::linear_backward_input_args args;
    args.dy = rows_of(dy, first, count);
    args.weight = w.prepared;
    args.in_features = w.in_features;
    args.dx = rows_of(dx, first, count);
    auto scratch = workspace(ops().linear_backward_input_workspace(d(), args));
    if (!scratch.ok())
      co_return scratch.status();
    args.workspace = *scratch;
    NEUROSHARD_CO_TRY(ops().linear_backward_input(q(), args));
    if (spent_flops(per_row * static_cast<double>(count)))
      co_await end_slice{};
  }
  co_return status{};
}

sliced<status> engine::linear_backward_weight(tensor dy, tensor x, tensor dw) {
  const double per_row = 2.0 * static_cast<double>(dy.shape[0]) * static_cast<double>(x.shape[1]);
  const int64_t rows = dw.shape[0];
  const int64_t panel = panel_rows(rows, per_row);
  for (int64_t first = 0; first < rows; first += panel) {
    const int64_t count = std::min(panel, rows - first);
    kernels::linear_backward_weight_args args;
    args.dy = columns_of(dy, first, count);
    args.x = x;
    args.dw = rows_of(dw, first, count);
    auto scratch = workspace(ops().linear_backward_weight_workspace(d(), args));
    if (!scratch.ok())
      co_return scratch.status();
    args.workspace = *scratch;
    NEUROSHARD_CO_TRY(ops().linear_backward_weight(q(), args));
    if (spent_flops(per_row * static_cast<double>(count)))
      co_await end_slice{};
  }
  co_return status{};
}

status engine::prepare(tensor weight, weight_use use, tensor prepared) {
  kernels::prepare_weight_args args;
  args.weight = weight;
  args.act = act_;
  args.use = use;
  args.prepared = prepared;
  return ops().prepare_weight(q(), args);
}

status engine::rms_norm(tensor x, tensor residual, tensor sum, tensor gain, tensor out, tensor rstd) {
  kernels::rms_norm_args args;
  args.x = x;
  args.residual = residual;
  args.sum = sum;
  args.gain = gain;
  args.out = out;
  args.rstd = rstd;
  args.eps = eps_;
  return ops().rms_norm(q(), args);
}

status engine::rms_norm_backward(tensor dy, tensor x, tensor gain, tensor rstd, tensor dresidual, tensor dx,
                                 tensor dgain) {
  kernels::rms_norm_backward_args args;
  args.dy = dy;
  args.x = x;
  args.gain = gain;
  args.rstd = rstd;
  args.dresidual = dresidual;
  args.dx = dx;
  args.dgain = dgain;
  auto scratch = workspace(ops().rms_norm_backward_workspace(d(), args));
  if (!scratch.ok())
    return scratch.status();
  args.workspace = *scratch;
  return ops().rms_norm_backward(q(), args);
}

status engine::rope(tensor heads, tensor positions, bool inverse) {
  kernels::rope_args args;
  args.x = heads;
  args.positions = positions;
  args.cosine = cosine_;
  args.sine = sine_;
  args.inverse = inverse;
  return ops().rope(q(), args);
}

status engine::convert(tensor x, tensor out) {
  kernels::convert_args args;
  args.x = x;
  args.out = out;
  return ops().convert(q(), args);
}

std::shared_ptr<std::byte[]> host_memory(uint64_t bytes) {
  auto* raw = static_cast<std::byte*>(::operator new[](std::max<uint64_t>(bytes, 1), std::align_val_t{64}));
  return {raw, [](std::byte* p) { ::operator delete[](p, std::align_val_t{64}); }};
}

} // namespace neuroshard::model
