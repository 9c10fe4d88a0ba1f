#include "kernels/cpu/cpu_backend.hpp"

#include "kernels/core/check.hpp"
#include "kernels/cpu/cpu_device.hpp"

#include <cstdlib>
#include <cstring>

#include <sys/mman.h>

namespace neuroshard::kernels {

namespace cpu {

namespace {

constexpr uint64_t huge_page = uint64_t{2} << 20;
/// From here on memory is aligned to huge pages: fewer TLB misses when weights are streamed.
constexpr uint64_t huge_from = huge_page;
/// Copies and fills below this are not worth waking a thread for.
constexpr uint64_t parallel_copy_from = uint64_t{1} << 20;
constexpr int64_t copy_tile = 256 * 1024;

int device_count() {
  return detect_isa() == isa::none ? 0 : 1;
}

status open(const device_options& options, void** device) {
  if (options.index != 0)
    return {code::unavailable, "there is one CPU device, index 0, not " + std::to_string(options.index)};
  if (options.threads < 0 || options.threads > compute_pool::threads_max)
    return {code::invalid_argument,
            "threads must be between 0 and " + std::to_string(compute_pool::threads_max)};
  const auto level = choose_isa(options.isa);
  if (!level)
    return level.status();
  try {
    *device = new cpu_device(*level, *level >= isa::avx512 && *level == detect_isa(), options.threads);
  } catch (const std::exception& e) {
    return {code::out_of_memory, std::string("the CPU device could not be opened: ") + e.what()};
  }
  return {};
}

void close(void* device) {
  delete static_cast<cpu_device*>(device);
}

void info(void* device, device_info& out) {
  const auto& d = *static_cast<cpu_device*>(device);
  out.name = processor_name();
  out.memory_total = physical_memory();
  out.host_visible = true;
  out.fast_bf16 = d.level >= isa::avx512_bf16;
  out.threads = d.pool.threads();
}

status alloc(void*, uint64_t bytes, void** address) {
  const uint64_t alignment = bytes >= huge_from ? huge_page : 64;
  // Not rounded up to whole huge pages: the rest lies in small ones.
  if (bytes > UINT64_MAX - alignment || posix_memalign(address, alignment, bytes) != 0)
    return {code::out_of_memory, "the system has no " + std::to_string(bytes) + " bytes"};
  if (alignment == huge_page)
    madvise(*address, bytes, MADV_HUGEPAGE); // advice: a failure changes nothing
  return {};
}

void free_memory(void*, void* address, uint64_t) {
  std::free(address);
}

status open_queue(void* device, void** queue) {
  auto* made = new (std::nothrow) cpu_queue{static_cast<cpu_device*>(device)};
  if (made == nullptr)
    return {code::out_of_memory, "no memory for a queue"};
  *queue = made;
  return {};
}

void close_queue(void* queue) {
  delete static_cast<cpu_queue*>(queue);
}

status copy(void* queue, void* to, const void* from, uint64_t bytes) {
  NEUROSHARD_TRY(check_copy(to, from, bytes));
  if (bytes == 0)
    return {};
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  const bool apart = out + bytes <= in || in + bytes <= out;
  if (bytes < parallel_copy_from || !apart) {
    std::memmove(to, from, bytes);
    return {};
  }
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(
        d, static_cast<int64_t>(bytes), 1,
        [&](int64_t first, int64_t last) {
          std::memcpy(out + first, in + first, static_cast<size_t>(last - first));
        },
        copy_tile);
    return status{};
  });
}

status fill(void* queue, void* to, uint8_t value, uint64_t bytes) {
  NEUROSHARD_TRY(check_copy(to, to, bytes));
  if (bytes == 0)
    return {};
  if (bytes < parallel_copy_from) {
    std::memset(to, value, bytes);
    return {};
  }
  auto& d = device_of(queue);
  return run_locked(d, [&] {
    for_row_tiles(
        d, static_cast<int64_t>(bytes), 1,
        [&](int64_t first, int64_t last) {
          std::memset(static_cast<std::byte*>(to) + first, value, static_cast<size_t>(last - first));
        },
        copy_tile);
    return status{};
  });
}

// Every operation is done when it returns, so there is never anything to wait for.
status wait(void*) {
  return {};
}

status make_event(void*, void** event) {
  static char the_event;
  *event = &the_event;
  return {};
}

void destroy_event(void*) {}
status record(void*, void*) {
  return {};
}
status wait_event(void*, void*) {
  return {};
}
bool query(void*) {
  return true;
}

} // namespace

} // namespace cpu

const backend* cpu_backend() {
  static const backend table{
      .abi = backend_abi,
      .name = "cpu",
      .device_count = cpu::device_count,
      .open = cpu::open,
      .close = cpu::close,
      .info = cpu::info,
      .alloc = cpu::alloc,
      .free = cpu::free_memory,
      .open_queue = cpu::open_queue,
      .close_queue = cpu::close_queue,
      .copy = cpu::copy,
      .fill = cpu::fill,
      .wait = cpu::wait,
      .make_event = cpu::make_event,
      .destroy_event = cpu::destroy_event,
      .record = cpu::record,
      .wait_event = cpu::wait_event,
      .query = cpu::query,
      .prepared_bytes = cpu::prepared_bytes,
      .linear_workspace = cpu::linear_workspace,
      .linear_backward_input_workspace = cpu::linear_backward_input_workspace,
      .linear_backward_weight_workspace = cpu::linear_backward_weight_workspace,
      .embedding_backward_workspace = cpu::embedding_backward_workspace,
      .rms_norm_backward_workspace = cpu::rms_norm_backward_workspace,
      .attention_workspace = cpu::attention_workspace,
      .attention_backward_workspace = cpu::attention_backward_workspace,
      .paged_attention_workspace = cpu::paged_attention_workspace,
      .cross_entropy_workspace = cpu::cross_entropy_workspace,
      .sample_workspace = cpu::sample_workspace,
      .grad_norm_workspace = cpu::grad_norm_workspace,
      .prepare_weight = cpu::prepare_weight,
      .linear = cpu::linear,
      .linear_backward_input = cpu::linear_backward_input,
      .linear_backward_weight = cpu::linear_backward_weight,
      .embedding = cpu::embedding,
      .embedding_backward = cpu::embedding_backward,
      .rms_norm = cpu::rms_norm,
      .rms_norm_backward = cpu::rms_norm_backward,
      .rope = cpu::rope,
      .attention = cpu::attention,
      .attention_backward = cpu::attention_backward,
      .kv_append = cpu::kv_append,
      .paged_attention = cpu::paged_attention,
      .swiglu = cpu::swiglu,
      .swiglu_backward = cpu::swiglu_backward,
      .cross_entropy = cpu::cross_entropy,
      .sample = cpu::sample,
      .adamw = cpu::adamw,
      .grad_norm = cpu::grad_norm,
      .clip_factor = cpu::clip_factor,
      .convert = cpu::convert,
      .add = cpu::add,
  };
  return &table;
}

void register_cpu_backend() {
  register_backend(cpu_backend());
}

status set_cpu_threads(const device& on, int threads) {
  if (&on.ops() != cpu_backend())
    return {code::invalid_argument, "the device is not one of the cpu backend"};
  if (threads < 0 || threads > cpu::compute_pool::threads_max)
    return {code::invalid_argument,
            "threads must be between 0 and " + std::to_string(cpu::compute_pool::threads_max)};
  static_cast<cpu::cpu_device*>(on.impl())->pool.set_threads(threads);
  return {};
}

int cpu_threads(const device& on) {
  return &on.ops() == cpu_backend() ? static_cast<cpu::cpu_device*>(on.impl())->pool.threads()
                                    : on.info().threads;
}

} // namespace neuroshard::kernels
