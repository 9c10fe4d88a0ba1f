#pragma once

#include "kernels/core/status.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace neuroshard::kernels::cpu {

/// Instruction sets that the kernels are compiled for, each including the ones before it.
enum class isa : uint8_t {
  none,        ///< below x86-64-v2: the CPU backend does not run here
  sse4,        ///< x86-64-v2
  avx2,        ///< with FMA
  avx512,      ///< F, BW, CD, DQ, VL
  avx512_bf16, ///< and AVX512_BF16
};

/// The name that `device_options::isa` takes.
const char* to_string(isa level) noexcept;

/// The best set that this processor and operating system offer.
isa detect_isa() noexcept;

/// The best set at or below the cap `name` ("" = no cap). Fails with invalid_argument for an unknown name and
/// with unavailable when not even SSE4 is there.
result<isa> choose_isa(std::string_view name);

/// True where the processor has AMX with bf16 tiles; oneDNN uses them.
bool has_amx_bf16() noexcept;

/// The brand string of the processor, without padding.
std::string processor_name();

/// Bytes of physical memory.
uint64_t physical_memory() noexcept;

} // namespace neuroshard::kernels::cpu
