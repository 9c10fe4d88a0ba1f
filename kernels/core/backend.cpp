#include "kernels/core/backend.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <limits>
#include <mutex>
#include <vector>

namespace neuroshard::kernels {

// ---------------------------------------------------------------------------------------------- registry

namespace {

constexpr const char* cuda_module = "libneuroshard_cuda.so";

struct registry {
  std::mutex guard;
  std::vector<const backend*> built_in;
  const backend* cuda = nullptr; ///< once opened it stays: device memory and code of the module may be in use
};

registry& known() {
  static registry all;
  return all;
}

/// The folder of the running program; empty where the system does not tell.
std::filesystem::path program_folder() {
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::filesystem::path{} : program.parent_path();
}

std::string last_loader_error() {
  const char* text = ::dlerror();
  std::string line = text == nullptr ? "unknown error" : text;
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

result<const backend*> entry_of(void* module) {
  auto* entry = reinterpret_cast<backend_entry>(::dlsym(module, backend_entry_symbol));
  if (entry == nullptr)
    return status(code::unavailable,
                  std::string(cuda_module) + " is no NeuroShard backend: " + last_loader_error());
  const backend* table = entry(backend_abi);
  if (table == nullptr || table->abi != backend_abi)
    return status(code::unavailable,
                  std::string(cuda_module) + " does not speak version " + std::to_string(backend_abi) +
                      " of the backend table; build it from the same source as the program");
  return table;
}

/// Precondition: the registry's guard is held.
result<const backend*> open_cuda(registry& all) {
  if (all.cuda != nullptr)
    return all.cuda;
  const auto beside = program_folder() / cuda_module;
  std::error_code error;
  const bool is_beside = std::filesystem::exists(beside, error);
  void* module = ::dlopen(is_beside ? beside.c_str() : cuda_module, RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr)
    return status(code::unavailable, "no CUDA backend: " + last_loader_error());
  auto table = entry_of(module);
  if (table.ok())
    all.cuda = *table;
  else
    ::dlclose(module);
  return table;
}

} // namespace

void register_backend(const backend* table) {
  registry& all = known();
  const std::lock_guard lock(all.guard);
  if (table != nullptr && std::find(all.built_in.begin(), all.built_in.end(), table) == all.built_in.end())
    all.built_in.push_back(table);
}

result<const backend*> find_backend(std::string_view name) {
  registry& all = known();
  const std::lock_guard lock(all.guard);
  for (const backend* table : all.built_in)
    if (name == table->name)
      return table;
  if (name == "reference")
    return reference_backend();
  if (name == "cuda")
    return open_cuda(all);
  if (name == "cpu")
    return status(code::unavailable,
                  "this program was built without the fast CPU backend (oneDNN and Highway)");
  return status(code::invalid_argument,
                "no backend is called '" + std::string(name) + "'; there are reference, cpu and cuda");
}

// ------------------------------------------------------------------------------------------------ device

struct device::account {
  std::atomic<uint64_t> live{0};
  std::atomic<uint64_t> peak{0};

  /// False when `bytes` more would pass `limit` (0 = none).
  bool take(uint64_t bytes, uint64_t limit) noexcept {
    uint64_t before = live.load();
    do {
      if (bytes > std::numeric_limits<uint64_t>::max() - before || (limit != 0 && before + bytes > limit))
        return false;
    } while (!live.compare_exchange_weak(before, before + bytes));
    uint64_t most = peak.load();
    while (most < before + bytes && !peak.compare_exchange_weak(most, before + bytes)) {
    }
    return true;
  }
  void give_back(uint64_t bytes) noexcept { live.fetch_sub(bytes); }
};

device::device(const backend& table, void* impl)
    : table_(&table), impl_(impl), account_(std::make_shared<account>()) {
  table_->info(impl_, info_);
}

device::~device() {
  table_->close(impl_);
}

result<std::shared_ptr<device>> device::open(const backend& table, const device_options& options) {
  if (table.abi != backend_abi)
    return status(code::unavailable,
                  std::string("backend ") + table.name + " speaks another version of the table");
  const int count = table.device_count();
  if (count == 0)
    return status(code::unavailable,
                  std::string("backend ") + table.name + " finds no device on this machine");
  if (options.index < 0 || options.index >= count)
    return status(code::invalid_argument, std::string("backend ") + table.name + " has " +
                                              std::to_string(count) + " device(s); there is no device " +
                                              std::to_string(options.index));
  if (options.threads < 0)
    return status(code::invalid_argument, "the number of threads of a device is not negative");
  void* impl = nullptr;
  NEUROSHARD_TRY(table.open(options, &impl));
  auto opened = std::shared_ptr<device>(new device(table, impl));
  opened->memory_limit_ = options.memory_bytes;
  return opened;
}

result<buffer_ptr> device::alloc(uint64_t bytes) {
  // Rounded up to whole cache lines, and never nothing: an empty tensor still has an address.
  constexpr uint64_t line = 64;
  if (bytes > std::numeric_limits<uint64_t>::max() - line)
    return status(code::out_of_memory, "an allocation of " + std::to_string(bytes) + " bytes");
  const uint64_t taken = std::max(line, (bytes + line - 1) / line * line);
  // What the device could never hold is refused here: a host that overcommits would promise it, and fall
  // later.
  if (info_.memory_total != 0 && taken > info_.memory_total)
    return status(code::out_of_memory, std::to_string(taken) + " bytes are more than the " +
                                           std::to_string(info_.memory_total) + " bytes of the device");
  if (!account_->take(taken, memory_limit_))
    return status(code::out_of_memory, std::to_string(taken) + " bytes more would pass the limit of " +
                                           std::to_string(memory_limit_) + " bytes; " +
                                           std::to_string(allocated()) + " are in use");
  void* address = nullptr;
  if (status done = table_->alloc(impl_, taken, &address); !done.ok()) {
    account_->give_back(taken);
    return done;
  }
  auto made = std::make_shared<buffer>();
  made->address = address;
  made->bytes = bytes;
  made->owner = this;
  made->host_visible = info_.host_visible;
  made->keep_alive = std::shared_ptr<void>(address, [self = shared_from_this(), taken](void* memory) {
    self->table_->free(self->impl_, memory, taken);
    self->account_->give_back(taken);
  });
  return buffer_ptr(std::move(made));
}

uint64_t device::allocated() const noexcept {
  return account_->live.load();
}

uint64_t device::allocated_peak() const noexcept {
  return account_->peak.load();
}

// --------------------------------------------------------------------------------------- queue and event

result<std::unique_ptr<queue>> queue::open(device_ptr on) {
  if (on == nullptr)
    return status(code::invalid_argument, "a queue needs a device");
  void* impl = nullptr;
  NEUROSHARD_TRY(on->ops().open_queue(on->impl(), &impl));
  return std::unique_ptr<queue>(new queue(std::move(on), impl));
}

queue::~queue() {
  ops().close_queue(impl_);
}

status queue::record(event& e) {
  return ops().record(impl_, e.impl());
}

status queue::wait(event& e) {
  return ops().wait_event(impl_, e.impl());
}

result<std::unique_ptr<event>> event::make(device_ptr on) {
  if (on == nullptr)
    return status(code::invalid_argument, "an event needs a device");
  void* impl = nullptr;
  NEUROSHARD_TRY(on->ops().make_event(on->impl(), &impl));
  return std::unique_ptr<event>(new event(std::move(on), impl));
}

event::~event() {
  on_->ops().destroy_event(impl_);
}

} // namespace neuroshard::kernels
