#include "kernels/model/sliced.hpp"

#include <bit>

namespace neuroshard::model::detail {

namespace {
constexpr size_t smallest = 256;
} // namespace

frame_pool& frame_pool::mine() {
  thread_local frame_pool pool;
  return pool;
}

size_t frame_pool::class_of(size_t bytes) noexcept {
  return bytes <= smallest ? 0 : static_cast<size_t>(std::bit_width((bytes - 1) / smallest));
}

void* frame_pool::take(size_t bytes) {
  const size_t at = class_of(bytes);
  if (at >= classes)
    return ::operator new(bytes);
  auto& free = mine().free_[at];
  if (free == nullptr)
    return ::operator new(smallest << at);
  return std::exchange(free, free->next);
}

void frame_pool::give(void* frame, size_t bytes) noexcept {
  const size_t at = class_of(bytes);
  if (at >= classes) {
    ::operator delete(frame);
    return;
  }
  auto& free = mine().free_[at];
  free = new (frame) cell{free};
}

frame_pool::~frame_pool() {
  for (cell* first : free_)
    while (first != nullptr)
      ::operator delete(std::exchange(first, first->next));
}

} // namespace neuroshard::model::detail
