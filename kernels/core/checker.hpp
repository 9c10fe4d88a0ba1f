#pragma once

#include "kernels/core/status.hpp"
#include "kernels/core/tensor.hpp"

#include <cstdint>
#include <initializer_list>
#include <string>

namespace neuroshard::kernels {

/// Sets of element types that an operand may have.
using type_set = uint32_t;
constexpr type_set only(dtype t) noexcept {
  return type_set{1} << (static_cast<uint32_t>(t) & 31U);
}
inline constexpr type_set activations = only(dtype::f32) | only(dtype::bf16);

/// Collects the first thing wrong with the operands of one call; further checks then do nothing.
class checker {
public:
  /// How an operand is used: outputs may not have rows that lie over each other.
  enum class use { read, written, flat };
  static constexpr int64_t any = -1; ///< a dimension that may have any size

  explicit checker(const char* operation) noexcept : operation_(operation) {}

  /// The operand is there, of one of the types, of exactly these dimensions, with unit stride in the
  /// innermost one; `flat` asks for no gaps at all.
  checker& operand(const char* name, const tensor& t, type_set types, std::initializer_list<int64_t> shape,
                   use how = use::read);
  /// As operand, when it is there.
  checker& optional(const char* name, const tensor& t, type_set types, std::initializer_list<int64_t> shape,
                    use how = use::read);
  /// Opaque bytes of exactly `bytes`: i8, rank 1.
  checker& prepared(const char* name, const tensor& t, uint64_t bytes);
  /// Scratch of at least `bytes`, 64-byte aligned; left out where none is needed.
  checker& workspace(const tensor& t, uint64_t bytes);
  /// Any other rule; `problem` completes "<operation>: ...".
  checker& require(bool holds, const char* problem);

  bool ok() const noexcept { return first_.ok(); }
  status done() const { return first_; }

private:
  checker& fail(const std::string& problem);

  const char* operation_;
  status first_;
};

/// "[3, 4]", for messages.
std::string shape_text(const tensor& t);

} // namespace neuroshard::kernels
