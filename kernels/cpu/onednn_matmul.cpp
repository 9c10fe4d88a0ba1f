#include "kernels/cpu/onednn_matmul.hpp"

#include "kernels/cpu/compute_pool.hpp"
#include "kernels/cpu/tile_kernels.hpp"

#include <array>
#include <cstring>
#include <map>
#include <tuple>

#include <oneapi/dnnl/dnnl.h>

namespace neuroshard::kernels::cpu {

namespace {

/// Bound of the kept shapes. A training run uses some tens; a server with changing batch sizes some hundreds.
constexpr size_t primitives_max = 1024;

enum operand : size_t { source, weights, target, scratchpad, operands };

} // namespace

struct onednn_matmul::primitive {
  dnnl_primitive_t handle = nullptr;
  dnnl_engine_t engine = nullptr;
  dnnl_stream_t stream = nullptr;
  dnnl_memory_desc_t source_desc{};
  dnnl_memory_desc_t weights_desc{};
  dnnl_memory_desc_t target_desc{};
  dnnl_memory_desc_t scratch_desc{};
  size_t scratch_size = 0;
  /// Made by each worker at its first use.
  std::array<std::array<dnnl_memory_t, operands>, compute_pool::threads_max> memory{};

  ~primitive() {
    for (auto& set : memory)
      for (dnnl_memory_t m : set)
        if (m != nullptr)
          dnnl_memory_destroy(m);
    if (handle != nullptr)
      dnnl_primitive_destroy(handle);
  }
};

struct onednn_matmul::implementation {
  using key = std::tuple<dtype, int64_t, int64_t, int64_t>;

  dnnl_engine_t engine = nullptr;
  dnnl_stream_t stream = nullptr;
  std::map<key, std::unique_ptr<primitive>> kept; ///< null where there is no fit kernel

  ~implementation() {
    kept.clear();
    if (stream != nullptr)
      dnnl_stream_destroy(stream);
    if (engine != nullptr)
      dnnl_engine_destroy(engine);
  }

  std::unique_ptr<primitive> make(dtype act, int64_t m, int64_t n, int64_t k) const;
};

onednn_matmul::onednn_matmul() : impl_(std::make_unique<implementation>()) {
  if (dnnl_engine_create(&impl_->engine, dnnl_cpu, 0) != dnnl_success)
    impl_->engine = nullptr;
  else if (dnnl_stream_create(&impl_->stream, impl_->engine, dnnl_stream_default_flags) != dnnl_success)
    impl_->stream = nullptr;
}

onednn_matmul::~onednn_matmul() = default;

std::unique_ptr<onednn_matmul::primitive> onednn_matmul::implementation::make(dtype act, int64_t m, int64_t n,
                                                                              int64_t k) const {
  if (stream == nullptr)
    return nullptr;
  auto p = std::make_unique<primitive>();
  p->engine = engine;
  p->stream = stream;
  const bool half = act == dtype::bf16;
  const dnnl_data_type_t type = half ? dnnl_bf16 : dnnl_f32;
  const dnnl_dims_t source_dims = {m, k};
  const dnnl_dims_t weights_dims = {k, n};
  const dnnl_dims_t target_dims = {m, n};
  dnnl_matmul_desc_t desc;
  if (dnnl_memory_desc_init_by_tag(&p->source_desc, 2, source_dims, type, dnnl_ab) != dnnl_success ||
      dnnl_memory_desc_init_by_tag(&p->weights_desc, 2, weights_dims, type,
                                   half ? dnnl_BA16a64b2a : dnnl_BA16a64b) != dnnl_success ||
      dnnl_memory_desc_init_by_tag(&p->target_desc, 2, target_dims, dnnl_f32, dnnl_ab) != dnnl_success ||
      dnnl_matmul_desc_init(&desc, &p->source_desc, &p->weights_desc, nullptr, &p->target_desc) !=
          dnnl_success)
    return nullptr;
  dnnl_primitive_attr_t attr = nullptr;
  if (dnnl_primitive_attr_create(&attr) != dnnl_success)
    return nullptr;
  dnnl_primitive_desc_t pd = nullptr;
  dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  if (status == dnnl_success)
    status = dnnl_primitive_desc_create(&pd, &desc, attr, engine, nullptr);
  dnnl_primitive_attr_destroy(attr);
  if (status != dnnl_success)
    return nullptr;
  // Other implementations read blocked weights too, but slowly.
  const char* name = "";
  const bool fast =
      dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, static_cast<void*>(&name)) == dnnl_success &&
      std::strncmp(name, "brg", 3) == 0;
  if (fast && dnnl_primitive_create(&p->handle, pd) == dnnl_success) {
    p->scratch_desc = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    p->scratch_size = dnnl_memory_desc_get_size(&p->scratch_desc);
  }
  dnnl_primitive_desc_destroy(pd);
  return p->handle != nullptr ? std::move(p) : nullptr;
}

onednn_matmul::primitive* onednn_matmul::find(dtype act, int64_t m, int64_t n, int64_t k) {
  const implementation::key shape{act, m, n, k};
  const auto found = impl_->kept.find(shape);
  if (found != impl_->kept.end())
    return found->second.get();
  return impl_->kept.emplace(shape, impl_->make(act, m, n, k)).first->second.get();
}

void onednn_matmul::trim() {
  if (impl_->kept.size() > primitives_max)
    impl_->kept.clear();
}

size_t onednn_matmul::scratch_bytes(const primitive& p) noexcept {
  return p.scratch_size;
}

bool onednn_matmul::execute(primitive& p, int worker, const void* a, const void* b, float* c,
                            void* scratch) noexcept {
  auto& memory = p.memory[static_cast<size_t>(worker)];
  const std::array<const dnnl_memory_desc_t*, operands> descs{&p.source_desc, &p.weights_desc, &p.target_desc,
                                                              &p.scratch_desc};
  const std::array<void*, operands> data{const_cast<void*>(a), const_cast<void*>(b), c, scratch};
  for (size_t i = 0; i < operands; ++i) {
    const bool there = memory[i] != nullptr;
    if (!there && dnnl_memory_create(&memory[i], descs[i], p.engine, data[i]) != dnnl_success)
      return false;
    if (there && dnnl_memory_set_data_handle(memory[i], data[i]) != dnnl_success)
      return false;
  }
  const std::array<dnnl_exec_arg_t, operands> args{{{DNNL_ARG_SRC, memory[source]},
                                                    {DNNL_ARG_WEIGHTS, memory[weights]},
                                                    {DNNL_ARG_DST, memory[target]},
                                                    {DNNL_ARG_SCRATCHPAD, memory[scratchpad]}}};
  return dnnl_primitive_execute(p.handle, p.stream, static_cast<int>(args.size()), args.data()) ==
         dnnl_success;
}

} // namespace neuroshard::kernels::cpu
