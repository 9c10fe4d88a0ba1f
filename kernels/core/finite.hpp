#pragma once

#include "kernels/core/dtype.hpp"

#include <cstddef>

namespace neuroshard::kernels {

/// Whether no element is NaN or infinite. `data`: `bytes` bytes, whole elements, of any alignment. Integers
/// are always finite.
bool all_finite(dtype type, const void* data, size_t bytes) noexcept;

} // namespace neuroshard::kernels
