#pragma once

#include "bench/kernels/kernel_cases.hpp"

#include <memory>
#include <vector>

namespace neuroshard::bench {

/// What the machine gives at this moment to a plain loop that moves as many bytes as an operation does: other
/// work changes the bandwidth of memory within seconds, so an operation is compared with what runs beside it.
class ceiling {
public:
  /// GB/s of so many bytes, by threads of its own, each taking pieces as it gets through with them.
  virtual double rate(double bytes) = 0;
  virtual ~ceiling() = default;
};

/// Reads (bound::read) or copies (bound::copy; bytes read plus bytes written) through buffers of
/// `working_set` bytes together. Null where there is no memory for them, or for bound::matrix.
std::unique_ptr<ceiling> stream_ceiling(bound limit, double working_set, int threads);

/// Copies the same rows in the same order by one memcpy each, or reads the same blocks of a cache in the same
/// order, a parallel loop for each call. Null where the calls name neither.
std::unique_ptr<ceiling> places_ceiling(const std::vector<prepared_call>& calls, int threads);

} // namespace neuroshard::bench
