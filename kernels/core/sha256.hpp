#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace neuroshard::kernels {

using digest = std::array<uint8_t, 32>;

/// Incremental SHA-256 (FIPS 180-4). Uses the processor's SHA instructions where it has them.
class sha256 {
public:
  sha256() noexcept;
  sha256& update(std::span<const uint8_t> bytes) noexcept;
  sha256& update(std::string_view text) noexcept;
  sha256& update(const void* data, size_t bytes) noexcept;
  /// Ends the message; the object is to be used no further.
  digest finish() noexcept;

  static digest of(std::span<const uint8_t> bytes) noexcept;
  static digest of(std::string_view text) noexcept;

private:
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> block_;
  size_t held_ = 0;
  uint64_t total_ = 0;
};

/// Lower-case hex.
std::string to_hex(std::span<const uint8_t> bytes);

} // namespace neuroshard::kernels
