#pragma once

#include <cstddef>
#include <cstdint>

namespace neuroshard::kernels {

/// CRC-32C (Castagnoli, reflected, as in RFC 3720) of bytes that follow those with the CRC `before`. Uses the
/// processor's instruction where it has one (SSE 4.2).
uint32_t crc32c(const void* data, size_t bytes, uint32_t before = 0) noexcept;

/// The same without it: what the fast one is tested against.
uint32_t crc32c_portable(const void* data, size_t bytes, uint32_t before = 0) noexcept;

} // namespace neuroshard::kernels
