#include "kernels/core/check.hpp"
#include "kernels/reference/reference.hpp"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace neuroshard::kernels::reference {

namespace {

// A device, a queue and an event hold nothing here: every operation is done when it returns. They still need
// addresses of their own.
char the_device;
char the_queue;
char the_event;

} // namespace

int device_count() {
  return 1;
}

status open(const device_options&, void** device) {
  *device = &the_device;
  return {};
}

void close(void*) {}

void info(void*, device_info& out) {
  out.name = "portable reference";
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  out.memory_total = pages > 0 && page > 0 ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page) : 0;
  out.host_visible = true;
  out.fast_bf16 = false;
  out.threads = 1;
}

status alloc(void*, uint64_t bytes, void** address) {
  *address = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (*address == nullptr)
    return {code::out_of_memory, "the system has no " + std::to_string(bytes) + " bytes"};
  return {};
}

void free(void*, void* address, uint64_t) {
  std::free(address);
}

status open_queue(void*, void** queue) {
  *queue = &the_queue;
  return {};
}

void close_queue(void*) {}

status copy(void*, void* to, const void* from, uint64_t bytes) {
  NEUROSHARD_TRY(check_copy(to, from, bytes));
  if (bytes > 0)
    std::memmove(to, from, bytes);
  return {};
}

status fill(void*, void* to, uint8_t value, uint64_t bytes) {
  NEUROSHARD_TRY(check_copy(to, to, bytes));
  if (bytes > 0)
    std::memset(to, value, bytes);
  return {};
}

status wait(void*) {
  return {};
}

status make_event(void*, void** event) {
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

// As with CUDA, an event that was never recorded counts as done.
bool query(void*) {
  return true;
}

} // namespace neuroshard::kernels::reference
