#pragma once

#include "actors/checkpointer/checkpoint_manifest.hpp"
#include "actors/common/tensor_handle.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

namespace neuroshard {

/// A tensor in host memory of its own, to be filled in; empty when there is no memory.
inline tensor_handle make_host_tensor(kernels::dtype type, const std::vector<int64_t>& shape,
                                      uint64_t bytes) {
  static constexpr auto alignment = std::align_val_t{tensor_alignment};
  tensor_handle handle;
  void* memory = ::operator new(std::max<uint64_t>(bytes, 1), alignment, std::nothrow);
  if (memory == nullptr)
    return handle;
  handle.owner = std::shared_ptr<void>(memory, [](void* p) { ::operator delete(p, alignment); });
  handle.view.data = memory;
  handle.view.type = type;
  handle.view.rank = static_cast<int>(shape.size());
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    handle.view.shape[i] = shape[i];
    handle.view.stride[i] = step;
    step *= shape[i];
  }
  return handle;
}

} // namespace neuroshard
