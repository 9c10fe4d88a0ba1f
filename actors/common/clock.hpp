#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace neuroshard {

/// Time, passed in so that tests and the simulator move it by hand. Thread safe.
class time_source {
public:
  virtual ~time_source() = default;
  /// Unix time in microseconds.
  virtual int64_t unix_us() const = 0;
  /// Monotonic time in microseconds, from an arbitrary origin.
  virtual int64_t steady_us() const = 0;
};
using time_source_ptr = std::shared_ptr<const time_source>;

/// The machine's clocks.
time_source_ptr system_time();

/// Randomness for ids and seeds, passed in likewise. Thread safe. The production source is the operating
/// system's.
class random_source {
public:
  virtual ~random_source() = default;
  virtual void fill(void* out, size_t bytes) = 0;
};
using random_source_ptr = std::shared_ptr<random_source>;
random_source_ptr system_random();

/// `bytes` random bytes as lower-case hex.
std::string random_hex(random_source& from, size_t bytes);

} // namespace neuroshard
