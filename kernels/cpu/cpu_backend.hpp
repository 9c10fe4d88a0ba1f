#pragma once

#include "kernels/core/backend.hpp"

/// The fast CPU backend, "cpu": matrix products by oneDNN and, where few rows meet a large weight, by kernels
/// of our own; everything else in SIMD chosen at run time. One compute pool per opened device. Every
/// operation is done when it returns.
namespace neuroshard::kernels {

/// The table. `open` honours device_options::threads, memory and isa ("sse4", "avx2", "avx512",
/// "avx512_bf16").
const backend* cpu_backend();

/// Makes it known to find_backend. Called once, before any thread starts.
void register_cpu_backend();

/// Changes the threads of an open CPU device, between two operations; 0 = one per hardware thread. Results do
/// not change with it. Any thread. Fails with invalid_argument for a device of another backend or a negative
/// or absurd number. device::info() keeps the number the device was opened with; cpu_threads answers the
/// present one.
status set_cpu_threads(const device& on, int threads);
int cpu_threads(const device& on);

} // namespace neuroshard::kernels
