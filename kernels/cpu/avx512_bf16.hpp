#pragma once

#include "kernels/cpu/tile_kernels.hpp"

/// Versions that use AVX512_BF16, which Highway 1.0 has no operations for. Compiled with function attributes,
/// called only where the processor has it.
namespace neuroshard::kernels::cpu::avx512_bf16 {

/// The portable bf16 table with the entries that are faster here, for isa::avx512_bf16. Called once.
tile_kernels with_bf16(const tile_kernels& table);

/// The portable f32 table with faster packing, for isa::avx512 and above. Called once.
tile_kernels with_packing(const tile_kernels& table);

} // namespace neuroshard::kernels::cpu::avx512_bf16
