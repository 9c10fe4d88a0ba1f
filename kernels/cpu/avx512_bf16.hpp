#pragma once

#include "kernels/cpu/tile_kernels.hpp"

/// Versions that use AVX512_BF16, which Highway 1.0 has no operations for. Compiled with function attributes,
/// called only where the processor has it.
namespace neuroshard::kernels::cpu::avx512_bf16 {

/// Replaces the entries of a bf16 table that are faster here.
void install(tile_kernels& table);

} // namespace neuroshard::kernels::cpu::avx512_bf16
